//! Going on where a dead worker stopped.
//!
//! The handle table says which nodes are open how. Counts are rebuilt before the first request;
//! the rest follows: ids that no handle uses are closed (nothing proves them right any more), ids
//! that were registered but not recorded are closed, fills that open files wanted are resumed, and
//! files that passthrough handles read are counted as held.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::files::Known;
use super::modes::{Registered, Rule};
use super::node::Node;
use super::{FileSystem, Kernel};
use crate::handles::{Backing, Handle, Mode};
use crate::namespace::Ino;

/// Between two walks over the idle ids. Short: whoever needs the room waits for it.
const LET_GO_PAUSE: Duration = Duration::from_millis(1);

/// The walks take one part in so many of a processor at most.
const LET_GO_SHARE: u32 = 20;

/// Ids of a dead worker that are closed before the first request: about a millisecond.
const LEFTOVERS_AT_ONCE: usize = 1024;

impl FileSystem {
    /// Counts the handles in the table.
    pub(super) fn take_over_handles(&self) {
        let indices: HashMap<(u64, u32), u32> = self
            .handles
            .backings()
            .into_iter()
            .map(|backing| ((backing.node, backing.id), backing.index))
            .collect();
        let handles = self.handles.handles();
        if !handles.is_empty() {
            tracing::info!(handles = handles.len(), "took over open files");
        }
        for handle in handles {
            self.take_over(&handle, &indices);
        }
    }

    fn take_over(&self, handle: &Handle, indices: &HashMap<(u64, u32), u32>) {
        let node = Node(handle.node);
        let mut shard = self.files.shard(node.ino());
        let modes = &mut shard.entry(node.ino()).or_default().modes;
        if let Mode::Passthrough(id) = handle.mode
            && modes.registered(node.incarnation()).is_none()
        {
            // Recorded before any handle with it; if not, record it now to have it closed later.
            let index = match indices.get(&(handle.node, id)) {
                Some(index) => *index,
                None => self
                    .handles
                    .record_backing(id, handle.node)
                    .unwrap_or(u32::MAX),
            };
            let registered = Registered {
                id,
                index,
                backing: None,
                idle_since: 0,
            };
            modes.register(node.incarnation(), registered);
            self.bump(|counters| &counters.backing_ids);
        }
        modes.opened(node.incarnation(), handle.mode);
    }

    /// Closes ids of dead workers that no handle uses: few of them here, many in a task, as the
    /// requests of the mount wait for this. To be called before the first of them is served.
    pub(super) fn close_leftovers(self: &Arc<Self>) {
        let Some(kernel) = self.kernel.get() else {
            return;
        };
        // Found out before anything new is registered, so that none of it can be mistaken for old.
        let mut unused = self.handles.backings();
        unused.retain(|backing| !self.is_in_use(backing));
        let found: u32 = self
            .handles
            .stray_backings()
            .into_iter()
            .map(|id| u32::from(kernel.close_backing(id).is_ok()))
            .sum();
        if found > 0 {
            tracing::info!(
                found,
                "closed backing ids that a dead worker had not recorded"
            );
        }
        let later = unused.split_off(unused.len().min(LEFTOVERS_AT_ONCE));
        self.close_leftover(&**kernel, &unused);
        if !later.is_empty() {
            let (fs, kernel) = (Arc::clone(self), Arc::clone(kernel));
            let closing = move || {
                for some in later.chunks(LEFTOVERS_AT_ONCE) {
                    // What is left then is for the next worker.
                    if fs.stop.is_cancelled() {
                        return;
                    }
                    fs.close_leftover(&*kernel, some);
                }
            };
            // Owned by the task tracker.
            drop(self.tasks.spawn_blocking_on(closing, &self.runtime));
        }
    }

    fn is_in_use(&self, backing: &Backing) -> bool {
        let node = Node(backing.node);
        let mut shard = self.files.shard(node.ino());
        shard.get_mut(&node.ino()).is_some_and(|file| {
            let rule = file.modes.rule(node.incarnation());
            rule == Rule::Only(Mode::Passthrough(backing.id))
        })
    }

    fn close_leftover(&self, kernel: &dyn Kernel, unused: &[Backing]) {
        for backing in unused {
            // An error: it was closed before the worker died.
            kernel.close_backing(backing.id).ok();
            self.handles.forget_backing(backing.index);
        }
    }

    /// Resumes what open files want, in a task, and lets go of evicted files from now on.
    pub(super) fn resume(self: &Arc<Self>) {
        let inodes = self.files.inodes();
        if !inodes.is_empty() {
            let fs = Arc::clone(self);
            let resume = self.tasks.spawn_blocking_on(
                move || {
                    for ino in inodes {
                        if fs.stop.is_cancelled() {
                            return;
                        }
                        fs.resume_inode(ino);
                    }
                },
                &self.runtime,
            );
            // Owned by the task tracker.
            drop(resume);
        }
        self.let_go_of_evicted();
    }

    fn resume_inode(self: &Arc<Self>, ino: Ino) {
        let object = match self.object_of(ino) {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(ino = ino.0, %error, "an open file is not known any more");
                return;
            }
        };
        // May read the file; so outside the lock.
        let held = object.backing();
        let mut shard = self.files.shard(ino);
        let Some(file) = shard.get_mut(&ino).filter(|file| file.modes.any_open()) else {
            return;
        };
        file.known.get_or_insert_with(|| Known::of(object.id()));
        if file.modes.any_cached() {
            file.object.get_or_insert_with(|| Arc::clone(&object));
            self.begin_cached(file, ino, &object);
        }
        file.inherited = held;
    }

    /// Starts the task that closes idle ids of objects that are evicted.
    fn let_go_of_evicted(self: &Arc<Self>) {
        let nudge = Arc::new(Notify::new());
        let listener = Arc::downgrade(&nudge);
        self.cache.hot().on_evict(move |_| {
            if let Some(nudge) = listener.upgrade() {
                nudge.notify_one();
            }
        });
        let (fs, stop) = (Arc::downgrade(self), self.stop.clone());
        let letting_go = async move {
            loop {
                nudge.notified().await;
                let Some(fs) = fs.upgrade() else { return };
                let begun = Instant::now();
                fs.close_evicted();
                drop(fs);
                // One walk over the idle ids for the many objects that one shortage evicts.
                let pause = LET_GO_PAUSE.max(begun.elapsed() * LET_GO_SHARE);
                tokio::time::sleep(pause).await;
            }
        };
        let task = async move { stop.run_until_cancelled(letting_go).await };
        drop(self.tasks.spawn_on(task, &self.runtime)); // owned by the tracker
    }

    /// Closes idle ids of objects that were evicted, so that their space comes back.
    pub(super) fn close_evicted(&self) {
        for (tick, node) in self.idle.evicted() {
            self.close_idle(node, tick);
        }
    }
}
