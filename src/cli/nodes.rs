//! What commands ask a catalog about nodes: who is there, who has what, and warming versions on them.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use terrace_catalog::rest::wire::{HeatReport, NewWarm, NodeList, WarmJob, WarmList, WarmQuery};
use terrace_catalog::{DatasetName, Selector};

use super::Global;
use super::table::{Table, printable, size, utc};
use crate::catalog::client::{CatalogClient, CatalogError};
use crate::catalog::place::CatalogArgs;

/// How often a job is looked at by who waits for it.
const LOOK: Duration = Duration::from_millis(500);

/// How long a catalog may be away while somebody waits for a job: long enough to start it again.
const PATIENCE: Duration = Duration::from_secs(120);

/// Stands for every node that mounts the catalog.
const ALL: &str = "all";

/// Jobs that are listed.
const LISTED: usize = 100;

/// Look at warm-up jobs, wait for one, or cancel one.
#[derive(Debug, Args)]
pub(super) struct JobsArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// A job, as the list names it [default: a list of all]
    id: Option<String>,
    /// Only jobs of this dataset
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    dataset: Option<DatasetName>,
    /// Wait until it ends, with a progress bar on a terminal
    #[arg(long, requires = "id", conflicts_with = "cancel")]
    wait: bool,
    /// End it; what is near stays near
    #[arg(long, requires = "id")]
    cancel: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the nodes that mount tables of the catalog.
#[derive(Debug, Args)]
pub(super) struct NodesArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `terrace catalog nodes`.
pub(super) fn run_list(args: &NodesArgs, global: &Global) -> Result<()> {
    let client = args.catalog.client(&global.run_base())?;
    crate::control::client::runtime()?.block_on(list(&client, args.json))
}

/// `terrace catalog jobs`.
pub(super) fn run_jobs(args: &JobsArgs, global: &Global) -> Result<()> {
    let client = args.catalog.client(&global.run_base())?;
    crate::control::client::runtime()?.block_on(jobs(&client, args))
}

/// What is to be warmed on nodes of a catalog.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Which version.
    pub(super) selector: &'a Selector,
    /// Names of nodes, or `all`.
    pub(super) nodes: &'a [String],
    /// `hot` or `warm`.
    pub(super) tier: &'a str,
    /// Whether the bytes stay there.
    pub(super) pin: bool,
    /// Whether to wait for the end.
    pub(super) wait: bool,
    /// Whether to print JSON.
    pub(super) json: bool,
}

/// Makes a warm-up job, and waits for it if that was asked for. Errors when it did not end as `done`.
pub(super) async fn warm(client: &CatalogClient, wanted: &Wanted<'_>) -> Result<()> {
    let named = !wanted.nodes.iter().any(|name| name == ALL);
    let new = NewWarm {
        selector: wanted.selector.to_string(),
        nodes: named.then(|| wanted.nodes.to_vec()),
        tier: Some(wanted.tier.to_owned()),
        pin: wanted.pin,
    };
    let what = || format!("warm {}", wanted.selector);
    let made = client.send_json(Method::POST, &["warm"], &new).await;
    let mut job: WarmJob = made.with_context(what)?;
    if wanted.wait {
        job = wait(client, job, !wanted.json).await.with_context(what)?;
    }
    show(&job, wanted.json, wanted.wait)
}

