//! `terrace catalog gc` and `scrub`: asked of a running catalog, told line by line.
//!
//! What is done is done by the catalog, beside everything else it does; interrupting the command ends it
//! between two steps. The exit status is 1 when a run did not get to its end, and when a scrub found
//! something damaged.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;
use terrace_cache::units::{ByteSize, Count, Span};
use terrace_catalog::DatasetName;
use terrace_catalog::collect::{Collected, Item, ItemKind};
use terrace_catalog::rest::wire::{GcQuery, ScrubQuery};
use terrace_catalog::scrub::{Finding, Scrubbed};

use super::table::{printable, size};
use crate::catalog::client::{CatalogClient, Lines};

/// Take away what no version names.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Takes blobs of manifests and files of the cold store that no version names: what \
    crashes and given up saves left, and what removed versions needed. Versions beyond those that a \
    descriptor keeps (versions: {keep, keepFor}) are marked, and removed by a run a day later unless \
    they are tagged, held or the latest until then; models' never. Nothing younger than the grace \
    period goes, nothing that a version needs, whatever it is called, and nothing before all versions \
    were looked at."
)]
pub(super) struct GcArgs {
    /// Only say what would be taken; a run at the same moment takes exactly that
    #[arg(long)]
    dry_run: bool,
    /// What is younger stays; at least 1h [default: 24h]
    #[arg(long, value_name = "TIME")]
    grace: Option<Span>,
    /// Print JSON, an object for each thing and one at the end
    #[arg(long)]
    json: bool,
}

/// Read saved versions and manifests back and compare digests.
#[derive(Debug, Args)]
#[command(
    after_long_help = "What is damaged is reported and its version marked as degraded (an event, and a \
    state in every list). Nothing is ever deleted."
)]
pub(super) struct ScrubArgs {
    /// Only this dataset or model
    dataset: Option<DatasetName>,
    /// Most bytes of files read a second; 0B for no limit [default: 100MiB]
    #[arg(long, value_name = "SIZE")]
    rate: Option<ByteSize>,
    /// Print JSON, an object for each finding and one at the end
    #[arg(long)]
    json: bool,
}

impl ScrubArgs {
    /// Of one dataset.
    pub(super) fn of(dataset: DatasetName, rate: Option<ByteSize>, json: bool) -> Self {
        Self {
            dataset: Some(dataset),
            rate,
            json,
        }
    }
}

pub(super) async fn gc(client: &CatalogClient, args: &GcArgs) -> Result<()> {
    let query = GcQuery {
        dry_run: args.dry_run,
        grace_seconds: args.grace.map(|grace| grace.0.as_secs()),
    };
    let lines = client.lines(&["gc"], &query).await?;
    let (verb, marks) = match args.dry_run {
        true => ("would take", "would mark"),
        false => ("took", "marked"),
    };
    let done: Collected = follow(lines, "item", args.json, |item: Item| {
        if item.kind == ItemKind::Retired {
            let name = printable(&item.name);
            return Ok(format!(
                "{marks} {name} for removal: its descriptor does not keep it"
            ));
        }
        let kind = serde_json::to_value(item.kind)?;
        let kind = kind.as_str().unwrap_or_default();
        Ok(format!(
            "{verb} {kind} {} ({})",
            printable(&item.name),
            size(item.bytes)
        ))
    })
    .await?;
    if args.json {
        return Ok(());
    }
    println!(
        "{verb} {} of {} and {}, {}; kept {} for {}, and {} that are too young or in use",
        done.taken,
        Count(done.blobs, "blob"),
        Count(done.files, "file"),
        size(done.taken_bytes),
        done.marked,
        Count(done.versions, "version"),
        done.young
    );
    if done.retired > 0 {
        println!(
            "{marks} {} for removal; tag what shall stay",
            Count(done.retired, "version")
        );
    }
    if done.unknown_versions > 0 {
        println!(
            "kept {} known from files only; terrace catalog rebuild restores what is known so",
            Count(done.unknown_versions, "version")
        );
    }
    if done.foreign > 0 {
        println!(
            "kept {} in the cold store that the catalog has not made",
            Count(done.foreign, "file")
        );
    }
    Ok(())
}

pub(super) async fn scrub(client: &CatalogClient, args: &ScrubArgs) -> Result<()> {
    let query = ScrubQuery {
        dataset: args.dataset.as_ref().map(ToString::to_string),
        bytes_per_second: args.rate.map(|rate| rate.0),
    };
    let lines = client.lines(&["scrub"], &query).await?;
    let done: Scrubbed = follow(lines, "finding", args.json, |found: Finding| {
        let Finding {
            dataset,
            version,
            what,
            reason,
        } = found;
        Ok(format!(
            "{dataset}@v{version} {}: {}",
            printable(&what),
            printable(&reason)
        ))
    })
    .await?;
    if !args.json {
        println!(
            "read {}: {}, {}, {}; {} could not be read",
            Count(done.versions, "version"),
            Count(done.blobs, "block"),
            Count(done.files, "file"),
            size(done.bytes),
            done.unread
        );
    }
    if done.damaged > 0 {
        bail!(
            "found {} in {}, now marked; restore the files from a backup of the cold store",
            Count(done.damaged, "damaged piece"),
            Count(done.damaged_versions, "version")
        );
    }
    Ok(())
}

/// Prints each thing, and returns what the last line says.
async fn follow<T, D>(
    mut lines: Lines,
    name: &str,
    json: bool,
    text: impl Fn(T) -> Result<String>,
) -> Result<D>
where
    T: serde::de::DeserializeOwned,
    D: serde::de::DeserializeOwned,
{
    let mut out = std::io::stdout();
    while let Some(line) = lines.next().await? {
        if let Some(error) = line.get("error") {
            let part = |name: &str| error[name].as_str().map(printable).unwrap_or_default();
            bail!("{}; {}", part("message"), part("hint"));
        }
        let Value::Object(mut line) = line else {
            continue;
        };
        if json && !line.contains_key("alive") {
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
        }
        if let Some(done) = line.remove("done") {
            return Ok(serde_json::from_value(done)?);
        }
        if let Some(thing) = line.remove(name).filter(|_| !json) {
            writeln!(out, "{}", text(serde_json::from_value(thing)?)?)?;
        }
    }
    bail!("the answer was cut before its end; run it again")
}
