//! A controller, from its start until it is asked to end.
//!
//! ```text
//! every replica   caches follow the API server, the view follows the catalog, webhooks answer
//! the leader      + the passes, for as long as it holds the lease
//! ```
//!
//! Every task is owned by the call of [`run`] and ends with it; the leader's tasks end before the lease is
//! let go, so that two replicas never make passes at once while both keep their clocks.

use std::sync::Arc;

use terrace_catalog::rest;
use terrace_catalog::tls::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Mutator, Placement, Resolver, Validator, router};
use super::api::{CacheSet, Election, Feed, KubeClient, LeaseSettings};
use super::catalog::Catalog;
use super::keep::{
    CatalogView, DatasetKeeper, ScratchKeeper, ScratchPolicy, TaintKeeper, VolumeKeeper,
    WarmKeeper, keep,
};
use crate::identity::Readiness;
use crate::metrics::ControllerNumbers;

/// Why a controller ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The server of the webhooks ended.
    #[error("serve the webhooks: {0}")]
    Webhooks(#[from] std::io::Error),
    /// A task ended that has no end.
    #[error("a task of the controller ended: {0}")]
    Task(String),
}

/// Where the webhooks are served.
#[derive(Debug)]
pub struct Webhooks {
    /// The address, bound.
    pub listener: TcpListener,
    /// Certificate and key; none: plain HTTP, for a proxy or a test on this machine.
    pub tls: Option<ServerTls>,
    /// Whether the nodes' driver takes the inline volumes that a pod's annotation becomes. If not, such a pod
    /// is refused instead of waiting for a volume that it never gets.
    pub inline: bool,
}

/// What a controller is started with.
#[derive(Debug)]
pub struct Settings {
    /// Namespace it runs in: its pods are never changed.
    pub own_namespace: String,
    /// Who leads.
    pub lease: LeaseSettings,
    /// What happens to scratch volumes of nodes that are gone.
    pub scratch: ScratchPolicy,
    /// Drivers that a node's kubelet must have registered before the taint `terrace.io/agent-not-ready` is
    /// taken from the node; none: no taint is looked at.
    pub untaint: Vec<String>,
    /// The webhooks; none: no webhooks here.
    pub webhooks: Option<Webhooks>,
    /// What is counted.
    pub numbers: ControllerNumbers,
    /// Set once the cluster was listed.
    pub ready: Readiness,
}

/// Everything that is shared by the tasks.
struct Parts {
    client: KubeClient,
    catalog: Arc<dyn Catalog>,
    caches: CacheSet,
    feed: Feed,
    view: CatalogView,
    scratch: ScratchPolicy,
    untaint: Vec<String>,
    numbers: ControllerNumbers,
}

/// Runs until `stop`. Dropping it ends every task where it is, which is never a half-made change.
pub async fn run(
    client: KubeClient,
    catalog: Arc<dyn Catalog>,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), ControllerError> {
    let (caches, feed) = CacheSet::new();
    let parts = Parts {
        client: client.clone(),
        catalog,
        caches,
        feed,
        view: CatalogView::new(),
        scratch: settings.scratch,
        untaint: settings.untaint,
        numbers: settings.numbers,
    };
    let mut tasks: JoinSet<Result<(), ControllerError>> = JoinSet::new();
    follow(&parts, &mut tasks, &stop);
    tasks.spawn(listed(&parts, settings.ready, stop.clone()));
    if let Some(webhooks) = settings.webhooks {
        let router = router(admission(&parts, settings.own_namespace, webhooks.inline));
        let end = stop.clone();
        tasks.spawn(async move {
            let Webhooks { listener, tls, .. } = webhooks;
            match tls {
                Some(tls) => rest::serve_tls(listener, tls, router, end).await?,
                None => rest::serve(listener, router, end).await?,
            }
            Ok(())
        });
    }
    let end = stop.clone();
    tasks.spawn(async move {
        lead(parts, settings.lease, end).await;
        Ok(())
    });
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.map_err(|error| ControllerError::Task(error.to_string()));
        ended.and_then(|ended| ended)?;
        if !stop.is_cancelled() {
            return Err(ControllerError::Task("it has no end".to_owned()));
        }
    }
    Ok(())
}

