//! Running a catalog: its database, its manifests and its HTTP server, in one process.
//!
//! ```text
//! DATA/kv      names, versions, tokens (RocksDB); unused with PostgreSQL
//! DATA/blobs   manifests, and every version as a self-describing file
//! DATA/cold    saved models and managed copies, unless other places are named
//! DATA/token   an admin token for the commands of this machine, mode 0600
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use async_trait::async_trait;
use terrace_cache::store::{Credentials, Store, StoreConfig, StoreUrl};
use terrace_catalog::access::identity::{Identities, IdentityConfig};
use terrace_catalog::access::{Access, AccessError, Grant, Grants, Scope, Token, TokenRequest};
use terrace_catalog::blobs::{Blobs, DirectoryBlobs};
use terrace_catalog::collect::Collector;
use terrace_catalog::discovery::Discovery;
use terrace_catalog::kv::postgres::{PostgresConfig, PostgresKv};
use terrace_catalog::kv::{Kv, rocks::RocksKv};
use terrace_catalog::ledger::{Ledger, LedgerConfig};
use terrace_catalog::nodes::{self, Nodes};
use terrace_catalog::rest;
use terrace_catalog::roots::{Opener, Roots};
use terrace_catalog::saves::Saves;
use terrace_catalog::scrub::Scrubber;
use terrace_catalog::tls::ServerTls;
use terrace_catalog::upkeep::{Schedule, Upkeep};
use terrace_catalog::upstream::Upstream;
use terrace_catalog::vault::{Vault, Vaults};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::web::HttpsOpener;
use super::{StoreUpstream, StoreVault};

/// What a catalog is started with.
#[derive(Clone)]
pub(crate) struct CatalogConfig {
    /// Directory of everything it keeps.
    pub(crate) data: PathBuf,
    /// PostgreSQL instead of the embedded database: `postgres://user@host/name`. A secret.
    pub(crate) database: Option<String>,
    /// What stores of roots are opened with: `AWS_...`, `HADOOP_...`. Secrets.
    pub(crate) credentials: BTreeMap<String, String>,
    /// Address of its HTTP server; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Where the tables are mounted on this machine, for SQL clients that do not say where.
    pub(crate) mount: Option<PathBuf>,
    /// Places for models and managed copies, as URLs; the first takes what nobody says where to put.
    /// None: `DATA/cold`.
    pub(crate) cold: Vec<String>,
    /// Certificate and key of the server, in PEM; none: plain HTTP.
    pub(crate) tls: Option<TlsFiles>,
    /// Serve plain HTTP also where others can listen in.
    pub(crate) allow_http: bool,
    /// Whose tokens are believed besides its own.
    pub(crate) identity: IdentityConfig,
    /// What it does without being asked.
    pub(crate) schedule: Schedule,
}

/// Where the server's certificate and its key are.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Opens places that discovery watches, as mounts open stores.
#[derive(Debug)]
struct StoreOpener(Credentials);

#[async_trait]
impl Opener for StoreOpener {
    async fn open(&self, url: &str) -> Result<Arc<dyn Upstream>, String> {
        let url: StoreUrl = url.parse().map_err(|error| format!("{error}"))?;
        let store = Store::open(&url, &StoreConfig::default(), &self.0).await;
        let store = store.map_err(|error| format!("open {url}: {error}"))?;
        Ok(Arc::new(StoreUpstream::new(store)))
    }
}

/// The stores of a catalog, open.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) blobs: Arc<dyn Blobs>,
}

/// Opens what a catalog keeps; makes it when there is nothing.
pub(crate) async fn open(data: &Path, database: Option<&str>) -> Result<Stores> {
    let (kv, blobs) = (data.join("kv"), data.join("blobs"));
    private_directory(data)?;
    let opened = tokio::task::spawn_blocking({
        let blobs = blobs.clone();
        move || DirectoryBlobs::open(&blobs)
    });
    let opened = opened.await.context("open the manifests")?;
    let blobs = opened.with_context(|| format!("open the manifests in {}", blobs.display()))?;
    let kv: Arc<dyn Kv> = match database {
        Some(url) => {
            let opened = PostgresKv::open(PostgresConfig::new(url)).await;
            Arc::new(opened.context("open the database; try the same address with psql")?)
        }
        None => {
            let path = kv.clone();
            let opened = tokio::task::spawn_blocking(move || RocksKv::open(&path)).await;
            let opened = opened.context("open the database")?.with_context(|| {
                let kv = kv.display();
                format!("open the database in {kv}; only one catalog at a time may use it")
            })?;
            Arc::new(opened)
        }
    };
    Ok(Stores {
        kv,
        blobs: Arc::new(blobs),
    })
}

