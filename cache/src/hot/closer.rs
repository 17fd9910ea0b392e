//! Closing files whose name is gone, on a thread that may wait for the disk.
//!
//! The last close of an unlinked file frees its blocks. On a file system that discards them at once, or
//! that is busy, that takes as long as a write, and the last holder may be anybody: a FUSE thread that
//! releases a handle, a task of the runtime. So they hand such files over.
//!
//! ```text
//! last holder -> queue of at most QUEUE files -> close(2) -> the bytes leave the budget
//! ```
//!
//! Bytes count until the file is closed, so that nothing is promised twice. When the queue is full the
//! holder closes the file itself: whoever frees faster than the disk is held up, memory is not spent.
//! The thread ends when its [`Closer`] is dropped and the queue is empty. Nobody waits for it: what it
//! has left to do on a disk that hangs is of no use to anyone.

use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::ledger::Counts;

/// Files that wait for their close. Each holds a descriptor.
const QUEUE: usize = 256;

/// A file without a name, and the bytes that come free with it.
#[derive(Debug)]
pub(super) struct Buried {
    pub(super) file: Held,
    pub(super) bytes: u64,
    pub(super) leaving: bool,
    pub(super) counts: Arc<Counts>,
}

impl Drop for Buried {
    fn drop(&mut self) {
        drop(self.file.take());
        self.counts.remove_zombie(self.bytes, self.leaving);
    }
}

/// A file that can be handed over when its holder is dropped, and only then.
#[derive(Debug)]
pub(super) struct Held(Option<File>);

impl Held {
    pub(super) fn new(file: File) -> Self {
        Self(Some(file))
    }

    /// What is held, for the destructor of the holder.
    pub(super) fn take(&mut self) -> Option<File> {
        self.0.take()
    }
}

impl Deref for Held {
    type Target = File;

    fn deref(&self) -> &File {
        self.0.as_ref().expect("only destructors take it")
    }
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Closer(Option<SyncSender<Buried>>);

impl Closer {
    /// Starts the thread. Without one, files are closed where they are dropped.
    pub(super) fn start() -> Self {
        let (queue, files) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("hot-close".to_owned())
            .spawn(move || close_all(&files));
        match thread {
            Ok(_) => Self(Some(queue)),
            Err(error) => {
                tracing::warn!(%error, "no thread to close files on");
                Self(None)
            }
        }
    }

    /// Closes the file soon.
    pub(super) fn close(&self, file: Buried) {
        let Some(queue) = &self.0 else { return };
        match queue.try_send(file) {
            Ok(()) => {}
            Err(TrySendError::Full(file) | TrySendError::Disconnected(file)) => drop(file),
        }
    }
}

fn close_all(files: &Receiver<Buried>) {
    for file in files {
        drop(file);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    // Without it evicted objects would use descriptors and disk for ever, or their bytes would be
    // promised to others while the disk still has them.
    #[test]
    fn a_file_is_closed_and_then_its_bytes_are_free() {
        let counts = Arc::new(Counts::default());
        let closer = Closer::start();
        counts.add_zombie(7, true);
        let file = tempfile::tempfile().unwrap();
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let target = std::fs::read_link(&descriptor).unwrap();
        closer.close(Buried {
            file: Held::new(file),
            bytes: 7,
            leaving: true,
            counts: Arc::clone(&counts),
        });
        let begun = Instant::now();
        while counts.zombie() > 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "nobody closes it"
            );
            std::thread::yield_now();
        }
        assert_eq!(counts.leaving(), 0);
        assert_ne!(std::fs::read_link(&descriptor).ok(), Some(target));
    }
}
