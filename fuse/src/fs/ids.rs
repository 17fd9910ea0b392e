//! Backing ids: registered at the first passthrough open of a node, kept when nobody has it open,
//! closed when the object is evicted or others were used later.
//!
//! Callers hold the inode's shard where they pass its [`Modes`]. An id is written into the handle
//! table right after the kernel gave it and withdrawn after the kernel took it back.

use std::sync::atomic::Ordering::Relaxed;

use terrace_cache::hot::Backing;

use super::FileSystem;
use super::modes::{Modes, Registered};
use super::node::Node;
use crate::handles::Mode;

impl FileSystem {
    /// Whether the idle backings of all mounts leave too few descriptors for the rest.
    pub(super) fn is_crowded(&self) -> bool {
        self.cache.hot().idle_backings() > self.descriptors / 2
    }

    /// The mode by an idle id, if its file is still right; else the id to close.
    pub(super) fn reuse(
        &self,
        modes: &mut Modes<Backing>,
        node: Node,
    ) -> (Option<Mode>, Option<Registered<Backing>>) {
        let Some(registered) = modes.registered(node.incarnation()) else {
            return (None, None);
        };
        self.idle.remove(registered.idle_since);
        if let Some(backing) = &registered.backing {
            backing.set_idle(false);
            if backing.check() {
                registered.idle_since = 0;
                return (Some(Mode::Passthrough(registered.id)), None);
            }
        }
        (None, modes.unregister(node.incarnation()))
    }

    /// Registers a complete file with the kernel and writes its id down.
    pub(super) fn register(
        &self,
        modes: &mut Modes<Backing>,
        node: Node,
        backing: Backing,
    ) -> Option<Mode> {
        let kernel = self.kernel.get()?;
        let id = match kernel.open_backing(backing.file()) {
            Ok(id) => id,
            Err(error) => {
                self.bump(|counters| &counters.refused_backings);
                tracing::warn!(ino = node.ino().0, %error, "opened without passthrough");
                return None;
            }
        };
        self.bump(|counters| &counters.backing_ids);
        let Ok(index) = self.handles.record_backing(id, node.0) else {
            self.close_raw(id);
            return None;
        };
        let backing = Some(backing);
        modes.register(
            node.incarnation(),
            Registered {
                id,
                index,
                backing,
                idle_since: 0,
            },
        );
        Some(Mode::Passthrough(id))
    }

    /// Keeps the id of a node for the next open; returns it when it is not to be kept.
    pub(super) fn make_idle(
        &self,
        modes: &mut Modes<Backing>,
        node: Node,
    ) -> Option<Registered<Backing>> {
        let registered = modes.registered(node.incarnation())?;
        match &registered.backing {
            Some(backing) if !backing.is_evicted() => {
                backing.set_idle(true);
                registered.idle_since = self.idle.add(node, backing.eviction());
                if !backing.is_evicted() {
                    return None;
                }
                self.idle.remove(registered.idle_since); // evicted before it was in the list
                modes.unregister(node.incarnation())
            }
            // Evicted: its space comes back now. Inherited: nothing proves the next open right.
            Some(_) | None => modes.unregister(node.incarnation()),
        }
    }

    /// Closes the id of a node that has been idle since `tick`.
    pub(super) fn close_idle(&self, node: Node, tick: u64) {
        let mut shard = self.files.shard(node.ino());
        let Some(file) = shard.get_mut(&node.ino()) else {
            return;
        };
        let is_idle = file
            .modes
            .registered(node.incarnation())
            .is_some_and(|registered| registered.idle_since == tick);
        if !is_idle {
            return;
        }
        let registered = file.modes.unregister(node.incarnation());
        let gone = if file.modes.is_empty() {
            shard.remove(&node.ino())
        } else {
            None
        };
        drop(shard);
        drop(gone);
        self.idle.remove(tick);
        self.close_id(registered);
    }

    /// Ends a registration: first with the kernel, then in the table, so that a crash between the
    /// two leaves an entry whose id is closed twice, which does nothing.
    pub(super) fn close_id(&self, registered: Option<Registered<Backing>>) {
        let Some(registered) = registered else { return };
        self.close_raw(registered.id);
        self.handles.forget_backing(registered.index);
    }

    fn close_raw(&self, id: u32) {
        self.counters.backing_ids.fetch_sub(1, Relaxed);
        if let Some(kernel) = self.kernel.get()
            && let Err(error) = kernel.close_backing(id)
        {
            tracing::warn!(id, %error, "a backing id stays registered");
        }
    }
}
