//! From requests of the kernel to calls of [`FileSystem`], and back. Decides nothing.
//!
//! Every request is polled once on the thread that got it: a hit is answered there, without a
//! switch of threads. One that has to wait moves to the runtime with its reply, as a task that the
//! file system owns. FLUSH is answered ENOSYS once (nothing is written, so nothing can fail to be),
//! and so are OPEN in the small-files profile and OPENDIR where listings may be cached: the kernel
//! then does without them. Whatever would change the tree is EROFS.

mod convert;
mod device;
pub mod directory;
mod handshake;

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tracing::Instrument;

use crate::fs::{DirectoryOpened, FileSystem, Found, Operation};
use crate::namespace::FsError;
use crate::session::Primer;

use convert::{Names, NamesPlus, absent, errno, file_attr, reply_opened, reply_xattr};
pub use device::{Device, connect};
pub use handshake::MAX_REQUEST;

/// Implements the kernel library's trait over a [`FileSystem`].
#[derive(Debug)]
pub struct Adapter {
    fs: Arc<FileSystem>,
    primer: Arc<Primer>,
}

impl Adapter {
    /// An adapter for one session.
    pub fn new(fs: Arc<FileSystem>, primer: Arc<Primer>) -> Self {
        Self { fs, primer }
    }

    /// Counts a request; returns its span.
    fn begin(&self, request: &Request, operation: Operation, node: INodeNo) -> tracing::Span {
        self.fs.count(operation);
        tracing::debug_span!(
            "request",
            id = request.unique().0,
            operation = operation.name(),
            node = node.0
        )
    }

    /// Runs `task` here as far as it goes without waiting, and the rest on the runtime.
    fn answer(&self, span: tracing::Span, task: impl Future<Output = ()> + Send + 'static) {
        let mut task = Box::pin(task.instrument(span));
        let _runtime = self.fs.runtime().enter();
        if task
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            let (tasks, stop) = self.fs.tasks();
            let stop = stop.clone();
            let waiting = tasks.spawn_on(
                async move { stop.run_until_cancelled_owned(task).await },
                self.fs.runtime(),
            );
            drop(waiting); // owned by the tracker
        }
    }

    /// Refuses a request that would change the tree.
    fn read_only(&self, request: &Request, node: INodeNo) -> Errno {
        let _span = self.begin(request, Operation::Modify, node).entered();
        errno(&self.fs, Operation::Modify, node.0, &FsError::ReadOnly)
    }
}

