//! Every request of the kernel, one method each. Two are not here: ACCESS is never sent (the kernel
//! judges), and IOCTL is answered by the library: not supported, which the kernel makes ENOTTY.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::answers::{add, add_plus, error, file_attr, nothing, timespec};
use super::{DirectoryAdapter, handshake};
use crate::directory::{Call, Change, DirectoryFs, ELSEWHERE, HandleOf, Looked, Place, Row};

/// `F_UNLCK` as the protocol has it.
const UNLOCK: i32 = libc::F_UNLCK;

/// Bytes of a read that takes little longer than a question.
const SHORT: u32 = 64 << 10;

fn of(node: INodeNo, fh: FileHandle) -> HandleOf {
    HandleOf {
        node: node.0,
        fh: fh.0,
    }
}

fn place<'a>(request: &Request, umask: u32, parent: INodeNo, name: &'a OsStr) -> Place<'a> {
    Place {
        unique: request.unique().0,
        caller: DirectoryAdapter::caller(request, umask),
        parent: parent.0,
        name: name.as_bytes(),
    }
}

// Signatures of up to fifteen arguments, one line for each of which would hide what is done.
#[rustfmt::skip]
impl Filesystem for DirectoryAdapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        handshake::negotiate(&self.fs, config)
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _span = self.begin(request, "lookup", parent.0);
        match self.fs.lookup(parent.0, name.as_bytes()) {
            Ok(Looked::Entry(entry)) => {
                let attr = file_attr(&entry.stat);
                reply.entry(&self.fs.ttl(), &attr, Generation(entry.generation.into()));
            }
            Ok(Looked::Absent(ttl)) if ttl.is_zero() => reply.error(Errno::ENOENT),
            Ok(Looked::Absent(ttl)) => reply.entry(&ttl, &nothing(), Generation(0)),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn forget(&self, request: &Request, node: INodeNo, count: u64) {
        if !self.primer.meets(request, node) {
            self.fs.forget(node.0, count);
        }
    }

    fn getattr(&self, request: &Request, node: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let _span = self.begin(request, "getattr", node.0);
        match self.fs.attributes(node.0, fh.map(|fh| fh.0)) {
            Ok(stat) => reply.attr(&self.fs.ttl(), &file_attr(&stat)),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn setattr(
        &self, request: &Request, node: INodeNo, mode: Option<u32>, uid: Option<u32>, gid:
        Option<u32>, size: Option<u64>, atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, _:
        Option<SystemTime>, fh: Option<FileHandle>, _: Option<SystemTime>, _: Option<SystemTime>, _:
        Option<SystemTime>, _: Option<BsdFileFlags>, reply: ReplyAttr,
    ) {
        let _span = self.begin(request, "setattr", node.0);
        let change = Change {
            mode,
            uid,
            gid,
            size,
            times: [timespec(atime), timespec(mtime)],
            fh: fh.map(|fh| fh.0),
        };
        match self.fs.change(node.0, &change) {
            Err(ELSEWHERE) => self.change_when_here(request, node.0, change, reply),
            Ok(stat) => reply.attr(&self.fs.ttl(), &file_attr(&stat)),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let _span = self.begin(request, "readlink", node.0);
        match self.fs.read_link(node.0) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn mknod(
        &self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, device: u32,
        reply: ReplyEntry,
    ) {
        let _span = self.begin(request, "mknod", parent.0);
        let place = place(request, umask, parent, name);
        let made = self.fs.make_node(place, mode, u64::from(device));
        self.reply_entry(made, reply);
    }

    fn mkdir(
        &self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply:
        ReplyEntry,
    ) {
        let _span = self.begin(request, "mkdir", parent.0);
        let made = self.fs.make_directory(place(request, umask, parent, name), mode);
        self.reply_entry(made, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _span = self.begin(request, "unlink", parent.0);
        let unique = request.unique().0;
        Self::reply_done(
            self.fs.remove(unique, parent.0, name.as_bytes(), false),
            reply,
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _span = self.begin(request, "rmdir", parent.0);
        let unique = request.unique().0;
        Self::reply_done(
            self.fs.remove(unique, parent.0, name.as_bytes(), true),
            reply,
        );
    }

    fn symlink(
        &self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry,
    ) {
        let _span = self.begin(request, "symlink", parent.0);
        let place = place(request, 0, parent, name);
        let made = self.fs.make_symlink(place, target.as_os_str().as_bytes());
        self.reply_entry(made, reply);
    }

    fn rename(
        &self, request: &Request, parent: INodeNo, name: &OsStr, new_parent: INodeNo, new_name:
        &OsStr, flags: RenameFlags, reply: ReplyEmpty,
    ) {
        let _span = self.begin(request, "rename", parent.0);
        let (from, to) = (
            (parent.0, name.as_bytes()),
            (new_parent.0, new_name.as_bytes()),
        );
        let done = self.fs.rename(request.unique().0, from, to, flags.bits());
        Self::reply_done(done, reply);
        self.fs.ask_ahead(new_parent.0);
    }

    fn link(
        &self, request: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry,
    ) {
        let _span = self.begin(request, "link", node.0);
        let made = self
            .fs
            .link(request.unique().0, node.0, parent.0, name.as_bytes());
        self.reply_entry(made, reply);
    }

    fn create(
        &self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32,
        reply: ReplyCreate,
    ) {
        let _span = self.begin(request, "create", parent.0);
        let created = self
            .fs
            .create(place(request, umask, parent, name), mode, flags);
        self.reply_created(created, reply);
        self.fs.ask_ahead(parent.0);
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _span = self.begin(request, "open", node.0);
        let opened = self.fs.open_file(request.unique().0, node.0, flags.0);
        if opened == Err(ELSEWHERE) {
            return self.open_when_here(request, node.0, flags.0, reply);
        }
        let writes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
        let counted = writes && self.fs.counts_writes();
        self.reply_opened(opened, counted, reply);
    }

    fn read(
        &self, request: &Request, node: INodeNo, fh: FileHandle, offset: u64, size: u32, _:
        OpenFlags, _: Option<LockOwner>, reply: ReplyData,
    ) {
        let _span = self.begin(request, "read", node.0);
        let of = of(node, fh);
        match self.fs.read_now(of, offset, size) {
            Ok(Some(bytes)) => reply.data(&bytes),
            Ok(None) => {
                let read = move |fs: &DirectoryFs| match fs.read(of, offset, size) {
                    Ok(bytes) => reply.data(&bytes),
                    Err(errno) => reply.error(error(errno)),
                };
                match self.fs.is_shared() && size <= SHORT {
                    true => self.soon(read),
                    false => self.later(read),
                }
            }
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn write(
        &self, request: &Request, node: INodeNo, fh: FileHandle, offset: u64, data: &[u8], _:
        WriteFlags, _: OpenFlags, _: Option<LockOwner>, reply: ReplyWrite,
    ) {
        let _span = self.begin(request, "write", node.0);
        match self.fs.write(of(node, fh), offset, data) {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn flush(
        &self, request: &Request, node: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty,
    ) {
        let _span = self.begin(request, "flush", node.0);
        self.settle(request, of(node, fh), Call::Close, reply);
    }

    fn release(
        &self, request: &Request, node: INodeNo, fh: FileHandle, _: OpenFlags, _: Option<LockOwner>,
        _: bool, reply: ReplyEmpty,
    ) {
        let _span = self.begin(request, "release", node.0);
        self.fs.release(fh.0);
        reply.ok();
    }

    fn fsync(
        &self, request: &Request, node: INodeNo, fh: FileHandle, data: bool, reply: ReplyEmpty,
    ) {
        let _span = self.begin(request, "fsync", node.0);
        let call = Call::Sync { data_only: data };
        self.settle(request, of(node, fh), call, reply);
    }

    fn opendir(&self, request: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _span = self.begin(request, "opendir", node.0);
        match self.fs.open_listing(node.0) {
            Ok(fh) => reply.opened(FileHandle(fh), FopenFlags::empty()),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn readdir(
        &self, request: &Request, node: INodeNo, fh: FileHandle, offset: u64, mut reply:
        ReplyDirectory,
    ) {
        let _span = self.begin(request, "readdir", node.0);
        let from = offset.cast_signed();
        let listed = self.fs.list((node.0, fh.0), from, false, &mut |row| {
            !add(&mut reply, row)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn readdirplus(
        &self, request: &Request, node: INodeNo, fh: FileHandle, offset: u64, mut reply:
        ReplyDirectoryPlus,
    ) {
        let _span = self.begin(request, "readdirplus", node.0);
        let (from, ttl) = (offset.cast_signed(), self.fs.ttl());
        let mut tell = |row: &Row<'_>| !add_plus(&mut reply, row, ttl);
        match self.fs.list((node.0, fh.0), from, true, &mut tell) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.fs.close_listing(fh.0);
        reply.ok();
    }

    fn fsyncdir(
        &self, request: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty,
    ) {
        let _span = self.begin(request, "fsyncdir", node.0);
        self.later(move |fs| Self::reply_done(fs.sync_directory(node.0), reply));
    }

    fn statfs(&self, request: &Request, node: INodeNo, reply: ReplyStatfs) {
        let _span = self.begin(request, "statfs", node.0);
        match self.fs.totals() {
            Ok(of) => reply.statfs(
                of.blocks, of.blocks_free, of.blocks_available, of.files, of.files_free,
                of.block_size, of.name_max, of.fragment,
            ),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn setxattr(
        &self, request: &Request, node: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32,
        reply: ReplyEmpty,
    ) {
        let _span = self.begin(request, "setxattr", node.0);
        let asked = (request.unique().0, DirectoryAdapter::asker(request));
        let done = self
            .fs
            .set_xattr(asked, node.0, name.as_bytes(), value, flags);
        Self::reply_done(done, reply);
    }

    fn getxattr(
        &self, request: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr,
    ) {
        let _span = self.begin(request, "getxattr", node.0);
        Self::reply_xattr(self.fs.xattr(node.0, name.as_bytes()), size, reply);
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let _span = self.begin(request, "listxattr", node.0);
        Self::reply_xattr(self.fs.xattr_names(node.0, request.uid()), size, reply);
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _span = self.begin(request, "removexattr", node.0);
        let done = self
            .fs
            .remove_xattr(request.unique().0, node.0, name.as_bytes());
        Self::reply_done(done, reply);
    }

    fn getlk(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, _: u64, _: u64, _: i32, _: u32,
        reply: ReplyLock,
    ) {
        reply.error(Errno::ENOLCK);
    }

    fn setlk(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, _: u64, _: u64, kind: i32, _:
        u32, _: bool, reply: ReplyEmpty,
    ) {
        // The kernel gives back at close what it never had.
        if kind == UNLOCK {
            reply.ok();
        } else {
            reply.error(Errno::ENOLCK);
        }
    }

    fn fallocate(
        &self, request: &Request, node: INodeNo, fh: FileHandle, offset: u64, length: u64, mode:
        i32, reply: ReplyEmpty,
    ) {
        let _span = self.begin(request, "fallocate", node.0);
        let of = (of(node, fh), Self::asker(request));
        self.later(move |fs| Self::reply_done(fs.allocate(of, mode, offset, length), reply));
    }

    fn lseek(
        &self, request: &Request, node: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply:
        ReplyLseek,
    ) {
        let _span = self.begin(request, "lseek", node.0);
        match self.fs.seek(of(node, fh), offset, whence) {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn copy_file_range(
        &self, request: &Request, from: INodeNo, from_fh: FileHandle, from_offset: u64, to: INodeNo,
        to_fh: FileHandle, to_offset: u64, length: u64, _: CopyFileRangeFlags, reply: ReplyWrite,
    ) {
        let _span = self.begin(request, "copy_file_range", from.0);
        let source = (of(from, from_fh), from_offset);
        let target = (of(to, to_fh), to_offset);
        self.later(move |fs| match fs.copy(source, target, length) {
            Ok(copied) => reply.written(copied),
            Err(errno) => reply.error(error(errno)),
        });
    }
}
