//! Log output: text for people, JSON lines for machines; level by flag, never by environment.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Logs at ERROR what it also returns, and whoever gets it says so with what to try.
const QUIET: &str = "rustls_platform_verifier=off";

/// How log lines look on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr. `filter` is a level (`info`) or directives (`info,terrace_cache=debug`).
///
/// Errors: an unreadable filter, as text for the user.
pub(crate) fn init(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| {
        format!("read --log `{filter}`: {error}; try a level such as info or debug")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("start logging: {error}"))
}
