//! `terrace sync`: what discovery makes of a place.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use terrace_cache::store::{Credentials, Store, StoreConfig, StoreUrl};
use terrace_catalog::blobs::DirectoryBlobs;
use terrace_catalog::discovery::layout::Layout;
use terrace_catalog::discovery::{Discovery, RootSpec};
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{Ledger, LedgerConfig};

use super::{Failure, Global};
use crate::catalog::StoreUpstream;

/// What discovery makes of a place.
#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    #[command(subcommand)]
    command: SyncCommand,
}

#[derive(Debug, Subcommand)]
enum SyncCommand {
    /// Look once at a place as a root would, register nothing, and say what would be published and
    /// why the rest would not
    Try(TryArgs),
}

/// Look once at a place as a root would.
#[derive(Debug, Args)]
struct TryArgs {
    /// Where the tables lie: s3://bucket/prefix, hdfs://host:port/path, file:///dir
    url: String,
    /// Namespace of the tables [default: the database's name]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// How tables lie below the place
    #[arg(long, value_name = "LAYOUT", default_value = "hive")]
    layout: LayoutArg,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutArg {
    /// db.db/table/key=value/file
    Hive,
    /// table/file
    Flat,
    /// directories with a _dataset.yaml
    Descriptor,
}

pub(crate) fn run(args: &SyncArgs, _global: &Global) -> Result<(), Failure> {
    let SyncCommand::Try(args) = &args.command;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(look(args))
}

async fn look(args: &TryArgs) -> Result<(), Failure> {
    let url: StoreUrl = args.url.parse()?;
    let credentials = Credentials::new(super::credential_environment());
    let store = Store::open(&url, &StoreConfig::default(), &credentials).await?;
    // A catalog that is thrown away: what would be published is published there.
    let scratch = tempfile::tempdir().context("make a temporary directory")?;
    let kv = Arc::new(RocksKv::open(&scratch.path().join("kv"))?);
    let blobs = Arc::new(DirectoryBlobs::open(&scratch.path().join("blobs"))?);
    let ledger = Ledger::open(kv, blobs, LedgerConfig::default()).await?;
    let discovery = Discovery::new(ledger);
    let spec = RootSpec {
        namespace: args.namespace.clone(),
        layout: match args.layout {
            LayoutArg::Hive => Layout::Hive,
            LayoutArg::Flat => Layout::Flat,
            LayoutArg::Descriptor => Layout::Descriptor,
        },
        ..RootSpec::default()
    };
    discovery.add_root_on_demand(spec, Arc::new(StoreUpstream::new(store)))?;
    let tables = discovery.look_at_everything().await;
    let root = discovery
        .roots_status()
        .into_iter()
        .next()
        .context("the root is gone")?;
    if let Some(trouble) = root.trouble {
        return Err(Failure(trouble));
    }
    let answers: Vec<_> = tables
        .keys()
        .filter_map(|name| discovery.why(name))
        .collect();
    if args.json {
        let document = serde_json::json!({ "tables": answers, "refused": root.refused });
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    answers.iter().for_each(|why| print!("{why}"));
    for (path, reason) in &root.refused {
        println!("{path}: refused: {reason}");
    }
    if answers.is_empty() && root.refused.is_empty() {
        println!("no tables below {}", root.url);
    }
    Ok(())
}
