//! What volumes there are, and what they take.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use terrace_csi::RecordState;
use terrace_csi::spaces::{Enforcer, SpaceName, SpaceRecord, SpaceUsage, Spaces};

use super::{BaseArgs, Global};
use crate::cli::table::{Table, number, size, utc};

/// List volumes, with what they may take and take; also those in the trash.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    base: BaseArgs,
}

/// Say what volumes take. Where the file system counts, as of now; else as of the time that is told: a
/// node that has the volume mounted says it every ten seconds.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// Only this one
    name: Option<SpaceName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    base: BaseArgs,
}

pub(super) fn list(args: &ListArgs, global: &Global) -> Result<()> {
    let spaces = args.base.open(global)?;
    let all = spaces.list()?;
    if args.json {
        let told: Result<Vec<Value>> = all.iter().map(|record| document(&spaces, record)).collect();
        println!("{}", serde_json::to_string_pretty(&told?)?);
        return Ok(());
    }
    let mut table = Table::new(&[
        "NAME", "OWNER", "USED", "QUOTA", "FILES", "LIMIT", "KEPT BY", "STATE",
    ]);
    for record in &all {
        let used = spaces.usage(record)?;
        table.row(vec![
            record.name.to_string(),
            format!("{}:{}", record.uid, record.gid),
            size(used.bytes),
            record.limits.bytes.map_or_else(|| "-".to_owned(), size),
            used.files.to_string(),
            number(record.limits.files),
            enforcer(record).to_owned(),
            state(record),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

pub(super) fn usage(args: &UsageArgs, global: &Global) -> Result<()> {
    let spaces = args.base.open(global)?;
    let records = match &args.name {
        Some(name) => vec![spaces.space(name)?],
        None => spaces.list()?,
    };
    if args.json {
        let told: Result<Vec<Value>> = records
            .iter()
            .map(|record| document(&spaces, record))
            .collect();
        let told = told?;
        let text = match (&args.name, &told[..]) {
            (Some(_), [one]) => serde_json::to_string_pretty(one)?,
            _ => serde_json::to_string_pretty(&told)?,
        };
        println!("{text}");
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "USED", "QUOTA", "%", "FILES", "LIMIT", "%", "AS OF"]);
    for record in &records {
        let used = spaces.usage(record)?;
        table.row(vec![
            record.name.to_string(),
            size(used.bytes),
            record.limits.bytes.map_or_else(|| "-".to_owned(), size),
            percent(used.bytes, record.limits.bytes),
            used.files.to_string(),
            number(record.limits.files),
            percent(used.files, record.limits.files),
            as_of(&used),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

/// A volume as scripts read it.
fn document(spaces: &Spaces, record: &SpaceRecord) -> Result<Value> {
    let used = spaces.usage(record)?;
    Ok(json!({
        "name": record.name,
        "uid": record.uid,
        "gid": record.gid,
        "tenant": record.tenant,
        "quota_bytes": record.limits.bytes,
        "quota_files": record.limits.files,
        "kept_by": enforcer(record),
        "used_bytes": used.bytes,
        "used_files": used.files,
        "as_of": used.at,
        "created": record.created,
        "trash_until": record.due,
    }))
}

fn enforcer(record: &SpaceRecord) -> &'static str {
    match record.enforcer {
        Enforcer::Project(_) => "file system",
        Enforcer::Daemon => "daemon",
    }
}

fn state(record: &SpaceRecord) -> String {
    match (record.state, record.due) {
        (RecordState::Deleting, due) => format!("trash until {}", time(due)),
        _ => "ready".to_owned(),
    }
}

fn as_of(used: &SpaceUsage) -> String {
    match used.at {
        None => "now".to_owned(),
        at => time(at),
    }
}

/// A time of a record.
pub(super) fn time(seconds: Option<u64>) -> String {
    utc(seconds.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000)))
}

/// How full; a limit of nothing is full.
fn percent(used: u64, limit: Option<u64>) -> String {
    match limit {
        None => "-".to_owned(),
        Some(0) => "100".to_owned(),
        Some(limit) => (u128::from(used) * 100 / u128::from(limit)).to_string(),
    }
}
