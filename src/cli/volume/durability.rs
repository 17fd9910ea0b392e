//! `terrace volume flush` and `status`, and what `terrace umount` asks of them: files of directory
//! volumes that are on this node's SSD and not in their directory yet.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use terrace_cache::units::{ByteSize, Count};
use terrace_fuse::directory::Level;
use terrace_fuse::keeper::RunDir;
use tonic::Code;

use super::super::{Failure, Global};
use crate::control::proto::target::Kind;
use crate::control::proto::{
    MountPath, VolumeFlushProgress, VolumeFlushRequest, VolumeStatusRequest,
};
use crate::control::{client, instance};

/// How long a worker may take to say what it has.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// Bring files of a directory volume to a level of durability, and wait for it.
#[derive(Debug, Args)]
pub(super) struct FlushArgs {
    /// A file, a directory or the mount point of a volume
    path: String,
    /// local: on this node's SSD, shared: in the directory, or cold: in the cold store, read back
    #[arg(long, default_value = "shared")]
    level: Level,
}

/// Say what of a directory volume is not in its directory yet, and what has failed.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// A file, a directory or the mount point of a volume
    path: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Take note of the failures: they are not told again
    #[arg(long)]
    acknowledge: bool,
}

/// What an unmount leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Files that are on this node's SSD only.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Files that calls have promised to the cold store and that are not there.
    pub(crate) owed: u64,
    /// Where they are.
    pub(crate) directory: String,
}

/// The node of a path of a volume, and the path as the node knows it.
fn locate(path: &str, global: &Global) -> Result<(RunDir, MountPath)> {
    let (run, target) = instance::locate(&global.run_base(), None, path)?;
    match target.kind {
        Some(Kind::Mount(at)) => Ok((run, at)),
        _ => bail!("find {path}: name a path below a mount of a directory"),
    }
}

pub(super) fn flush(args: &FlushArgs, global: &Global) -> Result<(), Failure> {
    let what = || format!("flush {}", args.path);
    let (run, at) = locate(&args.path, global)?;
    let runtime = client::runtime()?;
    let last = runtime.block_on(bring(&run, at, Wanted::all(args.level), true));
    let last = last.with_context(what)?;
    if last.failed > 0 {
        return Err(Failure(format!(
            "{}: {} of {} files are not at level {}, first: {}; see terrace volume status {}",
            what(),
            last.failed,
            last.total,
            args.level,
            last.error,
            args.path
        )));
    }
    println!(
        "{}, {} at level {}",
        Count(last.done, "file"),
        ByteSize(last.bytes),
        args.level
    );
    Ok(())
}

/// What files are to be brought to.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    level: Level,
    /// Only those that a call has promised it.
    owed: bool,
}

impl Wanted {
    fn all(level: Level) -> Self {
        Self { level, owed: false }
    }
}

/// Asks for a level and follows until it is reached or not.
async fn bring(
    run: &RunDir,
    at: MountPath,
    wanted: Wanted,
    show: bool,
) -> Result<VolumeFlushProgress> {
    let mut worker = client::connect(run).await?;
    let request = VolumeFlushRequest {
        at: Some(at),
        level: wanted.level.name().to_owned(),
        owed: wanted.owed,
    };
    let reply = worker.volume_flush(request).await;
    let mut stream = reply
        .map_err(|status| client::refused(&status))?
        .into_inner();
    let bar = if show && std::io::stderr().is_terminal() {
        ProgressBar::no_length()
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files {msg}");
    bar.set_style(style.expect("the template is a constant"));
    let mut last = VolumeFlushProgress::default();
    while let Some(progress) = stream
        .message()
        .await
        .map_err(|status| client::refused(&status))?
    {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(ByteSize(progress.bytes).to_string());
        last = progress;
    }
    bar.finish_and_clear();
    if !last.finished {
        bail!("the node ended before it was done; try again, it goes on where it was");
    }
    Ok(last)
}

pub(super) fn status(args: &StatusArgs, global: &Global) -> Result<(), Failure> {
    let (run, at) = locate(&args.path, global)?;
    let asked = client::runtime()?.block_on(document(&run, at, args.acknowledge));
    let document = asked.with_context(|| format!("ask about {}", args.path))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print(&document);
    }
    Ok(())
}

async fn document(run: &RunDir, at: MountPath, acknowledge: bool) -> Result<Value> {
    let request = VolumeStatusRequest {
        at: Some(at),
        acknowledge,
    };
    let mut worker = client::connect(run).await?;
    let reply = worker.volume_status(request).await;
    let reply = reply.map_err(|status| client::refused(&status))?;
    serde_json::from_str(&reply.into_inner().json).context("read the worker's answer")
}

