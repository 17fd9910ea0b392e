//! `terrace completion` and `terrace man`: generated from the same definition as the parser.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure};

/// Print a completion script, for example: terrace completion bash > /etc/bash_completion.d/terrace
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell to complete for
    shell: Shell,
}

/// Write one manual page for each command.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// An existing directory, for example /usr/local/share/man/man1
    dir: PathBuf,
}

pub(crate) fn completion(args: &CompletionArgs) -> Result<(), Failure> {
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "terrace",
        &mut std::io::stdout(),
    );
    Ok(())
}

pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), &args.dir).with_context(|| {
        format!(
            "write manual pages to {}; try an existing directory you own",
            args.dir.display()
        )
    })?;
    Ok(())
}
