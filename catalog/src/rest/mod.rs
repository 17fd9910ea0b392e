//! The catalog over HTTP: routes under `/api/v1`, who may use them, and the document that says so.
//!
//! ```text
//! connection -> server (limits of connections, heads and time)
//!            -> policy (every route has one: who is asking, may they, how long, audit)
//!            -> handler (parses names once, asks the ledger, answers with a type of `wire`)
//! ```
//!
//! Invariants:
//!
//! - A route cannot be added without a policy: [`routes`] takes the two together, and writes the policy
//!   into the OpenAPI document, which is generated from the same handlers.
//! - Every answer that is not a success is `{"error":{"code","message","hint"}}` ([`ApiError`]).
//! - Nothing a client sends is held in memory beyond a limit that has a name here.
//! - Types on the wire ([`wire`]) are not the types the catalog computes with.

mod compare;
mod console;
mod datasets;
mod described;
mod document;
mod error;
mod events;
mod extract;
mod health;
mod iceberg;
mod maintain;
mod metrics;
mod models;
mod nodes;
mod policy;
mod removal;
mod routes;
mod sample;
mod server;
mod sync;
mod tags;
mod tokens;
mod versions;
mod warm;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::collect::Collector;
use crate::iceberg::Remembered;
use crate::ledger::Ledger;
use crate::nodes::Nodes;
use crate::roots::Roots;
use crate::saves::Saves;
use crate::scrub::Scrubber;

pub use error::ApiError;
pub use routes::{document, router};
pub use server::{serve, serve_tls};

/// What the routes are served from.
#[derive(Debug)]
pub struct Parts {
    /// Names, versions and their files.
    pub ledger: Ledger,
    /// Who may do what.
    pub access: Access,
    /// What is watched for tables; none: datasets come by other ways only.
    pub roots: Option<Arc<Roots>>,
    /// Where the tables are mounted for SQL clients that do not say where; none: they have to.
    pub mount: Option<String>,
    /// Where models are saved; none: they are not.
    pub saves: Option<Arc<Saves>>,
    /// Takes garbage away when somebody asks.
    pub collector: Option<Arc<Collector>>,
    /// Reads versions back when somebody asks.
    pub scrubber: Option<Arc<Scrubber>>,
    /// Who is there, what is near to whom, and warm-up jobs.
    pub nodes: Nodes,
    /// Ends event streams, so that a server can end.
    pub shutdown: CancellationToken,
}

/// What handlers share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    parts: Arc<Parts>,
    metrics: Arc<metrics::Metrics>,
    /// The greatest sequence of an event that was seen.
    newest_event: Arc<AtomicU64>,
    remembered: Arc<Remembered>,
    /// Room for calls that read rows.
    samples: Arc<Semaphore>,
}

impl Api {
    fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            metrics: Arc::default(),
            newest_event: Arc::default(),
            remembered: Arc::default(),
            samples: Arc::new(Semaphore::new(sample::AT_ONCE)),
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    fn access(&self) -> &Access {
        &self.parts.access
    }
}

/// The present, in milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
