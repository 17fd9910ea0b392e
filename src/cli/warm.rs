//! `terrace warm`, `evict`, `pin`, `unpin` and `materialize`: what users do with the hot tier.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use terrace_cache::units::{ByteSize, Count};
use terrace_catalog::Selector;
use tonic::Streaming;

use super::{Failure, Global, nodes};
use crate::catalog::place::CatalogArgs;
use crate::control::proto::{
    EvictRequest, MaterializeRequest, PinRequest, Tier, WarmProgress, WarmRequest,
};
use crate::control::{client, instance};

/// Where to bring data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TierArg {
    /// The node's SSD
    Hot,
    /// The cluster's shared file system
    Warm,
}

/// What a command is about, and on which node.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// A path below a mount, a store URL such as s3://bucket/prefix, or a version of a table such as
    /// ads.clicks@v12 where catalog: is mounted
    #[arg(value_name = "PATH|SOURCE|SELECTOR")]
    what: String,
    /// The node of this hot directory (needed for a store URL when several nodes run)
    #[arg(long, value_name = "DIR")]
    hot: Option<PathBuf>,
}

/// Bring files into a tier before they are used.
#[derive(Debug, Args)]
pub(crate) struct WarmArgs {
    #[command(flatten)]
    what: What,
    /// On these nodes of the catalog's, or on `all` that mount it; needs a selector [default: on this
    /// machine]
    #[arg(
        long,
        value_name = "NODE",
        value_delimiter = ',',
        conflicts_with = "hot"
    )]
    nodes: Vec<String>,
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Where to
    #[arg(long, default_value = "hot")]
    tier: TierArg,
    /// Exempt the files from eviction afterwards
    #[arg(long)]
    pin: bool,
    /// Wait until everything is there, with a progress bar on a terminal
    #[arg(long)]
    wait: bool,
    /// Print the result as one JSON document (implies --wait)
    #[arg(long)]
    json: bool,
}

/// Drop files from the hot tier; the store keeps them. Pinned and open files stay.
#[derive(Debug, Args)]
pub(crate) struct EvictArgs {
    #[command(flatten)]
    what: What,
    /// Only say what would be dropped
    #[arg(long)]
    dry_run: bool,
}

/// Exempt files in the hot tier from eviction, or end that.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    #[command(flatten)]
    what: What,
}

/// Build a native read-only tree of hard links to hot objects: no daemon in the read path.
#[derive(Debug, Args)]
pub(crate) struct MaterializeArgs {
    #[command(flatten)]
    what: What,
    /// Directory to make, on the file system of the hot tier; must not exist
    dir: PathBuf,
    /// Remove a tree made before (and end its pins)
    #[arg(long)]
    remove: bool,
}

pub(crate) fn warm(args: &WarmArgs, global: &Global) -> Result<(), Failure> {
    if !args.nodes.is_empty() {
        return Ok(on_nodes(args, global)?);
    }
    let base = global.run_base();
    let (node, target) = instance::locate(&base, args.what.hot.as_deref(), &args.what.what)?;
    let tier = match args.tier {
        TierArg::Hot => Tier::Hot,
        TierArg::Warm => Tier::Warm,
    };
    let wait = args.wait || args.json;
    let request = WarmRequest {
        target: Some(target),
        tier: tier.into(),
        pin: args.pin,
        wait,
    };
    let last = client::runtime()?.block_on(async {
        let mut worker = client::connect(&node).await?;
        let reply = worker
            .warm(request)
            .await
            .map_err(|status| client::refused(&status))?;
        follow(reply.into_inner(), !args.json).await
    })?;
    if args.json {
        println!(
            "{}",
            json!({"files": last.files_done, "bytes": last.bytes_done, "failed": last.files_failed})
        );
    } else if wait {
        println!(
            "{}, {} in the {} tier",
            Count(last.files_done, "file"),
            ByteSize(last.bytes_done),
            match args.tier {
                TierArg::Hot => "hot",
                TierArg::Warm => "warm",
            }
        );
    } else {
        println!("warming in the background; see terrace status");
    }
    failed(&last, &args.what.what)
}

/// Through the catalog, on other machines too.
fn on_nodes(args: &WarmArgs, global: &Global) -> Result<()> {
    let what = &args.what.what;
    let selector: Selector = what.parse().with_context(|| {
        format!("warm {what}: with --nodes, name a version such as ads.clicks@v12")
    })?;
    let client = args.catalog.client(&global.run_base())?;
    let wanted = nodes::Wanted {
        selector: &selector,
        nodes: &args.nodes,
        tier: match args.tier {
            TierArg::Hot => "hot",
            TierArg::Warm => "warm",
        },
        pin: args.pin,
        wait: args.wait || args.json,
        json: args.json,
    };
    client::runtime()?.block_on(nodes::warm(&client, &wanted))
}

