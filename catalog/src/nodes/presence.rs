//! What nodes said last: who is there, what is mounted, and how much of which version is near.
//!
//! In memory, and where several catalogs share a database in its store too (`shared.rs`). A node is
//! *fresh* for [`FRESH_MS`] after it spoke, and is shown with its age until it is forgotten after
//! [`GONE_MS`]. At most [`MAX_NODES`] nodes with [`MAX_VERSIONS`] versions each are kept, about 100 bytes a
//! version. A name belongs to the token that reported it for as long as it is fresh, so that nobody else
//! can speak for that node.
//!
//! One lock, held for no I/O.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::job::Tier;
use super::name::NodeName;
use crate::access::{Principal, Scope};
use crate::name::DatasetName;

/// A node that spoke within this is there. Nodes speak every few seconds.
const FRESH_MS: i64 = 30_000;
/// A node that was silent for so long is forgotten.
pub(super) const GONE_MS: i64 = 3_600_000;
/// Most nodes.
pub(super) const MAX_NODES: usize = 2048;
/// Most versions of one node: those it has most of.
pub const MAX_VERSIONS: usize = 1024;

/// How a tier of a node is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierUse {
    /// `hot` or `warm`.
    pub name: String,
    /// Bytes in use; none: nobody counts them.
    pub used_bytes: Option<u64>,
    /// Budget; none: without one.
    pub limit_bytes: Option<u64>,
}

/// A mount point, and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The directory.
    pub mountpoint: String,
    /// The one version it shows; none: the tree of all tables.
    pub version: Option<(DatasetName, u64)>,
}

/// How much of a version a node has near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heat {
    /// Whose version.
    pub dataset: DatasetName,
    /// Its number.
    pub version: u64,
    /// Bytes of the version.
    pub total_bytes: u64,
    /// Bytes of it on the node's own disk.
    pub hot_bytes: u64,
    /// Bytes of it in the shared copy; none: not counted.
    pub warm_bytes: Option<u64>,
    /// Whether somebody on the node reads it, or has it mounted.
    pub is_open: bool,
}

/// What a node says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Version of its program.
    pub version: String,
    /// Tells it from another node that was given the same name.
    pub instance: String,
    /// Its tiers.
    pub tiers: Vec<TierUse>,
    /// Mounts of this catalog.
    pub mounts: Vec<Mounted>,
    /// What is near.
    pub heat: Vec<Heat>,
}

/// A node as it was when it spoke last.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// When it spoke: milliseconds since 1970.
    pub seen_ms: i64,
    /// Whether that was a moment ago.
    pub is_fresh: bool,
    /// What it said.
    pub said: Said,
}

/// Why a report was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// Another token speaks for the node.
    #[error("another token reports as {0}")]
    Taken(NodeName),
    /// Two nodes have one name.
    #[error("another node reports as {0}")]
    Twin(NodeName),
    /// Too many nodes.
    #[error("{MAX_NODES} nodes report to this catalog already")]
    Full,
}

/// What was said, and by whose token.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) reporter: Principal,
    pub(super) said: Said,
}

/// A node as a catalog tells others of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) name: NodeName,
    /// When it spoke.
    pub(super) seen_ms: i64,
    /// When it said what others can read.
    pub(super) said_ms: i64,
}

#[derive(Debug)]
struct Known {
    reporter: Principal,
    seen_ms: i64,
    said: Said,
    /// When it first said so.
    said_ms: i64,
    /// Versions that are held for the node, and since when.
    held: BTreeMap<(DatasetName, u64), i64>,
    /// Whether it spoke to this catalog last.
    is_own: bool,
    /// What others can read: when it was said, and when it was written.
    told: Option<(i64, i64)>,
}

/// Everything that is known.
#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeName, Known>,
    /// Own nodes that were forgotten, for others to forget: at most as many as there may be.
    forgotten: Vec<NodeName>,
}

impl State {
    fn drop_gone(&mut self, now_ms: i64) {
        let gone = self.nodes.extract_if(.., |_, known| is_gone(known, now_ms));
        let own = gone.filter(|(_, known)| known.told.is_some() && known.is_own);
        self.forgotten.extend(own.map(|(name, _)| name));
        self.forgotten.truncate(MAX_NODES);
    }

    /// Makes room for a node. Errors when there is none.
    fn make_room(&mut self, name: &NodeName, now_ms: i64) -> Result<(), PresenceError> {
        if self.nodes.len() < MAX_NODES || self.nodes.contains_key(name) {
            return Ok(());
        }
        let stale = self
            .nodes
            .iter()
            .filter(|(_, known)| !is_fresh(known, now_ms));
        let oldest = stale.min_by_key(|(_, known)| known.seen_ms);
        let oldest = oldest.map(|(name, _)| name.clone());
        self.nodes.remove(&oldest.ok_or(PresenceError::Full)?);
        Ok(())
    }
}

/// What of a node's holds is to be written; see `holds.rs`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) hold: Vec<(DatasetName, u64)>,
    pub(super) release: Vec<(DatasetName, u64)>,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct Presence {
    state: Mutex<State>,
}

