//! Nodes: who is there, who has what near, and warming it up.
//!
//! ```text
//! name.rs      what a node and a job are called
//! presence.rs  what nodes said last: memory only, forgotten when they are silent
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
//! 1. Who has what is soft: it is never stored, has an age, and is bounded in nodes and in versions.
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

use std::sync::Arc;

use crate::kv::Kv;
use crate::ledger::{Ledger, LedgerError};

pub use job::{Cause, Job, Part, PartReport, State, Tier, percent};
pub use jobs::{Jobs, JobsError, NewJob};
pub use name::{JobId, NodeName};
pub use policies::follow;
pub use presence::{Heat, MAX_VERSIONS, Mounted, Node, Presence, PresenceError, Said, TierUse};

/// What a catalog knows of its nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nodes {
    ledger: Ledger,
    presence: Arc<Presence>,
    jobs: Arc<Jobs>,
}

impl Nodes {
    /// Over the ledger whose versions are warmed, and the store of its jobs. Starts nothing; see
    /// [`follow`].
    pub fn new(ledger: Ledger, kv: Arc<dyn Kv>) -> Self {
        Self {
            ledger,
            presence: Arc::default(),
            jobs: Arc::new(Jobs::new(kv)),
        }
    }

    /// Who is there, and what is near to whom.
    pub fn presence(&self) -> &Presence {
        &self.presence
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
}
