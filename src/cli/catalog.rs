//! `terrace catalog`: run a catalog, restore and export it, its events and its tokens.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use terrace_cache::units::{Count, Span};
use terrace_catalog::kv;
use terrace_catalog::ledger::{Ledger, LedgerConfig};
use terrace_catalog::rest::wire::{IssuedToken, NewToken, TokenEntry, TokenList};
use tokio::signal::unix::{SignalKind, signal};

use super::serving::ServingArgs;
use super::table::{Table, utc};
use super::upkeep::{self, GcArgs, ScrubArgs};
use super::{Failure, Global};
use crate::catalog::client::CatalogClient;
use crate::catalog::place::CatalogArgs;
use crate::catalog::serve::{self, CatalogConfig};

/// Run and keep a catalog.
#[derive(Debug, Args)]
pub(crate) struct CatalogCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve a catalog in the foreground
    Serve(ServeArgs),
    /// Restore a catalog from its mirror files alone, into an empty database
    Rebuild(StoreArgs),
    /// Write everything that is in the database to a file, as a backup
    Export {
        #[command(flatten)]
        store: StoreArgs,
        /// The file to write; it must not exist
        file: PathBuf,
    },
    /// Take away blobs and files that no version names
    Gc {
        #[command(flatten)]
        catalog: CatalogArgs,
        #[command(flatten)]
        gc: GcArgs,
    },
    /// Read saved versions and manifests back; mark what is damaged
    Scrub {
        #[command(flatten)]
        catalog: CatalogArgs,
        #[command(flatten)]
        scrub: ScrubArgs,
    },
    /// Restore a backup into an empty database
    Import {
        #[command(flatten)]
        store: StoreArgs,
        /// A file that export wrote
        file: PathBuf,
    },
    /// Print what happens, one JSON object a line, until interrupted
    Events {
        #[command(flatten)]
        catalog: CatalogArgs,
        /// End when everything that has happened is printed
        #[arg(long)]
        no_follow: bool,
        /// Only events behind this number; 0 for all that are kept [default: from now on]
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
    /// List the nodes that mount tables of the catalog
    Nodes(super::nodes::NodesArgs),
    /// Look at warm-up jobs, wait for one, or cancel one
    Jobs(super::nodes::JobsArgs),
    /// Make, list and revoke tokens
    Token {
        #[command(flatten)]
        catalog: CatalogArgs,
        #[command(subcommand)]
        verb: TokenVerb,
    },
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "The section [catalog.identity] of the configuration file (--config) says whose \
    tokens are believed besides the catalog's own: OpenID Connect issuers, a Kubernetes cluster.\n\
    SIGTERM and SIGINT let requests under way end."
)]
struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    serving: ServingArgs,
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// Directory of everything the catalog keeps
    #[arg(long, value_name = "DIR", default_value = "/var/lib/terrace")]
    data: PathBuf,
    /// PostgreSQL instead of the embedded database, so that several catalogs can serve at once; DATA
    /// is then shared by them [default: $TERRACE_DATABASE, else the embedded one]
    #[arg(long, value_name = "postgres://..")]
    database: Option<String>,
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Make a token and print it, once
    Create {
        /// Who or what will use it
        name: String,
        /// scope:namespace or scope:*; scopes are list, read, publish, admin. May be repeated
        #[arg(long = "grant", value_name = "GRANT", required = true)]
        grants: Vec<String>,
        /// When it ends [default: never]
        #[arg(long, value_name = "TIME")]
        expires: Option<Span>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List tokens, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End a token with the next request that uses it
    Revoke {
        /// As the list names it
        id: String,
    },
}

pub(crate) fn run(args: &CatalogCommand, global: &Global) -> Result<(), Failure> {
    match &args.verb {
        Verb::Serve(args) => Ok(runtime()?.block_on(serve(args, global))?),
        Verb::Rebuild(args) => Ok(runtime()?.block_on(rebuild(args))?),
        Verb::Export { store, file } => Ok(runtime()?.block_on(export(store, file))?),
        Verb::Gc { catalog, gc } => {
            let client = catalog.client(&global.run_base())?;
            let runtime = crate::control::client::runtime()?;
            Ok(runtime.block_on(upkeep::gc(&client, gc))?)
        }
        Verb::Scrub { catalog, scrub } => {
            let client = catalog.client(&global.run_base())?;
            let runtime = crate::control::client::runtime()?;
            Ok(runtime.block_on(upkeep::scrub(&client, scrub))?)
        }
        Verb::Import { store, file } => Ok(runtime()?.block_on(import(store, file))?),
        Verb::Events {
            catalog,
            no_follow,
            after,
        } => {
            let client = catalog.client(&global.run_base())?;
            let runtime = crate::control::client::runtime()?;
            Ok(runtime.block_on(events(&client, *after, !no_follow))?)
        }
        Verb::Nodes(args) => Ok(super::nodes::run_list(args, global)?),
        Verb::Jobs(args) => Ok(super::nodes::run_jobs(args, global)?),
        Verb::Token { catalog, verb } => {
            let client = catalog.client(&global.run_base())?;
            let runtime = crate::control::client::runtime()?;
            Ok(runtime.block_on(token(&client, verb))?)
        }
    }
}