/// Methods that would change the tree; all begin with the inode or directory they would change.
macro_rules! refuse {
    ($($name:ident($($argument:ty),*) -> $reply:ty;)*) => {$(
        fn $name(&self, request: &Request, node: INodeNo, $(_: $argument,)* reply: $reply) {
            reply.error(self.read_only(request, node));
        }
    )*};
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        handshake::negotiate(&self.fs, config)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let span = self.begin(request, Operation::Lookup, parent);
        let (fs, name) = (Arc::clone(&self.fs), name.as_bytes().to_vec());
        self.answer(span, async move {
            match fs.lookup(parent.0, &name).await {
                Ok(Found::Entry(entry)) => {
                    let attr = file_attr(&entry.attr, entry.node);
                    reply.entry_with_ttls(&entry.attr_ttl, &entry.entry_ttl, &attr, Generation(0));
                }
                Ok(Found::Absent(ttl)) if ttl.is_zero() => reply.error(Errno::ENOENT),
                Ok(Found::Absent(ttl)) => reply.entry(&ttl, &absent(), Generation(0)),
                Err(error) => reply.error(errno(&fs, Operation::Lookup, parent.0, &error)),
            }
        });
    }

    fn forget(&self, request: &Request, node: INodeNo, _: u64) {
        self.primer.meets(request, node);
    }

    fn getattr(&self, request: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _span = self.begin(request, Operation::Attributes, node).entered();
        match self.fs.attr(node.0) {
            Ok((attr, ttl)) => reply.attr(&ttl, &file_attr(&attr, attr.ino.0)),
            Err(error) => reply.error(errno(&self.fs, Operation::Attributes, node.0, &error)),
        }
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let _span = self.begin(request, Operation::ReadLink, node).entered();
        match self.fs.read_link(node.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&self.fs, Operation::ReadLink, node.0, &error)),
        }
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let span = self.begin(request, Operation::Open, node);
        let unique = request.unique().0;
        // Most opens end here: without a future on the heap, which costs as much as they do.
        let now = span.in_scope(|| self.fs.open_now(node.0, unique, flags.0));
        if let Some(now) = now.transpose() {
            return reply_opened(&self.fs, node.0, now, reply);
        }
        let fs = Arc::clone(&self.fs);
        self.answer(span, async move {
            let opened = fs.open_later(node.0, unique).await;
            reply_opened(&fs, node.0, opened, reply);
        });
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let span = self.begin(request, Operation::Read, node);
        let fs = Arc::clone(&self.fs);
        self.answer(span, async move {
            match fs.read(node.0, fh.0, offset, size).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(&fs, Operation::Read, node.0, &error)),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.fs.count(Operation::Other);
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _span = self.begin(request, Operation::Release, node).entered();
        self.fs.release(fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.fs.count(Operation::Other);
        reply.ok();
    }

    fn opendir(&self, request: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _span = self
            .begin(request, Operation::OpenDirectory, node)
            .entered();
        match self.fs.open_directory(node.0) {
            DirectoryOpened::Cached => reply.error(Errno::ENOSYS),
            DirectoryOpened::Kept => {
                let keep = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
                reply.opened(FileHandle(0), keep);
            }
            DirectoryOpened::Fresh => reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn readdir(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let span = self.begin(request, Operation::ReadDirectory, node);
        let fs = Arc::clone(&self.fs);
        self.answer(span, async move {
            let mut names = Names(reply);
            match fs.read_directory(node.0, offset, &mut names).await {
                Ok(()) => names.0.ok(),
                Err(error) => {
                    names
                        .0
                        .error(errno(&fs, Operation::ReadDirectory, node.0, &error));
                }
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let span = self.begin(request, Operation::ReadDirectoryPlus, node);
        let fs = Arc::clone(&self.fs);
        self.answer(span, async move {
            let mut names = NamesPlus(reply);
            match fs.read_directory(node.0, offset, &mut names).await {
                Ok(()) => names.0.ok(),
                Err(error) => {
                    names
                        .0
                        .error(errno(&fs, Operation::ReadDirectoryPlus, node.0, &error));
                }
            }
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.fs.count(Operation::Other);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.fs.count(Operation::Other);
        reply.ok();
    }

    fn statfs(&self, request: &Request, node: INodeNo, reply: ReplyStatfs) {
        let _span = self.begin(request, Operation::StatFs, node).entered();
        let totals = self.fs.totals();
        let block = u64::from(convert::BLOCK_SIZE);
        reply.statfs(
            totals.bytes.div_ceil(block),
            totals.free / block,
            0,
            totals.files,
            0,
            convert::BLOCK_SIZE,
            255,
            convert::BLOCK_SIZE,
        );
    }

    fn getxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let _span = self.begin(request, Operation::Xattr, node).entered();
        let value = self.fs.xattr(node.0, name.as_bytes());
        reply_xattr(&self.fs, node.0, size, value, reply);
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let _span = self.begin(request, Operation::Xattr, node).entered();
        reply_xattr(&self.fs, node.0, size, self.fs.xattr_names(node.0), reply);
    }

    fn access(&self, request: &Request, node: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if mask.contains(AccessFlags::W_OK) {
            return reply.error(self.read_only(request, node));
        }
        self.fs.count(Operation::Other);
        reply.ok();
    }

    fn lseek(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _span = self.begin(request, Operation::Seek, node).entered();
        let Ok(from) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let hole = match whence {
            libc::SEEK_HOLE => true,
            libc::SEEK_DATA => false,
            _ => return reply.error(Errno::EINVAL),
        };
        match self.fs.seek(node.0, from, hole) {
            Ok(Some(found)) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(errno(&self.fs, Operation::Seek, node.0, &error)),
        }
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        self.fs.count(Operation::Other);
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        self.fs.count(Operation::Other);
        reply.error(Errno::ENOSYS);
    }

    refuse! {
        setattr(
            Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>,
            Option<TimeOrNow>, Option<SystemTime>, Option<FileHandle>, Option<SystemTime>,
            Option<SystemTime>, Option<SystemTime>, Option<BsdFileFlags>
        ) -> ReplyAttr;
        mknod(&OsStr, u32, u32, u32) -> ReplyEntry;
        mkdir(&OsStr, u32, u32) -> ReplyEntry;
        unlink(&OsStr) -> ReplyEmpty;
        rmdir(&OsStr) -> ReplyEmpty;
        symlink(&OsStr, &Path) -> ReplyEntry;
        rename(&OsStr, INodeNo, &OsStr, RenameFlags) -> ReplyEmpty;
        link(INodeNo, &OsStr) -> ReplyEntry;
        create(&OsStr, u32, u32, i32) -> ReplyCreate;
        write(
            FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>
        ) -> ReplyWrite;
        fallocate(FileHandle, u64, u64, i32) -> ReplyEmpty;
        copy_file_range(
            FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags
        ) -> ReplyWrite;
        setxattr(&OsStr, &[u8], i32, u32) -> ReplyEmpty;
        removexattr(&OsStr) -> ReplyEmpty;
    }
}
