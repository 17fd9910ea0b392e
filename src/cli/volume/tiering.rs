//! `terrace volume demote|recall|scan|pin|unpin|collect`: the cold store of a mounted volume.
//!
//! The worker of the mount does the work; this asks, shows progress on a terminal, and sums up.

use std::io::{IsTerminal, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use terrace_cache::units::{ByteSize, Span};
use terrace_fuse::directory::TierPolicy;

use super::super::{Failure, Global};
use crate::control::proto::target::Kind;
use crate::control::proto::{MountPath, TieringAction, TieringReport, TieringRequest};
use crate::control::{client, instance};

/// Files and directories below mounted volumes.
#[derive(Debug, Args)]
pub(crate) struct Paths {
    /// Files or directories below a mounted volume
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// Move contents to the cold store; files stay, with all their attributes. What is open, pinned or
/// changing stays as it is.
#[derive(Debug, Args)]
pub(crate) struct DemoteArgs {
    #[command(flatten)]
    what: Paths,
    /// Only what was neither read nor written for so long
    #[arg(long, value_name = "TIME", default_value = "0s")]
    older_than: Span,
    /// Only files at least so large
    #[arg(long, value_name = "SIZE", default_value = "1B")]
    larger_than: ByteSize,
    /// Only say what would move
    #[arg(long)]
    dry_run: bool,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Bring contents back from the cold store. Opening a file does the same for that file.
#[derive(Debug, Args)]
pub(crate) struct RecallArgs {
    #[command(flatten)]
    what: Paths,
    /// Only say what would come back
    #[arg(long)]
    dry_run: bool,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Say what there is, what is in the cold store, and what the policy would move now.
#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    what: Paths,
    /// Judge by this policy (YAML) instead of the one the volume is mounted with
    #[arg(long, value_name = "FILE")]
    tier_policy: Option<PathBuf>,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Files, or directories with all below, that never move.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    #[command(flatten)]
    what: Paths,
}

/// Remove objects of a volume that no file names any more: of files that were deleted or written
/// since they were moved.
#[derive(Debug, Args)]
pub(crate) struct CollectArgs {
    /// The volume: its mount point, or any path below
    #[arg(value_name = "MOUNT")]
    mount: PathBuf,
    /// What is younger stays, at least 1h: longer than any upload takes
    #[arg(long, value_name = "TIME", default_value = "24h")]
    grace: Span,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

/// Reads a policy file (YAML).
pub(crate) fn read_policy(path: &Path) -> Result<TierPolicy> {
    let what = || format!("read the policy {}", path.display());
    let text = std::fs::read_to_string(path).with_context(what)?;
    parse_policy(&text).with_context(what)
}

/// Reads the text of a policy.
pub(crate) fn parse_policy(text: &str) -> Result<TierPolicy> {
    let policy: TierPolicy = serde_saphyr::from_str(text)
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().replace('\n', " ")))?;
    policy.check()?;
    Ok(policy)
}

pub(crate) fn demote(args: &DemoteArgs, global: &Global) -> Result<(), Failure> {
    let policy = TierPolicy {
        older_than: args.older_than,
        larger_than: args.larger_than,
        ..TierPolicy::default()
    };
    let work = Work {
        action: TieringAction::Demote,
        verb: if args.dry_run { "would move" } else { "moved" },
        dry_run: args.dry_run,
        policy: serde_json::to_string(&policy)?,
        grace: Span::default(),
        json: args.json,
    };
    work.on(&args.what.paths, global)
}

pub(crate) fn recall(args: &RecallArgs, global: &Global) -> Result<(), Failure> {
    let work = Work {
        action: TieringAction::Recall,
        verb: if args.dry_run {
            "would bring back"
        } else {
            "brought back"
        },
        dry_run: args.dry_run,
        policy: String::new(),
        grace: Span::default(),
        json: args.json,
    };
    work.on(&args.what.paths, global)
}

pub(crate) fn scan(args: &ScanArgs, global: &Global) -> Result<(), Failure> {
    let policy = match &args.tier_policy {
        None => String::new(),
        Some(path) => serde_json::to_string(&read_policy(path)?)?,
    };
    let work = Work {
        action: TieringAction::Scan,
        verb: "would move",
        dry_run: true,
        policy,
        grace: Span::default(),
        json: args.json,
    };
    work.on(&args.what.paths, global)
}

pub(crate) fn pin(args: &PinArgs, pinned: bool, global: &Global) -> Result<(), Failure> {
    let (action, verb) = match pinned {
        true => (TieringAction::Pin, "pinned"),
        false => (TieringAction::Unpin, "unpinned"),
    };
    let work = Work {
        action,
        verb,
        dry_run: false,
        policy: String::new(),
        grace: Span::default(),
        json: false,
    };
    work.on(&args.what.paths, global)
}

pub(crate) fn collect(args: &CollectArgs, global: &Global) -> Result<(), Failure> {
    let work = Work {
        action: TieringAction::Collect,
        verb: if args.dry_run {
            "would remove"
        } else {
            "removed"
        },
        dry_run: args.dry_run,
        policy: String::new(),
        grace: args.grace,
        json: args.json,
    };
    work.on(std::slice::from_ref(&args.mount), global)
}

/// One command on some paths.
struct Work {
    action: TieringAction,
    /// What was done, for people.
    verb: &'static str,
    dry_run: bool,
    policy: String,
    grace: Span,
    json: bool,
}

impl Work {
    /// Does it for one path after the other; the first that fails ends it.
    fn on(&self, paths: &[PathBuf], global: &Global) -> Result<(), Failure> {
        let runtime = client::runtime()?;
        let mut results = Vec::new();
        for path in paths {
            let what = || format!("{} {}", self.name(), path.display());
            let done = runtime
                .block_on(self.one(path, global))
                .with_context(what)?;
            results.push(done);
        }
        if self.json {
            println!("{}", json!({ "results": results }));
        }
        let failed: u64 = results.iter().map(|sums| number(sums, "failed")).sum();
        match results.iter().find_map(|sums| sums["error"].as_str()) {
            Some(first) if failed > 0 => Err(Failure(format!(
                "{}: {failed} files failed, first: {first}",
                self.name()
            ))),
            _ => Ok(()),
        }
    }

    fn name(&self) -> &'static str {
        match self.action {
            TieringAction::Demote => "demote",
            TieringAction::Recall => "recall",
            TieringAction::Pin => "pin",
            TieringAction::Unpin => "unpin",
            TieringAction::Collect => "collect",
            TieringAction::Scan | TieringAction::Unspecified => "scan",
        }
    }

    async fn one(&self, path: &Path, global: &Global) -> Result<Value> {
        let text = path.to_str().context("use a path that is UTF-8")?;
        let (node, target) = instance::locate(&global.run_base(), None, text)?;
        let Some(Kind::Mount(place)) = target.kind else {
            bail!("name a path below a mounted volume");
        };
        let request = TieringRequest {
            target: Some(place.clone()),
            action: self.action.into(),
            dry_run: self.dry_run,
            policy: self.policy.clone(),
            grace_seconds: self.grace.0.as_secs(),
        };
        let mut worker = client::connect(&node).await?;
        let reply = worker.tiering(request).await;
        let mut stream = reply
            .map_err(|status| client::refused(&status))?
            .into_inner();
        let bar = self.bar();
        loop {
            let message = stream.message().await;
            let message = message.map_err(|status| client::refused(&status))?;
            let Some(report) = message else {
                bail!(
                    "the node ended before the work was done; try again, it goes on where it was"
                );
            };
            self.rows(&report, &place, &bar)?;
            let sums: Option<Value> = serde_json::from_str(&report.sums).ok();
            if report.finished {
                bar.finish_and_clear();
                if !report.error.is_empty() {
                    bail!("{}", report.error);
                }
                let sums = sums.unwrap_or(Value::Null);
                self.sum_up(path, &sums);
                return Ok(sums);
            }
            if let Some(sums) = sums {
                bar.set_message(progress(&sums));
            }
        }
    }

    fn bar(&self) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// One line for each file that was moved, or would be.
    fn rows(&self, report: &TieringReport, place: &MountPath, bar: &ProgressBar) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let root = if self.action == TieringAction::Collect {
            PathBuf::new()
        } else {
            PathBuf::from(&place.mountpoint)
        };
        for row in &report.rows {
            let path = root.join(std::ffi::OsStr::from_bytes(&row.path));
            let mut line = format!("{} {} ", self.verb, ByteSize(row.bytes)).into_bytes();
            line.extend_from_slice(path.as_os_str().as_bytes());
            line.push(b'\n');
            bar.suspend(|| std::io::stdout().lock().write_all(&line))
                .context("print")?;
        }
        Ok(())
    }

    fn sum_up(&self, path: &Path, sums: &Value) {
        if self.json {
            return;
        }
        let path = path.display();
        let bytes = |name: &str| ByteSize(number(sums, name));
        match self.action {
            TieringAction::Pin | TieringAction::Unpin => println!("{path}: {}", self.verb),
            TieringAction::Collect => println!(
                "{path}: {} {} of {} objects, {}; {} are too young",
                self.verb,
                number(sums, "taken"),
                number(sums, "objects"),
                bytes("taken_bytes"),
                number(sums, "young"),
            ),
            _ => {
                let (files, size) = match self.dry_run {
                    true => ("chosen", "chosen_bytes"),
                    false => ("moved", "moved_bytes"),
                };
                println!(
                    "{path}: {} {} of {} files, {} of {}; {} are in the cold store, {} of them; \
                     kept {} open, {} changing, {} pinned",
                    self.verb,
                    number(sums, files),
                    number(sums, "files"),
                    bytes(size),
                    bytes("bytes"),
                    bytes("stub_bytes"),
                    number(sums, "stubs"),
                    number(sums, "kept_open"),
                    number(sums, "kept_changed"),
                    number(sums, "kept_pinned"),
                );
            }
        }
    }
}

fn number(sums: &Value, name: &str) -> u64 {
    sums[name].as_u64().unwrap_or(0)
}

fn progress(sums: &Value) -> String {
    format!(
        "{} files seen, {} chosen, {} moved ({})",
        number(sums, "files"),
        number(sums, "chosen"),
        number(sums, "moved"),
        ByteSize(number(sums, "moved_bytes")),
    )
}