pub(crate) fn materialize(args: &MaterializeArgs, global: &Global) -> Result<(), Failure> {
    let base = global.run_base();
    let (node, target) = instance::locate(&base, args.what.hot.as_deref(), &args.what.what)?;
    let directory = std::path::absolute(&args.dir)
        .with_context(|| format!("use the path {}", args.dir.display()))?;
    let directory = directory
        .to_str()
        .context("use a directory with a UTF-8 name")?
        .to_owned();
    let request = MaterializeRequest {
        target: Some(target),
        directory: directory.clone(),
        remove: args.remove,
    };
    let last = client::runtime()?.block_on(async {
        let mut worker = client::connect(&node).await?;
        let reply = worker
            .materialize(request)
            .await
            .map_err(|status| client::refused(&status))?;
        follow(reply.into_inner(), true).await
    })?;
    failed(&last, &args.what.what)?;
    let verb = if args.remove { "removed" } else { "linked" };
    println!("{directory}: {} {verb}", Count(last.files_done, "file"));
    Ok(())
}

pub(crate) fn evict(args: &EvictArgs, global: &Global) -> Result<(), Failure> {
    let base = global.run_base();
    let (node, target) = instance::locate(&base, args.what.hot.as_deref(), &args.what.what)?;
    let request = EvictRequest {
        target: Some(target),
        dry_run: args.dry_run,
    };
    let reply = client::runtime()?.block_on(async {
        let mut worker = client::connect(&node).await?;
        worker
            .evict(request)
            .await
            .map_err(|status| client::refused(&status))
    })?;
    let reply = reply.into_inner();
    let verb = if args.dry_run {
        "would drop"
    } else {
        "dropped"
    };
    let files = Count(reply.files, "file");
    print!("{verb} {files}, {}", ByteSize(reply.bytes));
    if reply.kept_pinned + reply.kept_open > 0 {
        print!(
            "; kept {} pinned and {} open",
            reply.kept_pinned, reply.kept_open
        );
    }
    println!();
    Ok(())
}

pub(crate) fn pin(args: &PinArgs, pinned: bool, global: &Global) -> Result<(), Failure> {
    let base = global.run_base();
    let (node, target) = instance::locate(&base, args.what.hot.as_deref(), &args.what.what)?;
    let request = PinRequest {
        target: Some(target),
        pinned,
    };
    let reply = client::runtime()?.block_on(async {
        let mut worker = client::connect(&node).await?;
        worker
            .pin(request)
            .await
            .map_err(|status| client::refused(&status))
    })?;
    let reply = reply.into_inner();
    let verb = if pinned { "pinned" } else { "unpinned" };
    let files = Count(reply.files, "file");
    println!("{verb} {files}, {}", ByteSize(reply.bytes));
    if reply.missing > 0 {
        let what = &args.what.what;
        return Err(Failure(format!(
            "pin {what}: not in the hot tier: {}; try terrace warm {what} --pin --wait",
            Count(reply.missing, "file")
        )));
    }
    Ok(())
}

fn failed(last: &WarmProgress, what: &str) -> Result<(), Failure> {
    if last.files_failed == 0 && last.error.is_empty() {
        return Ok(());
    }
    Err(Failure(format!(
        "{what}: {} failed, first: {}",
        Count(last.files_failed, "file"),
        last.error
    )))
}

/// Shows progress until the stream ends and returns its last message.
async fn follow(mut stream: Streaming<WarmProgress>, show: bool) -> Result<WarmProgress> {
    let bar = if show && std::io::stderr().is_terminal() {
        ProgressBar::no_length()
    } else {
        ProgressBar::hidden()
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut last = WarmProgress::default();
    while let Some(progress) = stream
        .message()
        .await
        .map_err(|status| client::refused(&status))?
    {
        draw(&bar, &progress);
        last = progress;
    }
    bar.finish_and_clear();
    if !last.finished {
        bail!("the node ended before the work was done; try again, it goes on where it was");
    }
    Ok(last)
}

/// A bar with a percentage only once the totals are known: never "complete" before it is.
fn draw(bar: &ProgressBar, progress: &WarmProgress) {
    let files = format!("{}/{} files", progress.files_done, progress.files_total);
    let template = if progress.listed {
        bar.set_length(progress.bytes_total);
        "{bar:30} {percent}% {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}"
    } else {
        "{spinner} listing, {bytes} {bytes_per_sec} {msg}"
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    bar.set_position(progress.bytes_done);
    bar.set_message(files);
}