/// Says that the cluster was listed, once it was. Ends with `stop` only.
fn listed(
    parts: &Parts,
    ready: Readiness,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), ControllerError>> + use<> {
    let namespaces = parts.caches.namespaces.clone();
    let mut changes = parts.feed.slow.subscribe();
    async move {
        let seen = async {
            while namespaces.all().is_none() && changes.changed().await.is_ok() {}
            ready.set(true);
        };
        tokio::select! {
            () = seen => stop.cancelled().await,
            () = stop.cancelled() => {}
        }
        Ok(())
    }
}

fn follow(
    parts: &Parts,
    tasks: &mut JoinSet<Result<(), ControllerError>>,
    stop: &CancellationToken,
) {
    macro_rules! follow {
        ($($cache:ident),*) => {
            $({
                let cache = parts.caches.$cache.clone();
                let following = cache.follow(
                    parts.client.clone(),
                    parts.numbers.clone(),
                    stop.clone(),
                );
                tasks.spawn(async move {
                    following.await;
                    Ok(())
                });
            })*
        };
    }
    follow!(namespaces, nodes, pods, volumes, claims, datasets);
    if !parts.untaint.is_empty() {
        follow!(csi_nodes);
    }
    let view = parts.view.clone();
    let following = view.follow(Arc::clone(&parts.catalog), stop.clone());
    tasks.spawn(async move {
        following.await;
        Ok(())
    });
}

fn admission(parts: &Parts, own_namespace: String, inline: bool) -> Admission {
    let (catalog, caches) = (&parts.catalog, &parts.caches);
    let resolver = Resolver::new(
        parts.client.clone(),
        Arc::clone(catalog),
        parts.view.clone(),
    );
    let placement = Placement::new(Arc::clone(catalog), caches.clone());
    Admission {
        mutator: Mutator::new(resolver, placement, own_namespace, inline),
        validator: Validator::new(caches.clone()),
        caches: caches.clone(),
        numbers: parts.numbers.clone(),
    }
}

/// Leads again and again, until `stop`.
async fn lead(parts: Parts, lease: LeaseSettings, stop: CancellationToken) {
    let mut election = Election::new(parts.client.clone(), lease);
    while election.win(&stop).await {
        tracing::info!("this replica leads");
        let _shown = parts.numbers.leads();
        let term = stop.child_token();
        let mut passes = JoinSet::new();
        start(&parts, &mut passes, &term);
        // The lease outlives the passes: it is let go, by `lead`, when they were told to end.
        let ended = async {
            tokio::select! {
                () = stop.cancelled() => {}
                // A pass that panicked would leave a leader that does only half of its work.
                _ = passes.join_next() => {}
            }
            term.cancel();
            passes.shutdown().await;
        };
        let leading = CancellationToken::new();
        tokio::select! {
            () = election.lead(&leading) => {
                term.cancel();
            }
            () = ended => {
                leading.cancel();
                election.lead(&leading).await;
            }
        }
    }
}

fn start(parts: &Parts, passes: &mut JoinSet<()>, term: &CancellationToken) {
    let slow = || parts.feed.slow.subscribe();
    let pods = || parts.feed.pods.subscribe();
    let listed = || parts.view.changes();
    let never = || watch::Sender::new(0).subscribe();
    let (client, caches) = (&parts.client, &parts.caches);
    let catalog = || Arc::clone(&parts.catalog);
    let datasets = DatasetKeeper::new(
        client.clone(),
        caches.clone(),
        catalog(),
        parts.view.clone(),
    );
    let volumes = VolumeKeeper::new(
        client.clone(),
        caches.clone(),
        catalog(),
        parts.view.clone(),
    );
    let warm = WarmKeeper::new(caches.clone(), catalog(), parts.view.clone());
    let scratch = ScratchKeeper::new(client.clone(), caches.clone(), parts.scratch);
    let numbers = || parts.numbers.clone();
    passes.spawn(keep(datasets, [slow(), listed()], numbers(), term.clone()));
    passes.spawn(keep(volumes, [slow(), listed()], numbers(), term.clone()));
    passes.spawn(keep(warm, [pods(), never()], numbers(), term.clone()));
    passes.spawn(keep(scratch, [slow(), never()], numbers(), term.clone()));
    if !parts.untaint.is_empty() {
        let taints = TaintKeeper::new(client.clone(), caches.clone(), parts.untaint.clone());
        passes.spawn(keep(taints, [slow(), never()], numbers(), term.clone()));
    }
}