fn print(document: &Value) {
    let spool = &document["spool"];
    if spool.is_null() {
        println!("written through: all of it is in the directory");
        print_debts(&document["cold"]);
        return;
    }
    let number = |name: &str| spool[name].as_u64().unwrap_or(0);
    let waiting = match number("files") {
        0 => "all of it is in the directory".to_owned(),
        files => format!(
            "{}, {} on the SSD only, the oldest for {}s",
            Count(files, "file"),
            ByteSize(number("bytes")),
            number("oldest_seconds"),
        ),
    };
    println!(
        "{waiting}; {} of {} used in {}",
        ByteSize(number("used_bytes")),
        ByteSize(number("limit_bytes")),
        spool["directory"].as_str().unwrap_or("?"),
    );
    if number("errors") + number("dead_letters") + number("set_aside") > 0 {
        println!(
            "{} with an error, {} of them tried for long; {} set aside in lost+found",
            number("errors"),
            number("dead_letters"),
            number("set_aside")
        );
    }
    for file in spool["list"].as_array().into_iter().flatten() {
        let error = file["error"].as_str();
        println!(
            "  {:9} {:>10}  {}{}",
            file["level"].as_str().unwrap_or("?"),
            ByteSize(file["bytes"].as_u64().unwrap_or(0)).to_string(),
            file["name"].as_str().unwrap_or("?"),
            error.map_or(String::new(), |error| format!("  {error}")),
        );
    }
    print_debts(&document["cold"]);
}

/// Files that were to be in the cold store and are not, or that had an error on their way.
fn print_debts(cold: &Value) {
    let number = |name: &str| cold[name].as_u64().unwrap_or(0);
    if number("owed") + number("errors") + number("untracked") == 0 {
        return;
    }
    println!(
        "{} not in the cold store as was promised, to be tried again; {} with an error",
        Count(number("owed") + number("untracked"), "file"),
        number("errors")
    );
    for file in cold["list"].as_array().into_iter().flatten() {
        println!(
            "  {:9} {}  {}",
            if file["owed"] == true {
                "owed"
            } else {
                "there"
            },
            file["name"].as_str().unwrap_or("?"),
            file["error"].as_str().unwrap_or(""),
        );
    }
}

/// Before an unmount: waits until everything is on the SSD, or with `drain` in the directory, and what was
/// promised to the cold store there. `None`: nothing is left, or the mount has no spool and owes nothing.
///
/// Errors: the node does not answer, or files cannot be brought there.
pub(crate) fn settle(run: &RunDir, mountpoint: &Path, drain: bool) -> Result<Option<Settled>> {
    let at = MountPath {
        mountpoint: mountpoint.to_string_lossy().into_owned(),
        path: Vec::new(),
    };
    client::runtime()?.block_on(async {
        let mut worker = tokio::time::timeout(STATUS_LIMIT, client::connect(run))
            .await
            .context("the node does not answer")??;
        let request = VolumeStatusRequest {
            at: Some(at.clone()),
            acknowledge: false,
        };
        let asked = tokio::time::timeout(STATUS_LIMIT, worker.volume_status(request));
        let reply = match asked.await.context("the node does not answer")? {
            // A mount for reading, or a node of an older version.
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                return Ok(None);
            }
            other => other.map_err(|status| client::refused(&status))?,
        };
        let before: Value = serde_json::from_str(&reply.into_inner().json)?;
        let owes = |document: &Value| document["cold"]["owed"].as_u64().unwrap_or(0);
        if before["spool"].is_null() && owes(&before) == 0 {
            return Ok(None);
        }
        let level = if drain { Level::Shared } else { Level::Local };
        let mut steps = vec![Wanted::all(level)];
        if drain && owes(&before) > 0 {
            let (level, owed) = (Level::Cold, true);
            steps.push(Wanted { level, owed });
        }
        for wanted in steps {
            let last = bring(run, at.clone(), wanted, drain).await?;
            if last.failed > 0 {
                bail!(
                    "{} not at level {}, first: {}",
                    Count(last.failed, "file"),
                    wanted.level,
                    last.error
                );
            }
        }
        let after = document(run, at, false).await?;
        let number = |name: &str| after["spool"][name].as_u64().unwrap_or(0);
        let left = Settled {
            files: number("files"),
            bytes: number("bytes"),
            owed: owes(&after),
            directory: after["spool"]["directory"]
                .as_str()
                .unwrap_or("?")
                .to_owned(),
        };
        Ok((left.files + left.owed > 0).then_some(left))
    })
}
