//! The driver `local.terrace.io`: scratch volumes of one node ([`crate::scratch`]).
//!
//! Controller and node run on the same node: the room of its disk is known there and nowhere else. Each
//! volume and the node have one topology segment, `topology.local.terrace.io/node`, so a scheduler sends
//! a pod to its volume. Both services may be one process or two; what they share lies in the base
//! directory.
//!
//! Every operation runs beside the runtime's threads, one per volume at a time, and to its end, also
//! when its caller gives up ([`crate::locks`]).

mod controller;
mod create;
mod node;
mod publish;
mod snapshots;
mod staged;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::Status;

pub use controller::{Controller, Grows};
pub use node::Node;
pub use staged::{Published, Staged};

use crate::locks::Locks;
use crate::scratch::{CapError, Scratch, ScratchError, Summary};
use crate::wire::Topology;
use crate::{Kubelet, Records, VolumeId};

/// Name of the driver.
pub const NAME: &str = "local.terrace.io";

/// The key of the topology segment.
pub const TOPOLOGY: &str = "topology.local.terrace.io/node";

/// Longest time between two looks for what is to be removed: what failed once is tried again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the services of the driver need.
#[derive(Debug)]
pub struct Local {
    scratch: Scratch,
    staged: Records<Staged>,
    locks: Locks,
    node: String,
    removed: Arc<Notify>,
}

/// Removes the files of deleted volumes, until it is dropped.
#[derive(Debug)]
struct Sweeper {
    _task: JoinSet<()>,
}

impl Local {
    /// The volumes of a base directory, on the node of that name.
    pub fn new(scratch: Scratch, locks: Locks, node: &str) -> Result<Self, ScratchError> {
        let staged = Records::open(&scratch.base().join("node"))?;
        Ok(Self {
            scratch,
            staged,
            locks,
            node: node.to_owned(),
            removed: Arc::new(Notify::new()),
        })
    }

    /// Counts the volumes of the node. Blocks.
    pub fn summary(&self) -> Result<Summary, ScratchError> {
        self.scratch.summary()
    }

    /// Begins to remove what was deleted, now and whenever a volume is deleted. In a tokio runtime.
    fn sweeper(self: &Arc<Self>) -> Sweeper {
        let mut task = JoinSet::new();
        task.spawn(sweep_for_ever(Arc::clone(self)));
        Sweeper { _task: task }
    }

    /// Does something that blocks, alone for `key`, to its end.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        key: &str,
        work: impl FnOnce(&Self) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let local = Arc::clone(self);
        let work = async move {
            let done = tokio::task::spawn_blocking(move || work(&local)).await;
            done.unwrap_or_else(|broken| Err(Status::internal(broken.to_string())))
        };
        self.locks.run(key, work).await
    }

    /// Does something that only reads.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let local = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&local)).await;
        done.unwrap_or_else(|broken| Err(Status::internal(broken.to_string())))
    }

    /// The segment of this node.
    fn topology(&self) -> Topology {
        Topology {
            segments: HashMap::from([(TOPOLOGY.to_owned(), self.node.clone())]),
        }
    }

    /// Whether a segment names this node; one that says nothing of nodes means any.
    fn is_here(&self, topology: &Topology) -> bool {
        let named = topology.segments.get(TOPOLOGY);
        named.is_none_or(|node| *node == self.node)
    }
}

async fn sweep_for_ever(local: Arc<Local>) {
    let mut first = true;
    loop {
        let swept = local.read(move |local| match first {
            true => Ok(local.scratch.sweep()?),
            false => Ok(local.scratch.sweep_deleted()?),
        });
        first = false;
        match swept.await {
            Ok(swept) => {
                for (volume, why) in &swept.failed {
                    tracing::warn!(%volume, %why, "a deleted volume stays for now");
                }
                for name in &swept.unknown {
                    tracing::warn!(
                        name,
                        "a directory of volumes has no record; it is left alone"
                    );
                }
            }
            Err(why) => tracing::warn!(why = why.message(), "deleted volumes stay for now"),
        }
        // Both ends of the wait mean the same: look again.
        let _ = tokio::time::timeout(SWEEP_EVERY, local.removed.notified()).await;
    }
}

/// What the node service needs besides.
#[derive(Debug)]
pub struct NodeParts {
    /// Volumes and records.
    pub local: Arc<Local>,
    /// Below which every path lies.
    pub kubelet: Arc<Kubelet>,
}

impl From<ScratchError> for Status {
    fn from(error: ScratchError) -> Self {
        let text = error.to_string();
        match error {
            ScratchError::NotFound(_) => Self::not_found(text),
            ScratchError::Exists { .. } => Self::already_exists(text),
            ScratchError::Busy(_) | ScratchError::Moving { .. } => Self::aborted(text),
            ScratchError::InUse { .. } | ScratchError::Base { .. } => {
                Self::failed_precondition(text)
            }
            ScratchError::Full { .. } => Self::resource_exhausted(text),
            ScratchError::Size { .. } => Self::out_of_range(text),
            // Asked for by arguments that another node may grant.
            ScratchError::Unsupported { .. } => Self::invalid_argument(text),
            ScratchError::Record(error) => error.into(),
            ScratchError::Mount(error) => error.into(),
            ScratchError::Io { .. } => Self::internal(text),
        }
    }
}

impl From<CapError> for Status {
    fn from(error: CapError) -> Self {
        let text = error.to_string();
        match error {
            CapError::Unknown(_) | CapError::Value(_) | CapError::Unsupported(_) => {
                Self::invalid_argument(text)
            }
            CapError::NoPod(_) => Self::unavailable(text),
            CapError::Io { .. } => Self::internal(text),
            CapError::Mounts(error) => error.into(),
        }
    }
}

/// A request without a field that it must have.
fn required(text: &str, what: &str) -> Result<(), Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument(format!(
            "the request has no {what}"
        )));
    }
    Ok(())
}

/// The id of a volume that must exist: a text that cannot be one names nothing.
fn known(text: &str) -> Result<VolumeId, Status> {
    required(text, "volume id")?;
    text.parse()
        .map_err(|_| Status::not_found(format!("no volume has the id {text:.140?}")))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn ordered(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}
