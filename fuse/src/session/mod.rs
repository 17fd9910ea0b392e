//! Serving one mount: the first time, or in a dead worker's place.
//!
//! The kernel sends FUSE_INIT once per mount; the keeper has read and recorded it. A session is made
//! from one end of a `SOCK_SEQPACKET` pair:
//! ```text
//!   1. the recorded FUSE_INIT is written into the other end; the library reads and answers it
//!   2. the answer is read there, and written to the device unless the kernel has had one
//!      (ENOENT: it has; the worker before us died before it could say so)
//!   3. the library's threads start, and meet with their buffers present (primer.rs)
//!   4. dup3(device) over the library's end: from now on it talks to the kernel
//!   5. FUSE_NOTIFY_RESEND: requests the dead worker had taken are queued again, bit 63 of `unique`
//!      set (Linux 6.9 and later)
//!   6. the threads go on, and take requests
//! ```
//! The device is never cloned (`clone_fd`): requests taken through a clone end with ECONNABORTED when
//! it closes. No thread of the dead worker may live when step 5 happens; its keeper sees to that.

mod init;
mod primer;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use fuser::{Config, Notifier, Session, SessionACL};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::adapter::{self, Adapter};
use crate::fs::FileSystem;
use crate::keeper::InitRecord;

pub use primer::Primer;

/// `FUSE_NOTIFY_RESEND` of linux/fuse.h.
const NOTIFY_RESEND: i32 = 7;

/// Longest answer to FUSE_INIT that is accepted; it is 80 bytes today.
const REPLY_MAX: usize = 4096;

/// A kernel connection, as the keeper passes it on.
#[derive(Debug)]
pub struct Device {
    /// The device. Closed when the session ends; the keeper has its own copy.
    pub fd: OwnedFd,
    /// The FUSE_INIT exchange so far.
    pub init: InitRecord,
}

/// Settings of a session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Threads that take requests from the kernel; each holds a buffer of 16 MiB. Default: 2.
    pub threads: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { threads: 2 }
    }
}

/// A running session. Dropping it does not end the session; unmounting does.
#[derive(Debug)]
pub struct SessionHandle {
    thread: JoinHandle<io::Result<()>>,
    notifier: Notifier,
}

impl SessionHandle {
    /// Waits until the kernel ends the connection (`Ok`), or the loop fails.
    pub fn join(self) -> io::Result<()> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a session thread panicked")))
    }

    /// Tells the kernel about changes.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }
}

/// Serves `fs` on `device`. `on_answered` gets the answer to FUSE_INIT once the kernel has it, and is
/// called before any request is served.
///
/// Errors: as [`serve_filesystem`].
pub fn serve(
    fs: Arc<FileSystem>,
    device: Device,
    config: &SessionConfig,
    on_answered: impl FnOnce(&[u8]),
) -> io::Result<SessionHandle> {
    let kernel = device.fd.try_clone()?;
    let adapter = |primer| Adapter::new(Arc::clone(&fs), primer);
    serve_filesystem(adapter, device, config, |reply| {
        on_answered(reply);
        adapter::connect(&fs, kernel.as_fd())
    })
}

/// Serves an implementation of the library's trait, as [`serve`]; an error of `on_answered` ends it. The
/// implementation's `forget` has to call [`Primer::meets`].
///
/// Errors: `NotConnected` when the connection has been ended, `Unsupported` when the kernel cannot
/// send requests again (before 6.9) after another worker had served the mount, `TimedOut` when the
/// session's threads do not start.
pub fn serve_filesystem<F: fuser::Filesystem + 'static>(
    filesystem: impl FnOnce(Arc<Primer>) -> F,
    device: Device,
    config: &SessionConfig,
    on_answered: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<SessionHandle> {
    let (library_end, our_end) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    send(
        our_end.as_raw_fd(),
        &init::offer(&device.init)?,
        MsgFlags::MSG_NOSIGNAL,
    )?;
    let primer = Arc::new(Primer::default());
    let threads = config.threads.max(1);
    let mut settings = Config::default();
    settings.n_threads = Some(threads);
    settings.clone_fd = false;
    let filesystem = filesystem(Arc::clone(&primer));
    let session = Session::from_fd(filesystem, library_end, SessionACL::All, settings)?;
    let mut reply = vec![0; REPLY_MAX];
    let length = recv(our_end.as_raw_fd(), &mut reply, MsgFlags::MSG_DONTWAIT)?;
    reply.truncate(length);
    init::check_reply(&reply)?;
    let taken_over = answer_kernel(&device, &reply)?;
    on_answered(device.init.reply.as_deref().unwrap_or(&reply))?;
    let (notifier, number) = (session.notifier(), session.as_fd().as_raw_fd());
    let thread = std::thread::Builder::new()
        .name("fuse-session".to_owned())
        .spawn(move || session.run())?;
    for _ in 0..threads {
        send(
            our_end.as_raw_fd(),
            &Primer::request(),
            MsgFlags::MSG_NOSIGNAL,
        )?;
    }
    let gathered = primer.gather(threads)?;
    // SAFETY: the session's threads own the number and are held in the primer.
    let library_end = unsafe { BorrowedFd::borrow_raw(number) };
    replace_descriptor(&device.fd, library_end)?;
    drop(our_end);
    if taken_over {
        resend(&device.fd)?;
    }
    drop(gathered);
    Ok(SessionHandle { thread, notifier })
}

/// Gives the kernel the answer it waits for; `true` when it has had one before.
fn answer_kernel(device: &Device, reply: &[u8]) -> io::Result<bool> {
    if device.init.reply.is_some() {
        return Ok(true);
    }
    match nix::unistd::write(&device.fd, reply) {
        Ok(_) => Ok(false),
        Err(nix::errno::Errno::ENOENT) => Ok(true),
        Err(nix::errno::Errno::ENODEV | nix::errno::Errno::EPERM) => {
            Err(io::ErrorKind::NotConnected.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Asks the kernel to queue again what a dead worker had taken.
fn resend(device: &OwnedFd) -> io::Result<()> {
    let mut message = [0_u8; 16];
    message[..4].copy_from_slice(&16_u32.to_ne_bytes());
    message[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    match nix::unistd::write(device, &message) {
        Ok(_) => Ok(()),
        Err(nix::errno::Errno::EINVAL) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel cannot send requests again (needs Linux 6.9)",
        )),
        Err(nix::errno::Errno::ENODEV | nix::errno::Errno::EPERM) => {
            Err(io::ErrorKind::NotConnected.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts a copy of `device` under the number of `target`, which is closed.
fn replace_descriptor(device: &OwnedFd, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the number belongs to the library's session, which outlives this function and goes on
    // owning whatever it refers to; the second owner made here is forgotten below.
    let mut slot = unsafe { OwnedFd::from_raw_fd(target.as_raw_fd()) };
    let result = nix::unistd::dup3(device.as_fd(), &mut slot, nix::fcntl::OFlag::O_CLOEXEC);
    std::mem::forget(slot);
    Ok(result?)
}
