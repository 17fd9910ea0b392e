//! From requests of the kernel to calls of [`DirectoryFs`], and back. Decides nothing.
//!
//! What is done in memory of the directory's file system is done on the thread that got the request;
//! what may wait for a disk (fsync, allocation, copying, reads of what is not in memory) goes to the
//! runtime's blocking threads with its reply, so that a few of them do not hold up everybody. There
//! are as many of those as callers that wait. A close and a short read of a shared file system stay, as long
//! as threads are left for others: they take a round trip, as a look-up does.

mod answers;
mod cold;
mod elsewhere;
mod handshake;
mod requests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fuser::{Errno, Generation, Request};
use tokio::runtime::Handle as Runtime;
use tokio_util::task::TaskTracker;

use super::device::Device;
use crate::directory::{Asker, Caller, DirectoryFs, Entry, Intent, Opened};
use crate::handles::Mode;
use crate::session::{self, Device as Connection, Primer, SessionConfig, SessionHandle};

/// Session threads of a directory volume at least: changes of names wait for the directory's file
/// system on them.
const THREADS: usize = 4;

/// Of these, those that may wait for what usually takes one round trip, and may take long.
const WAITING: usize = THREADS / 2;

/// Implements the kernel library's trait over a [`DirectoryFs`].
#[derive(Clone, Debug)]
pub(crate) struct DirectoryAdapter {
    fs: Arc<DirectoryFs>,
    runtime: Runtime,
    tasks: TaskTracker,
    primer: Arc<Primer>,
    /// Session threads that wait for a server instead of taking requests.
    waiting: Arc<AtomicUsize>,
}

/// Serves `fs` on `device`, as [`session::serve`] does a read-only tree. Requests that wait do so on
/// blocking threads of `runtime`.
///
/// Errors: as [`session::serve_filesystem`].
pub fn serve(
    fs: &Arc<DirectoryFs>,
    runtime: &Runtime,
    device: Connection,
    config: &SessionConfig,
    on_answered: impl FnOnce(&[u8]),
) -> io::Result<SessionHandle> {
    let kernel = device.fd.try_clone()?;
    let adapter = |primer| DirectoryAdapter {
        fs: Arc::clone(fs),
        runtime: runtime.clone(),
        tasks: TaskTracker::new(),
        primer,
        waiting: Arc::default(),
    };
    let config = SessionConfig {
        threads: config.threads.max(THREADS),
    };
    session::serve_filesystem(adapter, device, &config, |reply| {
        on_answered(reply);
        fs.connect(Arc::new(Device::new(kernel)));
        Ok(())
    })
}

impl DirectoryAdapter {
    fn begin(
        &self,
        request: &Request,
        operation: &'static str,
        node: u64,
    ) -> tracing::span::EnteredSpan {
        self.fs.begin();
        tracing::debug_span!("request", id = request.unique().0, operation, node).entered()
    }

    fn asker(request: &Request) -> Asker {
        Asker {
            uid: request.uid(),
            gid: request.gid(),
            thread: request.pid(),
        }
    }

    fn caller(request: &Request, umask: u32) -> Caller {
        Caller {
            uid: request.uid(),
            gid: request.gid(),
            umask,
        }
    }

    /// Answers from a thread that may wait.
    fn later(&self, answer: impl FnOnce(&DirectoryFs) + Send + 'static) {
        let fs = Arc::clone(&self.fs);
        let task = move || {
            fs.prepare_thread();
            answer(&fs);
        };
        drop(self.tasks.spawn_blocking_on(task, &self.runtime)); // owned by the tracker
    }

    /// Answers what usually takes one round trip to a server: on this thread, as handing it to another one
    /// takes a good part of that, unless too many of them wait already.
    fn soon(&self, answer: impl FnOnce(&DirectoryFs) + Send + 'static) {
        let waits = Waits::begin(&self.waiting);
        if waits.before < WAITING {
            answer(&self.fs);
        } else {
            self.later(answer);
        }
    }

    fn reply_entry(
        &self,
        made: Result<(Entry, Intent), nix::errno::Errno>,
        reply: fuser::ReplyEntry,
    ) {
        match made {
            Ok((entry, intent)) => {
                let attr = answers::file_attr(&entry.stat);
                reply.entry(&self.fs.ttl(), &attr, Generation(entry.generation.into()));
                drop(intent); // not before the answer
            }
            Err(errno) => reply.error(answers::error(errno)),
        }
    }

    fn reply_done(done: Result<impl Sized, nix::errno::Errno>, reply: fuser::ReplyEmpty) {
        match done {
            Ok(intent) => {
                reply.ok();
                drop(intent); // not before the answer
            }
            Err(errno) => reply.error(answers::error(errno)),
        }
    }

    fn reply_opened(
        &self,
        opened: Result<Opened, nix::errno::Errno>,
        counted: bool,
        reply: fuser::ReplyOpen,
    ) {
        let Opened { fh, mode, flush } = match opened {
            Err(errno) => return reply.error(answers::error(errno)),
            Ok(opened) => opened,
        };
        let flags = answers::open_flags(flush, self.fs.keeps_pages(fh), counted, mode);
        match mode {
            Mode::Cached => reply.opened(fuser::FileHandle(fh), flags),
            Mode::Passthrough(id) => {
                // SAFETY: `id` stays registered while a handle uses it, and the wrapper is taken apart
                // below instead of closing it.
                let backing = unsafe { reply.wrap_backing(id) };
                reply.opened_passthrough(fuser::FileHandle(fh), flags, &backing);
                backing.into_raw();
            }
        }
    }

    fn reply_created(
        &self,
        created: Result<(Entry, Opened, Intent), nix::errno::Errno>,
        reply: fuser::ReplyCreate,
    ) {
        let (entry, opened, intent) = match created {
            Ok(created) => created,
            Err(errno) => return reply.error(answers::error(errno)),
        };
        let attr = answers::file_attr(&entry.stat);
        let (ttl, generation) = (self.fs.ttl(), Generation(entry.generation.into()));
        let counted = self.fs.counts_writes();
        let flags = answers::open_flags(opened.flush, false, counted, opened.mode);
        let fh = fuser::FileHandle(opened.fh);
        match opened.mode {
            Mode::Cached => reply.created(&ttl, &attr, generation, fh, flags),
            Mode::Passthrough(id) => {
                // SAFETY: as in `reply_opened`.
                let backing = unsafe { reply.wrap_backing(id) };
                reply.created_passthrough(&ttl, &attr, generation, fh, flags, &backing);
                backing.into_raw();
            }
        }
        drop(intent); // not before the answer
    }

    fn reply_xattr(value: Result<Vec<u8>, nix::errno::Errno>, size: u32, reply: fuser::ReplyXattr) {
        match value {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() <= size as usize => reply.data(&value),
            Ok(_) => reply.error(Errno::ERANGE),
            Err(errno) => reply.error(answers::error(errno)),
        }
    }
}

/// A thread that waits, until it is dropped.
struct Waits<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        Self { waiting, before }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