/// Looks at one job, or lists them.
async fn jobs(client: &CatalogClient, args: &JobsArgs) -> Result<()> {
    if let Some(id) = &args.id {
        let path = ["warm", id.as_str()];
        let mut job: WarmJob = if args.cancel {
            client.delete(&path, &()).await?
        } else {
            client.get(&path, &()).await?
        };
        if args.wait {
            job = wait(client, job, !args.json).await?;
        }
        return show(&job, args.json, args.wait);
    }
    let query = WarmQuery {
        dataset: args.dataset.as_ref().map(ToString::to_string),
        limit: Some(LISTED),
    };
    let list: WarmList = client.get(&["warm"], &query).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&list.items)?);
        return Ok(());
    }
    let head = [
        "JOB",
        "VERSION",
        "TIER",
        "STATE",
        "DONE",
        "OF",
        "NODES",
        "MADE (UTC)",
        "BY",
    ];
    let mut table = Table::new(&head);
    for job in &list.items {
        table.row(vec![
            job.id.clone(),
            format!("{}@v{}", job.dataset, job.version),
            job.tier.clone(),
            job.state.clone(),
            format!("{:.1}%", job.percent),
            size(job.total_bytes),
            job.nodes.len().to_string(),
            utc(Some(job.created_ms)),
            job.by.clone(),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

/// Lists the nodes.
async fn list(client: &CatalogClient, json: bool) -> Result<()> {
    let list: NodeList = client.get(&["nodes"], &()).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&list.items)?);
        return Ok(());
    }
    if list.items.is_empty() {
        println!("no node reports here; terrace mount catalog: DIR --catalog URL on one");
        return Ok(());
    }
    let mut table = Table::new(&["NODE", "SEEN (UTC)", "HOT", "OF", "DATASETS", "MOUNTS"]);
    for node in &list.items {
        let hot = node.tiers.iter().find(|tier| tier.name == "hot");
        let bytes = |bytes: Option<u64>| bytes.map_or("-".to_owned(), size);
        table.row(vec![
            node.node.clone(),
            seen(node.seen_ms, node.fresh),
            bytes(hot.and_then(|tier| tier.used_bytes)),
            bytes(hot.and_then(|tier| tier.limit_bytes)),
            node.datasets.to_string(),
            node.mounts.join(" "),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

/// `terrace dataset heat`.
pub(super) async fn heat(client: &CatalogClient, dataset: &DatasetName, json: bool) -> Result<()> {
    let path = ["datasets", dataset.as_str(), "heat"];
    let heat: HeatReport = client.get(&path, &()).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&heat)?);
        return Ok(());
    }
    let mut table = Table::new(&["NODE", "VERSION", "HOT", "WARM", "OF", "SEEN (UTC)"]);
    for item in &heat.items {
        let share = item.tiers.hot as f64 * 100.0 / item.total_bytes.max(1) as f64;
        table.row(vec![
            item.node.clone(),
            format!("v{}", item.version),
            format!("{} ({share:.0}%)", size(item.tiers.hot)),
            item.tiers.warm.map_or("-".to_owned(), size),
            size(item.total_bytes),
            seen(item.seen_ms, item.fresh),
        ]);
    }
    print!("{}", table.render());
    for hold in &heat.holds {
        let since = utc(Some(hold.since_ms));
        let holder = printable(&hold.holder);
        println!("v{} is held by {holder} since {since} UTC", hold.version);
    }
    Ok(())
}

fn seen(at_ms: i64, fresh: bool) -> String {
    let at = utc(Some(at_ms));
    if fresh { at } else { format!("{at} (silent)") }
}

/// Looks at a job until it ends. A catalog that is away for a moment is waited for.
async fn wait(client: &CatalogClient, mut job: WarmJob, show: bool) -> Result<WarmJob> {
    let bar = if show && std::io::stderr().is_terminal() {
        ProgressBar::new(job.total_bytes)
    } else {
        ProgressBar::hidden()
    };
    let template = "{bar:30} {msg} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    let path_id = job.id.clone();
    let mut away: Option<tokio::time::Instant> = None;
    while !matches!(job.state.as_str(), "done" | "failed" | "cancelled") {
        bar.set_position(job.done_bytes);
        bar.set_message(format!("{} {:.1}%", job.state, job.percent));
        tokio::time::sleep(LOOK).await;
        match client.get(&["warm", &path_id], &()).await {
            Ok(found) => (job, away) = (found, None),
            Err(error @ CatalogError::Unreachable { .. }) => {
                let since = *away.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    bar.finish_and_clear();
    Ok(job)
}

/// Prints a job. Errors when it ended and is not done, or is cancelled while somebody waited.
fn show(job: &WarmJob, json: bool, waited: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(job)?);
    } else {
        let (id, nodes) = (&job.id, job.nodes.len());
        let version = format!("{}@v{}", job.dataset, job.version);
        let (tier, state, percent) = (&job.tier, &job.state, job.percent);
        println!("job {id}: {version} in the {tier} tier of {nodes} nodes, {state}, {percent:.1}%");
        if !waited && matches!(job.state.as_str(), "waiting" | "running") {
            println!("terrace catalog jobs {id} --wait waits for it");
        }
    }
    if job.state == "failed" {
        let failed = job.nodes.iter().find(|node| node.error.is_some());
        let (node, why) = failed.map_or(("a node", "for no known reason"), |node| {
            let why = node.error.as_deref().unwrap_or_default();
            (node.node.as_str(), why)
        });
        bail!(
            "{}@v{} is not warm on {node}: {}",
            job.dataset,
            job.version,
            printable(why)
        );
    }
    if waited && job.state == "cancelled" {
        bail!("the job {} was cancelled", job.id);
    }
    Ok(())
}