/// Opens the places for models and managed copies.
async fn open_vaults(config: &CatalogConfig) -> Result<Vaults> {
    let own = || vec![format!("file://{}", config.data.join("cold").display())];
    let urls = match config.cold.is_empty() {
        true => own(),
        false => config.cold.clone(),
    };
    let credentials = Credentials::new(config.credentials.clone());
    let mut vaults: Vec<Arc<dyn Vault>> = Vec::with_capacity(urls.len());
    for url in urls {
        let vault = StoreVault::open(&url, &credentials).await;
        vaults.push(Arc::new(vault.map_err(anyhow::Error::msg)?));
    }
    Ok(Vaults::new(vaults))
}

/// A catalog that serves.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its address, with the port it got.
    pub(crate) address: SocketAddr,
    /// It speaks TLS.
    secure: bool,
    /// File with an admin token.
    pub(crate) token_file: PathBuf,
    shutdown: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    /// Follows what descriptors want warm.
    follower: JoinHandle<()>,
    /// Collects and scrubs by itself.
    upkeep: JoinHandle<()>,
}

/// Starts a catalog. Dropping what it returns leaves the server to the runtime; end it instead.
pub(crate) async fn start(config: &CatalogConfig) -> Result<Running> {
    let tls = transport(config).await?;
    let identities = identities(&config.identity).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}; try --listen 127.0.0.1:0", config.listen))?;
    let address = listener.local_addr().context("read the own address")?;
    let stores = open(&config.data, config.database.as_deref()).await?;
    let ledger = Ledger::open(
        Arc::clone(&stores.kv),
        Arc::clone(&stores.blobs),
        LedgerConfig::default(),
    );
    let ledger = ledger.await.context("open the catalog")?;
    let access = Access::new(Arc::clone(&stores.kv)).with_identities(identities);
    let vaults = open_vaults(config).await?;
    let collector = Collector::new(ledger.clone(), vaults.clone(), config.data.clone());
    collector
        .claim()
        .await
        .context("use the places for models; see --cold")?;
    let roots = Roots::resume(
        Arc::clone(&stores.kv),
        Arc::new(Discovery::with_vaults(ledger.clone(), vaults.clone())),
        Arc::new(StoreOpener(Credentials::new(config.credentials.clone()))),
    );
    let roots = roots.await.context("watch the roots")?;
    let token_file = config.data.join("token");
    admin_token(&access, &token_file).await?;
    let shutdown = CancellationToken::new();
    let nodes = Nodes::new(ledger.clone(), Arc::clone(&stores.kv));
    let follower = tokio::spawn(nodes::follow(nodes.clone(), shutdown.clone()));
    let collector = Arc::new(collector);
    let scrubber = Arc::new(Scrubber::new(ledger.clone(), vaults.clone()));
    let (own_collector, own_scrubber) = (Arc::clone(&collector), Arc::clone(&scrubber));
    let kv = Arc::clone(&stores.kv);
    let upkeep = Upkeep::new(kv, own_collector, own_scrubber, config.schedule);
    let upkeep = tokio::spawn(upkeep.run(shutdown.clone()));
    let router = rest::router(rest::Parts {
        access,
        roots: Some(Arc::new(roots)),
        mount: mount_text(config.mount.as_deref()),
        saves: Some(Arc::new(Saves::new(ledger.clone(), vaults))),
        collector: Some(collector),
        scrubber: Some(scrubber),
        ledger,
        nodes,
        shutdown: shutdown.clone(),
    });
    let secure = tls.is_some();
    let end = shutdown.clone();
    let server = tokio::spawn(async move {
        match tls {
            Some(tls) => rest::serve_tls(listener, tls, router, end).await,
            None => rest::serve(listener, router, end).await,
        }
    });
    tracing::info!(%address, tls = secure, data = %config.data.display(), "the catalog serves");
    Ok(Running {
        address,
        secure,
        token_file,
        shutdown,
        server,
        follower,
        upkeep,
    })
}

