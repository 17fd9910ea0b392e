//! What one catalog tells the others of its nodes, and learns from them; `shared.rs` carries it.
//!
//! Of two things that were said of a node the later one holds, whoever heard it. A node is told of by the
//! catalog that it spoke to last.

use super::{GONE_MS, Heard, Known, Own, Presence, is_gone};
use crate::nodes::name::NodeName;

impl Presence {
    /// The nodes that report here, for others to know of; in the order of their names.
    pub(in crate::nodes) fn own(&self, now_ms: i64) -> Vec<Own> {
        let state = self.lock();
        let own = state.nodes.iter().filter(|(_, known)| known.is_own);
        let own = own.filter(|(_, known)| !is_gone(known, now_ms));
        let own = own.filter_map(|(name, known)| {
            Some(Own {
                name: name.clone(),
                seen_ms: known.seen_ms,
                said_ms: known.told?.0,
            })
        });
        own.collect()
    }

    /// What a node has said that others cannot read, unless something of it was written since `since_ms`.
    pub(in crate::nodes) fn untold(&self, name: &NodeName, since_ms: i64) -> Option<(i64, Heard)> {
        let state = self.lock();
        let known = state.nodes.get(name)?;
        let is_due = known
            .told
            .is_none_or(|(said_ms, at_ms)| said_ms != known.said_ms && at_ms <= since_ms);
        let heard = || Heard {
            reporter: known.reporter.clone(),
            said: known.said.clone(),
        };
        is_due.then(|| (known.said_ms, heard()))
    }

    /// Notes that it was written.
    pub(in crate::nodes) fn told(&self, name: &NodeName, said_ms: i64, now_ms: i64) {
        if let Some(known) = self.lock().nodes.get_mut(name) {
            known.told = Some((said_ms, now_ms));
        }
    }

    /// Takes in that a node spoke to another catalog. `false`: what it said is not known here.
    pub(in crate::nodes) fn seen(&self, own: &Own, now_ms: i64) -> bool {
        if now_ms - own.seen_ms > GONE_MS {
            return true;
        }
        let mut state = self.lock();
        let Some(known) = state.nodes.get_mut(&own.name) else {
            return false;
        };
        if own.seen_ms <= known.seen_ms {
            return true;
        }
        if known.said_ms != own.said_ms {
            return false;
        }
        (known.seen_ms, known.is_own) = (own.seen_ms, false);
        true
    }

    /// Takes in what a node said to another catalog. Left out where there is no room.
    pub(in crate::nodes) fn learn(&self, own: &Own, heard: Heard, now_ms: i64) {
        let mut state = self.lock();
        let before = state.nodes.get_mut(&own.name);
        if before
            .as_ref()
            .is_some_and(|known| known.seen_ms >= own.seen_ms)
        {
            return;
        }
        let held = before.map(|known| std::mem::take(&mut known.held));
        if let Err(error) = state.make_room(&own.name, now_ms) {
            tracing::debug!(%error, node = %own.name, "a node of another catalog is not shown");
            return;
        }
        let known = Known {
            reporter: heard.reporter,
            seen_ms: own.seen_ms,
            said: heard.said,
            said_ms: own.said_ms,
            held: held.unwrap_or_default(),
            is_own: false,
            told: Some((own.said_ms, own.seen_ms)),
        };
        state.nodes.insert(own.name.clone(), known);
    }

    /// Whether a node is remembered.
    pub(in crate::nodes) fn knows(&self, name: &NodeName) -> bool {
        self.lock().nodes.contains_key(name)
    }

    /// Forgets who is gone; own nodes that were forgotten since the last call and are not back.
    pub(in crate::nodes) fn forget(&self, now_ms: i64) -> Vec<NodeName> {
        let mut state = self.lock();
        state.drop_gone(now_ms);
        let mut forgotten = std::mem::take(&mut state.forgotten);
        forgotten.retain(|name| !state.nodes.contains_key(name));
        forgotten
    }
}
