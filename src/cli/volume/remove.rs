//! Deleting volumes: into the trash, back from it, and away.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use terrace_cache::units::{Count, Span};
use terrace_csi::spaces::SpaceName;
use terrace_fuse::directory::count_tree;

use super::{BaseArgs, Global, list, mounted, shown};
use crate::cli::table::size;
use crate::node::space::now;

/// Move a volume into the trash. `terrace volume purge` removes it when its time has come.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// home/USER or project/NAME
    name: SpaceName,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// How long it can be brought back
    #[arg(long, value_name = "TIME", default_value = "7d")]
    after: Span,
    /// Although it is mounted on this machine; who works in it goes on in the trash
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    base: BaseArgs,
}

/// Bring a volume back from the trash, as it was.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// home/USER or project/NAME
    name: SpaceName,
    #[command(flatten)]
    base: BaseArgs,
}

/// Remove the volumes in the trash whose time has come, for ever.
#[derive(Debug, Args)]
#[command(
    after_long_help = "For a timer, on one node: terrace volume purge --base /mnt/pfs. No link is \
    followed and nothing that is mounted inside is entered."
)]
pub(crate) struct PurgeArgs {
    /// Only say which
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    base: BaseArgs,
}

pub(super) fn delete(args: &DeleteArgs, global: &Global) -> Result<()> {
    let what = || format!("delete the volume {}", args.name);
    let spaces = args.base.open(global)?;
    let here = mounted(&spaces.path(&args.name)).with_context(what)?;
    if args.dry_run {
        let at = spaces.directory(&args.name).with_context(what)?;
        let found = count_tree(&at, &|| false)
            .map_err(std::io::Error::from)
            .with_context(|| format!("count what is in {}", at.display()))?;
        let found = found.unwrap_or_default();
        println!(
            "would move {} with {}, {}, into the trash{}",
            args.name,
            Count(found.files, "file"),
            size(found.bytes),
            if here.is_empty() {
                String::new()
            } else {
                format!("; it is mounted on {}", shown(&here))
            }
        );
        return Ok(());
    }
    if !here.is_empty() && !args.force {
        bail!(
            "{}: it is mounted on {}; terrace umount it first, or use --force",
            what(),
            shown(&here)
        );
    }
    ensure!(
        args.after.0 <= Duration::from_secs(3650 * 24 * 3600),
        "{}: --after {} is more than ten years",
        what(),
        args.after
    );
    let due = now().saturating_add(args.after.0.as_secs());
    let record = spaces.delete(&args.name, due).with_context(what)?;
    println!(
        "{} is in the trash; terrace volume restore brings it back, terrace volume purge removes it from {} on",
        record.name,
        list::time(record.due)
    );
    Ok(())
}

pub(super) fn restore(args: &RestoreArgs, global: &Global) -> Result<()> {
    let what = || format!("restore the volume {}", args.name);
    let spaces = args.base.open(global)?;
    let record = spaces.restore(&args.name).with_context(what)?;
    println!("{} is back", record.name);
    Ok(())
}

pub(super) fn purge(args: &PurgeArgs, global: &Global) -> Result<()> {
    let spaces = args.base.open(global)?;
    let purged = spaces.purge(now(), args.dry_run)?;
    if args.json {
        let names: Vec<_> = purged.due.iter().map(|record| &record.name).collect();
        let failed: Vec<_> = purged
            .failed
            .iter()
            .map(|(name, error)| json!({"name": name, "why": error.to_string()}))
            .collect();
        let told = json!({"dry_run": args.dry_run, "purged": names, "failed": failed});
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        let verb = if args.dry_run {
            "would remove"
        } else {
            "removed"
        };
        for record in &purged.due {
            println!("{verb} {}", record.name);
        }
        if purged.due.is_empty() && purged.failed.is_empty() {
            println!("the time of nothing in the trash has come");
        }
    }
    match purged.failed.first() {
        None => Ok(()),
        Some((name, error)) => bail!(
            "{} of the volumes in the trash could not be removed, the first is {name}: {error}",
            purged.failed.len()
        ),
    }
}
