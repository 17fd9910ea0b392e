//! `terrace status`: what is mounted, what the tiers hold, who waits for what.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use terrace_cache::units::ByteSize;
use terrace_fuse::keeper::{KeeperClient, RunDir};

use super::{Failure, Global};
use crate::control::proto::{MetricsRequest, StatusRequest};
use crate::control::{client, instance};

/// A keeper answers at once or is in trouble.
const KEEPER_DEADLINE: Duration = Duration::from_secs(5);
/// A worker that starts gets this long; then the keeper's view alone is shown.
const WORKER_DEADLINE: Duration = Duration::from_secs(5);

/// Show mounts, tiers and what applications waited for.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only the node of this hot directory
    #[arg(long, value_name = "DIR")]
    hot: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, conflicts_with = "metrics")]
    json: bool,
    /// Print the metrics in Prometheus' text format
    #[arg(long)]
    metrics: bool,
}

pub(crate) fn run(args: &StatusArgs, global: &Global) -> Result<(), Failure> {
    let base = global.run_base();
    let nodes = match &args.hot {
        Some(hot) => vec![instance::choose(&base, Some(hot))?],
        None => instance::running(&base)?,
    };
    let runtime = client::runtime()?;
    if args.metrics {
        for node in &nodes {
            print!("{}", runtime.block_on(metrics(node))?);
        }
        return Ok(());
    }
    let documents: Vec<Value> = nodes
        .iter()
        .map(|node| document(node, &runtime))
        .collect::<Result<_>>()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&merged(documents))?);
    } else if documents.is_empty() {
        println!("nothing is mounted; try terrace mount --help");
    } else {
        documents.iter().for_each(print);
    }
    Ok(())
}

async fn metrics(node: &RunDir) -> Result<String> {
    let mut worker = client::connect(node).await?;
    let reply = worker
        .metrics(MetricsRequest {})
        .await
        .map_err(|s| client::refused(&s))?;
    Ok(reply.into_inner().text)
}

/// The keeper's view, and the worker's when it answers in time.
fn document(node: &RunDir, runtime: &tokio::runtime::Runtime) -> Result<Value> {
    let (keeper, mounts) = KeeperClient::connect(node, KEEPER_DEADLINE)
        .and_then(|client| client.status())
        .with_context(|| format!("ask the keeper at {}", node.keeper_socket().display()))?;
    let mut document = json!({
        "run_dir": node.path(),
        "keeper": {"pid": keeper.keeper_pid, "version": keeper.version, "restarts": keeper.restarts},
        "worker": keeper.worker.as_ref().map(|w| json!({"pid": w.pid, "ready": w.ready, "seconds": w.seconds})),
        "mounts": mounts.iter().map(|m| json!({
            "id": m.id, "mountpoint": m.mountpoint, "source": m.source, "state": m.state,
            "connection": m.connection, "unserved_seconds": m.unserved_seconds,
        })).collect::<Vec<_>>(),
        "tiers": [],
    });
    match runtime.block_on(worker(node)) {
        Ok(worker) => merge(&mut document, worker),
        Err(error) => document["warning"] = json!(format!("the worker does not answer: {error:#}")),
    }
    Ok(document)
}

async fn worker(node: &RunDir) -> Result<Value> {
    let answer = async {
        let mut worker = client::connect(node).await?;
        let reply = worker
            .status(StatusRequest {})
            .await
            .map_err(|s| client::refused(&s))?;
        serde_json::from_str(&reply.into_inner().json).context("read the worker's answer")
    };
    tokio::time::timeout(WORKER_DEADLINE, answer)
        .await
        .with_context(|| format!("no answer within {WORKER_DEADLINE:?}"))?
}

/// Adds the worker's fields; what both tell about a mount is put together by its id.
fn merge(document: &mut Value, worker: Value) {
    let Value::Object(worker) = worker else {
        return;
    };
    for (key, value) in worker {
        if key != "mounts" {
            document[key.as_str()] = value;
            continue;
        }
        let Value::Array(details) = value else {
            continue;
        };
        for mount in document["mounts"].as_array_mut().into_iter().flatten() {
            let found = details.iter().find(|detail| detail["id"] == mount["id"]);
            for (key, value) in found.and_then(Value::as_object).into_iter().flatten() {
                mount[key.as_str()] = value.clone();
            }
        }
    }
}

