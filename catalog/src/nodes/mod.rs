//! Nodes: who is there, who has what near, and warming it up.
//!
//! ```text
//! name.rs      what a node and a job are called
//! presence.rs  what nodes said last, forgotten when they are silent
//! shared.rs    the same for the other catalogs of one database
//! job.rs       a warm-up job as a state machine; no I/O
//! record.rs    jobs and their parts as they are stored
//! jobs.rs      jobs in the key-value store: made, carried on by reports, ended, forgotten
//! holds.rs     versions that nodes have open are held in the ledger
//! policies.rs  what descriptors ask for starts by itself when a version is committed
//! ```
//!
//! Nodes are never connected to: each one reports every few seconds, and the answer to a report is the
//! list of jobs that the node shall work on. A job that is not in the list is not to be worked on, so
//! an answer that gets lost, a worker or a catalog that is killed cost one report and no state.
//!
//! Invariants:
//!
//! 1. Who has what is soft: it has an age, is bounded in nodes and in versions, and nothing is wrong when
//!    all of it is lost.
//! 2. A job says 100 percent only when it is done, and it is done only when every node that was asked
//!    has said that every byte of the version is in the tier, checked.
//! 3. A job that has ended never changes again, and every job ends: by its nodes, by somebody who
//!    cancels it, or by its age.
//! 4. A node learns nothing, and nothing is learnt of it, that the token it reports with may not read.

mod holds;
mod job;
mod jobs;
mod name;
mod policies;
mod presence;
mod record;
mod shared;

use std::sync::Arc;

use crate::access::Principal;
use crate::kv::{Kv, KvError};
use crate::ledger::{Ledger, LedgerError};

pub use job::{Cause, Job, Part, PartReport, State, Tier, Work, percent};
pub use jobs::{Jobs, JobsError};
pub use name::{JobId, NodeName};
pub use policies::follow;
pub use presence::{Heat, MAX_VERSIONS, Mounted, Node, Presence, PresenceError, Said, TierUse};
use shared::Shared;

/// What a catalog knows of its nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nodes {
    ledger: Ledger,
    presence: Arc<Presence>,
    shared: Arc<Shared>,
    jobs: Arc<Jobs>,
}

impl Nodes {
    /// Over the ledger whose versions are warmed, and the store of its jobs. Starts nothing; see
    /// [`follow`].
    pub fn new(ledger: Ledger, kv: Arc<dyn Kv>) -> Self {
        Self {
            ledger,
            presence: Arc::default(),
            shared: Arc::new(Shared::new(Arc::clone(&kv))),
            jobs: Arc::new(Jobs::new(kv)),
        }
    }

    /// Who is there, and what is near to whom: also of nodes that report to other catalogs over the same
    /// database, as they were some seconds ago.
    pub async fn presence(&self, now_ms: i64) -> &Presence {
        if let Err(error) = self.shared.read(&self.presence, now_ms).await {
            tracing::warn!(%error, "what nodes say to other catalogs is not known");
        }
        &self.presence
    }

    /// Takes in what a node says, for every catalog over the same database.
    pub async fn hear(
        &self,
        node: &NodeName,
        reporter: Principal,
        said: Said,
        now_ms: i64,
    ) -> Result<(), PresenceError> {
        let presence = self.presence(now_ms).await;
        presence.hear(node, reporter, said, now_ms)?;
        if let Err(error) = self.shared.tell(presence, node, now_ms).await {
            tracing::warn!(%error, %node, "other catalogs do not hear of a node");
        }
        Ok(())
    }

    /// Warm-up jobs.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Holds what a node has open, and lets go of what it has not any more.
    ///
    /// Errors: of the database. Versions that are gone, or going, are no error: the node is told by
    /// its next read.
    pub async fn renew_holds(&self, node: &NodeName, now_ms: i64) -> Result<(), LedgerError> {
        holds::renew(&self.ledger, &self.presence, node, now_ms).await
    }

    /// Removes what the store has of nodes that are gone.
    async fn tidy(&self, now_ms: i64) -> Result<(), KvError> {
        self.shared.read(&self.presence, now_ms).await?;
        self.shared.tidy(&self.presence, now_ms).await
    }
}