/// The mount point as clients spell it: without links, and only if that is text.
fn mount_text(mount: Option<&Path>) -> Option<String> {
    let mount = mount?;
    let found = mount.canonicalize().or_else(|_| std::path::absolute(mount));
    found.ok()?.to_str().map(str::to_owned)
}

/// The certificate, if there is one. Plain HTTP shows every token to whoever can listen in, so beyond
/// loopback it has to be asked for.
async fn transport(config: &CatalogConfig) -> Result<Option<ServerTls>> {
    if let Some(files) = config.tls.clone() {
        let load = move || ServerTls::load(&files.certificate, &files.key);
        let loaded = tokio::task::spawn_blocking(load).await;
        let loaded = loaded.context("read the certificate")?;
        return Ok(Some(loaded.context("use --tls-cert and --tls-key")?));
    }
    let listen = config.listen;
    if !listen.ip().is_loopback() && !config.allow_http {
        anyhow::bail!(
            "listen on {listen} without TLS: tokens could be read on the way; use --tls-cert and \
             --tls-key, or --allow-http behind a proxy that speaks TLS"
        );
    }
    if !listen.ip().is_loopback() {
        tracing::warn!(%listen, "plain HTTP: whoever can listen in can read tokens");
    }
    Ok(None)
}

async fn identities(config: &IdentityConfig) -> Result<Identities> {
    let config = config.clone();
    let open = move || Identities::open(&config, &HttpsOpener);
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.context("read whose tokens are believed")?;
    opened.map_err(|error| anyhow::anyhow!("the configuration's catalog.identity.{error}"))
}

impl Running {
    /// The address as clients write it. A catalog that listens everywhere is named by loopback.
    pub(crate) fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Lets requests under way end, then ends.
    pub(crate) async fn end(self) -> Result<()> {
        self.shutdown.cancel();
        let ended = self.server.await.context("end the server")?;
        self.follower.await.context("end what follows the events")?;
        self.upkeep.await.context("end what collects and scrubs")?;
        ended.context("serve")
    }

    /// Returns when the server ended by itself, which it does not.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        let ended = (&mut self.server).await.context("run the server")?;
        ended.context("serve")
    }
}

/// Makes sure that a file holds a token which is admin over everything.
async fn admin_token(access: &Access, file: &Path) -> Result<()> {
    let now_ms = now_ms();
    if let Ok(text) = super::place::read_token(file)
        && let Ok(token) = text.parse::<Token>()
    {
        match access.check(&token, now_ms).await {
            Ok(principal) if principal.grants().cover_all(Scope::Admin) => return Ok(()),
            Ok(_) | Err(AccessError::Unknown) => {}
            Err(error) => return Err(error).context("check the admin token"),
        }
    }
    let request = TokenRequest {
        name: "admin of this machine".to_owned(),
        grants: Grants::new(vec![Grant::everywhere(Scope::Admin)])?,
        expires_ms: None,
    };
    let (token, info) = access
        .issue(request, now_ms)
        .await
        .context("make an admin token")?;
    write_private(file, &token.reveal())?;
    tracing::info!(file = %file.display(), id = %info.id, "an admin token was made");
    Ok(())
}

/// Writes a secret whole or not at all, for the owner only.
fn write_private(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    let what = || format!("write {}", file.display());
    // What a crash has left may have another mode; a new file has this one from its first byte.
    std::fs::remove_file(&new)
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
        .with_context(what)?;
    let mut options = std::fs::OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .with_context(what)?;
    out.write_all(text.as_bytes()).with_context(what)?;
    out.write_all(b"\n").with_context(what)?;
    out.sync_all().with_context(what)?;
    std::fs::rename(&new, file).with_context(what)
}

/// Makes a directory that only its owner may look into, unless there is one.
fn private_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let what = || format!("make {}; try another --data", path.display());
    std::fs::create_dir_all(path).with_context(what)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).with_context(what)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