/// One document for scripts: that of the only node, or all of them with `mounts` and `tiers` of
/// every node joined on top.
fn merged(mut documents: Vec<Value>) -> Value {
    match documents.len() {
        0 => json!({"keeper": null, "worker": null, "mounts": [], "tiers": [], "nodes": []}),
        1 => documents.remove(0),
        _ => {
            let mut top = documents[0].clone();
            for key in ["mounts", "tiers"] {
                let all = documents
                    .iter()
                    .filter_map(|d| d[key].as_array())
                    .flatten()
                    .cloned();
                top[key] = Value::Array(all.collect());
            }
            top["nodes"] = Value::Array(documents);
            top
        }
    }
}

fn print(document: &Value) {
    let pid = |what: &str| {
        document[what]["pid"]
            .as_u64()
            .map_or("-".to_owned(), |p| p.to_string())
    };
    println!(
        "node {}  keeper {}  worker {}  restarts {}",
        text(&document["hot"]),
        pid("keeper"),
        pid("worker"),
        document["keeper"]["restarts"]
    );
    if let Some(warning) = document["warning"].as_str() {
        println!("  {warning}");
    }
    for mount in document["mounts"].as_array().into_iter().flatten() {
        println!(
            "  {}  {}  {}  {}",
            text(&mount["mountpoint"]),
            text(&mount["source"]),
            text(&mount["state"]),
            text(&mount["summary"])
        );
    }
    for tier in document["tiers"].as_array().into_iter().flatten() {
        print_tier(tier);
    }
    for row in document["reporting"].as_array().into_iter().flatten() {
        println!("  {}", reporting(row));
    }
    for line in document["slow"].as_array().into_iter().flatten() {
        println!("  slow: {}", text(line));
    }
}

/// One line about the reports to a catalog.
fn reporting(row: &Value) -> String {
    let (node, catalog) = (text(&row["node"]), text(&row["catalog"]));
    let taken = match row["taken_seconds_ago"].as_u64() {
        Some(seconds) => format!("{seconds}s ago"),
        None => "never".to_owned(),
    };
    let mut line = format!("reports as {node} to {catalog}  taken {taken}");
    if let Some(jobs) = row["jobs"].as_u64().filter(|jobs| *jobs > 0) {
        line.push_str(&format!("  warming {jobs}"));
    }
    if let Some(error) = row["error"].as_str() {
        line.push_str(&format!("  {error}"));
    }
    line
}

fn print_tier(tier: &Value) {
    let size = |key: &str| {
        tier[key]
            .as_u64()
            .map_or("-".to_owned(), |n| ByteSize(n).to_string())
    };
    let (hit, miss) = (tier["hit_bytes"].as_u64(), tier["miss_bytes"].as_u64());
    let ratio = match (hit, miss) {
        (Some(hit), Some(miss)) if hit + miss > 0 => {
            format!("{:.1}%", hit as f64 * 100.0 / (hit + miss) as f64)
        }
        _ => "-".to_owned(),
    };
    println!(
        "  tier {:<5} used {:>9} of {:>9}  hits {:>9} ({ratio})  misses {:>9}  waited {:.2}s",
        text(&tier["name"]),
        size("used_bytes"),
        size("limit_bytes"),
        size("hit_bytes"),
        size("miss_bytes"),
        tier["waited_seconds"].as_f64().unwrap_or(0.0),
    );
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it scripts that read `worker.pid` or `mounts[].source` would break on two nodes.
    #[test]
    fn several_nodes_keep_the_fields_of_one() {
        let one = |n: u64| json!({"worker": {"pid": n}, "keeper": {"pid": n}, "mounts": [{"id": n}], "tiers": [{"name": "hot"}]});
        let both = merged(vec![one(1), one(2)]);
        assert_eq!(both["worker"]["pid"], 1);
        assert_eq!(both["mounts"].as_array().map(Vec::len), Some(2));
        assert_eq!(both["nodes"].as_array().map(Vec::len), Some(2));
        assert_eq!(merged(vec![])["mounts"], json!([]));
    }

    // Without it the worker's figures of a mount could land on another mount.
    #[test]
    fn mounts_are_joined_by_id() {
        let mut document = json!({"mounts": [{"id": "a"}, {"id": "b"}], "tiers": []});
        merge(
            &mut document,
            json!({"mounts": [{"id": "b", "opens": 3}], "tiers": [{"name": "hot"}]}),
        );
        assert_eq!(document["mounts"][1]["opens"], 3);
        assert!(document["mounts"][0].get("opens").is_none());
        assert_eq!(document["tiers"][0]["name"], "hot");
    }
}
