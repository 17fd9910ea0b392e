//! A file whose bytes become complete while it is open in cached mode.
//!
//! Its node id stays in cached mode until the last such handle closes, which can be never. So the
//! kernel is told to forget the name; the next LOOKUP answers the next incarnation
//! ([`super::modes`]), of which nothing is open, and opens by that name are passthrough while the
//! old handles drain.
//!
//! Telling the kernel takes the directory's lock, which a LOOKUP that waits for us may hold. So it
//! is done by a thread of its own, behind a bounded queue; a notice that finds it full is dropped,
//! and the next cached open of a complete file tries again. Losing one costs speed only.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use terrace_cache::fill::Object;
use tokio::task::AbortHandle;

use super::recent::Recent;
use super::{FileSystem, Kernel, lock};
use crate::namespace::Ino;

/// Notices that wait for the kernel.
const QUEUE: usize = 1024;

/// Names remembered (at least): about 100 bytes each.
const PLACES: usize = 16_384;

/// Where files are that may be opened in cached mode: directory and name.
#[derive(Debug)]
pub(super) struct Places(Mutex<Recent<Ino, Place>>);

/// Node id of the directory, and the name in it.
type Place = (u64, Box<[u8]>);

impl Default for Places {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(PLACES)))
    }
}

impl Places {
    pub(super) fn note(&self, ino: Ino, directory: u64, name: &[u8]) {
        lock(&self.0).insert(ino, (directory, name.into()));
    }

    fn find(&self, ino: Ino) -> Option<Place> {
        lock(&self.0).get(&ino).cloned()
    }
}

/// The thread that tells the kernel to forget names. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Notices {
    queue: SyncSender<Place>,
}

impl Notices {
    /// Starts the thread.
    pub(super) fn start(kernel: Arc<dyn Kernel>) -> io::Result<Self> {
        let (queue, notices) = sync_channel::<Place>(QUEUE);
        // Not joined: the thread may be waiting for the kernel, which ends with the connection.
        std::thread::Builder::new()
            .name("fuse-notices".to_owned())
            .spawn(move || {
                for (directory, name) in notices {
                    if let Err(error) = kernel.forget_name(directory, &name) {
                        tracing::debug!(directory, %error, "the kernel keeps a name");
                    }
                }
            })?;
        Ok(Self { queue })
    }

    fn send(&self, directory: u64, name: Box<[u8]>) -> bool {
        self.queue.try_send((directory, name)).is_ok()
    }
}

impl FileSystem {
    /// Waits, in a task, for `object` to become complete.
    pub(super) fn watch(self: &Arc<Self>, ino: Ino, object: &Arc<Object>) -> AbortHandle {
        let mut filled = object.filled();
        let fs = Arc::downgrade(self);
        let stop = self.stop.clone();
        let watch = async move {
            let completed = filled.wait_for(|filled| *filled);
            if let Some(Ok(_)) = stop.run_until_cancelled(completed).await
                && let Some(fs) = fs.upgrade()
            {
                fs.completed(ino);
            }
        };
        self.tasks.spawn_on(watch, &self.runtime).abort_handle()
    }

    /// Whether a LOOKUP of this inode may answer an incarnation that opens passthrough.
    pub(super) fn current_incarnation(&self, ino: Ino) -> u8 {
        let shard = self.files.shard(ino);
        let Some(file) = shard.get(&ino) else {
            return 0;
        };
        let complete = self.is_active()
            && file
                .object
                .as_ref()
                .is_some_and(|object| *object.filled().borrow());
        file.modes.incarnation(complete)
    }

    /// All bytes of a file are there. When it is open in cached mode, new opens get another node.
    fn completed(&self, ino: Ino) {
        {
            let mut shard = self.files.shard(ino);
            let Some(file) = shard.get_mut(&ino) else {
                return;
            };
            file.watch = None;
            if !file.modes.any_cached() {
                return;
            }
        }
        self.bump(|counters| &counters.reincarnations);
        let (Some((directory, name)), Some(notices)) = (self.places.find(ino), self.notices.get())
        else {
            return; // seen at the next LOOKUP, when the kernel's entry has expired
        };
        if notices.send(directory, name) {
            self.bump(|counters| &counters.forgotten_names);
        }
    }
}