/// The runtime of a server.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start a runtime")
}

async fn serve(args: &ServeArgs, global: &Global) -> Result<()> {
    let config = CatalogConfig {
        database: args.store.database(),
        ..args.serving.config(&args.store.data, global)?
    };
    let asked = Ends::watch()?;
    let mut running = serve::start(&config).await?;
    let (url, token) = (running.url(), running.token_file.display());
    let greeting = format!("catalog  {url}\ntoken    {token}\n");
    // Nobody has to read it: a closed standard output is no reason to end.
    std::io::stdout().write_all(greeting.as_bytes()).ok();
    tokio::select! {
        ended = running.ended() => return ended,
        () = asked.wait() => {}
    }
    running.end().await
}

/// SIGINT and SIGTERM.
pub(super) struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Ends {
    /// Takes the signals from now on.
    pub(super) fn watch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("watch SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("watch SIGTERM")?,
        })
    }

    /// Returns with the first of them.
    pub(super) async fn wait(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl StoreArgs {
    /// The database; from the environment it is not seen in the list of processes.
    fn database(&self) -> Option<String> {
        let named = || std::env::var("TERRACE_DATABASE").ok();
        self.database.clone().or_else(named)
    }
}

async fn rebuild(args: &StoreArgs) -> Result<()> {
    let stores = serve::open(&args.data, args.database().as_deref()).await?;
    let config = LedgerConfig::default();
    let report = Ledger::rebuild(&stores.kv, &stores.blobs, &config)
        .await
        .context("rebuild the catalog")?;
    println!(
        "restored {}, {}, {}; damaged: {}",
        Count(report.datasets, "dataset"),
        Count(report.versions, "version"),
        Count(report.tags, "tag"),
        Count(report.damaged.len() as u64, "file")
    );
    report
        .damaged
        .iter()
        .for_each(|name| println!("damaged  {name}"));
    Ok(())
}

async fn export(args: &StoreArgs, file: &Path) -> Result<()> {
    let stores = serve::open(&args.data, args.database().as_deref()).await?;
    let what = || format!("export to {}", file.display());
    let mut out = tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .await
        .with_context(what)?;
    let report = kv::export(stores.kv.as_ref(), &mut out)
        .await
        .with_context(what)?;
    out.sync_all().await.with_context(what)?;
    println!("{} keys are in {}", report.keys, file.display());
    Ok(())
}

async fn import(args: &StoreArgs, file: &Path) -> Result<()> {
    let what = || format!("import {}", file.display());
    let input = tokio::fs::File::open(file).await.with_context(what)?;
    let stores = serve::open(&args.data, args.database().as_deref()).await?;
    let mut input = tokio::io::BufReader::new(input);
    let report = kv::import(stores.kv.as_ref(), &mut input)
        .await
        .with_context(what)?;
    println!("{} keys are restored", report.keys);
    Ok(())
}

/// A stream that the server ended is opened again where it was, unless only what has happened
/// was asked for.
async fn events(client: &CatalogClient, mut after: Option<u64>, follow: bool) -> Result<()> {
    if !follow {
        after = after.or(Some(0));
    }
    loop {
        let mut stream = client.events(after, follow).await?;
        while let Some(event) = stream.next().await? {
            println!("{}", serde_json::to_string(&event)?);
        }
        if !follow {
            return Ok(());
        }
        after = stream.seen();
    }
}

async fn token(client: &CatalogClient, verb: &TokenVerb) -> Result<()> {
    match verb {
        TokenVerb::Create {
            name,
            grants,
            expires,
            json,
        } => {
            let new = NewToken {
                name: name.clone(),
                grants: grants.clone(),
                expires_seconds: expires.map(|span| span.0.as_secs().max(1)),
            };
            let issued: IssuedToken = client.send_json(Method::POST, &["tokens"], &new).await?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&issued)?);
            } else {
                // The token alone on its line, so that `$(...)` takes it.
                println!("{}", issued.token);
            }
        }
        TokenVerb::List { json } => {
            let list: TokenList = client.get(&["tokens"], &()).await?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&list.items)?);
            } else {
                print!("{}", render(&list.items));
            }
        }
        TokenVerb::Revoke { id } => {
            let gone: TokenEntry = client.delete(&["tokens", id], &()).await?;
            println!("{} ({}) is revoked", gone.id, gone.name);
        }
    }
    Ok(())
}

fn render(items: &[TokenEntry]) -> String {
    let mut table = Table::new(&["ID", "NAME", "GRANTS", "CREATED (UTC)", "EXPIRES (UTC)"]);
    for item in items {
        table.row(vec![
            item.id.clone(),
            item.name.clone(),
            item.grants.join(" "),
            utc(Some(item.created_ms)),
            item.expires_ms
                .map_or("never".to_owned(), |ms| utc(Some(ms))),
        ]);
    }
    table.render()
}
