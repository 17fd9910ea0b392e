//! `terrace sync`: places that a catalog watches for tables, and what discovery makes of a place.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use terrace_cache::store::{Credentials, Store, StoreConfig, StoreUrl};
use terrace_catalog::DatasetName;
use terrace_catalog::blobs::DirectoryBlobs;
use terrace_catalog::discovery::Why;
use terrace_catalog::discovery::layout::Layout;
use terrace_catalog::discovery::{CompletionSpec, Discovery, RootSpec};
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{Ledger, LedgerConfig};
use terrace_catalog::rest::wire::{NewRoot, Removal, RootList, RootQuery};

use super::table::{Table, printable};
use super::{Failure, Global};
use crate::catalog::StoreUpstream;
use crate::catalog::client::CatalogClient;
use crate::catalog::place::CatalogArgs;

/// Places that are watched for tables, and why a table is not published yet.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    terrace sync add s3://bucket/warehouse --namespace ads\n  \
    terrace sync why ads.clicks\n  \
    terrace sync try file:///data/warehouse")]
pub(crate) struct SyncArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    #[command(subcommand)]
    command: SyncCommand,
}

#[derive(Debug, Subcommand)]
enum SyncCommand {
    /// Watch a place from now on: tables that are complete there become datasets
    Add(PlaceArgs),
    /// List the places that are watched
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Watch a place no more; what was published stays
    Remove {
        /// As it was added
        url: String,
    },
    /// Say why a table is published as it is, or is not
    Why {
        /// namespace.table
        dataset: DatasetName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look once at a place as a root would, register nothing, and say what would be published and
    /// why the rest would not
    Try(TryArgs),
}

/// A place, and how tables lie there.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Where the tables lie: s3://bucket/prefix, hdfs://host:port/path, file:///dir
    url: String,
    /// Namespace of the tables [default: the database's name]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// How tables lie below the place
    #[arg(long, value_name = "LAYOUT", default_value = "hive")]
    layout: LayoutArg,
    /// How long files that nobody announced as deleted must stay away before a version leaves them
    /// out, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS")]
    settle_seconds: Option<u64>,
    /// What says that a partition is complete, for tables without a descriptor of their own
    #[arg(long, value_name = "SIGNAL", default_value = "success-file")]
    completion: CompletionArg,
    /// How long nothing may have changed, for --completion quiescence, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS")]
    quiet_seconds: Option<u64>,
}

impl PlaceArgs {
    fn spec(&self) -> RootSpec {
        let usual = RootSpec::default();
        RootSpec {
            namespace: self.namespace.clone(),
            layout: match self.layout {
                LayoutArg::Hive => Layout::Hive,
                LayoutArg::Flat => Layout::Flat,
                LayoutArg::Descriptor => Layout::Descriptor,
            },
            settle_seconds: self.settle_seconds.unwrap_or(usual.settle_seconds),
            completion: match self.completion {
                CompletionArg::SuccessFile => CompletionSpec::SuccessFile,
                CompletionArg::PartitionMarker => CompletionSpec::PartitionMarker,
                CompletionArg::Call => CompletionSpec::Call,
                CompletionArg::Quiescence => CompletionSpec::Quiescence,
                CompletionArg::Manifest => CompletionSpec::Manifest,
            },
            quiet_seconds: self.quiet_seconds.unwrap_or(usual.quiet_seconds),
            ..usual
        }
    }
}

/// Look once at a place as a root would.
#[derive(Debug, Args)]
struct TryArgs {
    #[command(flatten)]
    place: PlaceArgs,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CompletionArg {
    /// _SUCCESS of the table or of the partition, newer than the data
    SuccessFile,
    /// _SUCCESS in each partition
    PartitionMarker,
    /// only a call that names the batch
    Call,
    /// nothing has changed for a while
    Quiescence,
    /// only a manifest file
    Manifest,
}

pub(crate) fn run(args: &SyncArgs, global: &Global) -> Result<(), Failure> {
    if let SyncCommand::Try(args) = &args.command {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        return runtime.block_on(look(args));
    }
    let client = args.catalog.client(&global.run_base())?;
    let runtime = crate::control::client::runtime()?;
    Ok(runtime.block_on(ask(&client, &args.command))?)
}

/// What is asked of a catalog.
async fn ask(client: &CatalogClient, command: &SyncCommand) -> anyhow::Result<()> {
    match command {
        SyncCommand::Try(_) => {}
        SyncCommand::Add(place) => {
            let new = NewRoot {
                url: place.url.clone(),
                spec: Some(serde_json::to_value(place.spec())?),
            };
            let added: NewRoot = client.send_json(Method::POST, &["roots"], &new).await?;
            println!(
                "{} is watched; terrace dataset list shows what is complete",
                added.url
            );
        }
        SyncCommand::List { json } => {
            let list: RootList = client.get(&["roots"], &()).await?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&list.items)?);
            } else {
                print!("{}", roots(&list));
            }
        }
        SyncCommand::Remove { url } => {
            let query = RootQuery { url: url.clone() };
            let _: Removal = client.delete(&["roots"], &query).await?;
            println!("{url} is watched no more");
        }
        SyncCommand::Why { dataset, json } => {
            let path = ["datasets", dataset.as_str(), "sync"];
            let why: Why = client.get(&path, &()).await?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&why)?);
            } else {
                why.to_string()
                    .lines()
                    .for_each(|line| println!("{}", printable(line)));
            }
        }
    }
    Ok(())
}

fn roots(list: &RootList) -> String {
    let mut table = Table::new(&["URL", "TABLES", "REFUSED", "TROUBLE"]);
    for item in &list.items {
        let refused = item["refused"].as_object().map_or(0, serde_json::Map::len);
        table.row(vec![
            item["url"].as_str().unwrap_or_default().to_owned(),
            item["tables"].to_string(),
            refused.to_string(),
            item["trouble"].as_str().unwrap_or("-").to_owned(),
        ]);
    }
    table.render()
}

async fn look(args: &TryArgs) -> Result<(), Failure> {
    let url: StoreUrl = args.place.url.parse()?;
    let credentials = Credentials::new(super::credential_environment());
    let store = Store::open(&url, &StoreConfig::default(), &credentials).await?;
    // A catalog that is thrown away: what would be published is published there.
    let scratch = tempfile::tempdir().context("make a temporary directory")?;
    let kv = Arc::new(RocksKv::open(&scratch.path().join("kv"))?);
    let blobs = Arc::new(DirectoryBlobs::open(&scratch.path().join("blobs"))?);
    let ledger = Ledger::open(kv, blobs, LedgerConfig::default()).await?;
    let discovery = Discovery::new(ledger);
    let spec = args.place.spec();
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