impl Presence {
    /// Takes in what a node says, as far as its token may read it.
    pub fn hear(
        &self,
        name: &NodeName,
        reporter: Principal,
        mut said: Said,
        now_ms: i64,
    ) -> Result<(), PresenceError> {
        let may = |dataset: &DatasetName| reporter.may(Scope::Read, dataset.namespace());
        said.heat.retain(|heat| may(&heat.dataset));
        said.heat.truncate(MAX_VERSIONS);
        said.mounts.retain(|mount| {
            let version = mount.version.as_ref();
            version.is_none_or(|(dataset, _)| may(dataset))
        });
        let mut state = self.lock();
        state.drop_gone(now_ms);
        let before = state.nodes.get_mut(name);
        if let Some(known) = before.as_ref().filter(|known| is_fresh(known, now_ms)) {
            if known.reporter.label() != reporter.label() {
                return Err(PresenceError::Taken(name.clone()));
            }
            if known.said.instance != said.instance {
                return Err(PresenceError::Twin(name.clone()));
            }
        }
        let (held, told, said_ms) = match before {
            None => (BTreeMap::new(), None, now_ms),
            Some(known) => {
                let same = known.said == said && known.reporter.label() == reporter.label();
                let said_ms = if same { known.said_ms } else { now_ms };
                (std::mem::take(&mut known.held), known.told, said_ms)
            }
        };
        state.make_room(name, now_ms)?;
        let known = Known {
            reporter,
            seen_ms: now_ms,
            said,
            said_ms,
            held,
            is_own: true,
            told,
        };
        state.nodes.insert(name.clone(), known);
        Ok(())
    }

    /// Every node that is remembered, in the order of their names, with what is near of the datasets
    /// that `visible` lets pass.
    pub fn nodes(&self, now_ms: i64, visible: impl Fn(&DatasetName) -> bool) -> Vec<Node> {
        let nodes = &self.lock().nodes;
        let shown = nodes.iter().filter(|(_, known)| !is_gone(known, now_ms));
        let shown = shown.map(|(name, known)| {
            let heat = known.said.heat.iter();
            let heat = heat.filter(|heat| visible(&heat.dataset)).cloned();
            let mounts = known.said.mounts.iter().filter(|mount| {
                let version = mount.version.as_ref();
                version.is_none_or(|(dataset, _)| visible(dataset))
            });
            let said = Said {
                heat: heat.collect(),
                mounts: mounts.cloned().collect(),
                tiers: known.said.tiers.clone(),
                version: known.said.version.clone(),
                instance: known.said.instance.clone(),
            };
            Node {
                name: name.clone(),
                seen_ms: known.seen_ms,
                is_fresh: is_fresh(known, now_ms),
                said,
            }
        });
        shown.collect()
    }

    /// How many nodes are fresh.
    pub fn fresh(&self, now_ms: i64) -> usize {
        let nodes = &self.lock().nodes;
        nodes.values().filter(|k| is_fresh(k, now_ms)).count()
    }

    /// The fresh nodes that can bring a version near: they show it or the tree of all tables, and
    /// their token may read it. For the shared tier one of them, since it is everybody's.
    pub fn able(
        &self,
        dataset: &DatasetName,
        version: u64,
        tier: Tier,
        now_ms: i64,
    ) -> Vec<NodeName> {
        let nodes = &self.lock().nodes;
        let able = nodes.iter().filter(|(_, known)| {
            let shown = known.said.mounts.iter().any(|mount| {
                let pinned = mount.version.as_ref();
                pinned.is_none_or(|(own, number)| own == dataset && *number == version)
            });
            let has_warm = known.said.tiers.iter().any(|tier| tier.name == "warm");
            is_fresh(known, now_ms)
                && shown
                && (tier != Tier::Warm || has_warm)
                && known.reporter.may(Scope::Read, dataset.namespace())
        });
        let most = if tier == Tier::Warm { 1 } else { usize::MAX };
        able.map(|(name, _)| name.clone()).take(most).collect()
    }

    /// Which versions that the node has open are not held, or were not since `since_ms`, at most
    /// `most` of them; and which are held and not open any more.
    pub(super) fn due(&self, name: &NodeName, since_ms: i64, most: usize) -> Due {
        let nodes = &self.lock().nodes;
        let Some(known) = nodes.get(name) else {
            return Due::default();
        };
        let open = known.said.heat.iter().filter(|heat| heat.is_open);
        let open: Vec<_> = open.map(|h| (h.dataset.clone(), h.version)).collect();
        let old = |version: &&(DatasetName, u64)| {
            let held = known.held.get(*version);
            held.is_none_or(|at_ms| *at_ms <= since_ms)
        };
        let released = known.held.keys().filter(|version| !open.contains(version));
        Due {
            hold: open.iter().filter(old).take(most).cloned().collect(),
            release: released.take(most).cloned().collect(),
        }
    }

    /// Notes what was done of it.
    pub(super) fn done(&self, name: &NodeName, due: &Due, now_ms: i64) {
        let nodes = &mut self.lock().nodes;
        let Some(known) = nodes.get_mut(name) else {
            return;
        };
        let held = due.hold.iter().map(|version| (version.clone(), now_ms));
        known.held.extend(held);
        due.release.iter().for_each(|version| {
            known.held.remove(version);
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(known: &Known, now_ms: i64) -> bool {
    now_ms - known.seen_ms <= FRESH_MS
}

fn is_gone(known: &Known, now_ms: i64) -> bool {
    now_ms - known.seen_ms > GONE_MS
}

mod others;
#[cfg(test)]
mod tests;
