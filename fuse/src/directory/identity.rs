//! Acting as the caller: what a request makes belongs to who asked for it.
//!
//! Permissions are judged before a request reaches this process: the mount has
//! `default_permissions`, so the kernel compares the caller's whole identity (groups, capabilities,
//! ACLs) with the attributes. What is left is to whom a new file belongs. For that the thread takes
//! the caller's file system user and group (setfsuid(2)) and umask, so that the directory below does
//! the rest by itself: set-group-ID directories, default ACLs, quotas.
//!
//! The thread keeps its capabilities meanwhile (`SECBIT_NO_SETUID_FIXUP`): a second judgement below,
//! without the caller's other groups, would refuse what the kernel has allowed. It never has
//! CAP_SYS_RESOURCE, which would carry a caller beyond quotas.
//!
//! Invariant: identity and umask are those of the thread alone (`CLONE_FS` is undone once), and are
//! restored before the closure's result is used, also when it panics.

use std::cell::Cell;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits that new files do not get.
    pub umask: u32,
}

/// `SECBIT_NO_SETUID_FIXUP` of linux/securebits.h.
const NO_SETUID_FIXUP: libc::c_int = 1 << 2;

/// CAP_SYS_RESOURCE of capabilities(7).
const SYS_RESOURCE: u32 = 24;

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

thread_local! {
    static READY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` as the caller. Everything `work` makes belongs to it.
///
/// Errors: `EPERM` when this process may not change its identity; `work` has not run then.
pub(super) fn as_caller<T>(caller: Caller, work: impl FnOnce() -> T) -> Result<T, Errno> {
    prepare_thread()?;
    let identity = Identity::take(caller)?;
    let result = work();
    drop(identity);
    Ok(result)
}

/// Gives back what the thread was.
struct Identity {
    umask: Mode,
    changed: bool,
}

impl Identity {
    fn take(caller: Caller) -> Result<Self, Errno> {
        let mask = umask(Mode::from_bits_truncate(caller.umask & 0o777));
        let changed = caller.uid != 0 || caller.gid != 0;
        let identity = Self {
            umask: mask,
            changed,
        };
        if changed && !(set_group(caller.gid) && set_user(caller.uid)) {
            return Err(Errno::EPERM); // what was changed is undone by the drop
        }
        Ok(identity)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        umask(self.umask);
        if self.changed && !(set_user(0) && set_group(0)) {
            // Going on would let the next caller act as this one.
            tracing::error!("a thread cannot become itself again; the worker starts anew");
            std::process::abort();
        }
    }
}

/// Takes a file system user; whether the thread has it now.
fn set_user(uid: u32) -> bool {
    // SAFETY: changes an attribute of this thread; the second call, with an impossible number, only
    // tells what it is now.
    unsafe {
        libc::setfsuid(uid);
        libc::setfsuid(u32::MAX).cast_unsigned() == uid
    }
}

fn set_group(gid: u32) -> bool {
    // SAFETY: as above.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsgid(u32::MAX).cast_unsigned() == gid
    }
}

/// Once for each thread: an umask of its own, capabilities that stay, none beyond quotas.
pub(super) fn prepare_thread() -> Result<(), Errno> {
    if READY.get() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_FS)?;
    // SAFETY: numbers only; affects this thread.
    let bits = Errno::result(unsafe { libc::prctl(libc::PR_GET_SECUREBITS) })?;
    // SAFETY: as above.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits | NO_SETUID_FIXUP) })?;
    drop_capability(SYS_RESOURCE)?;
    READY.set(true);
    Ok(())
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Takes one out of the thread's effective set (capset(2)).
fn drop_capability(number: u32) -> Result<(), Errno> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: header and words have the layout of version 3 and outlive the call.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    Errno::result(got)?;
    words[number as usize / 32].effective &= !(1 << (number % 32));
    // SAFETY: as above.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    Errno::result(set).map(drop)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    // Without it files would belong to root, or an umask of one request would reach another one.
    #[test]
    fn a_thread_is_itself_again_afterwards() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP a_thread_is_itself_again_afterwards: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_owned();
        std::thread::spawn(move || {
            let caller = Caller {
                uid: 1234,
                gid: 2345,
                umask: 0o027,
            };
            let (theirs, ours) = (place.join("theirs"), place.join("ours"));
            as_caller(caller, || std::fs::write(&theirs, "x"))
                .unwrap()
                .unwrap();
            std::fs::write(&ours, "x").unwrap();
            let theirs = std::fs::metadata(theirs).unwrap();
            assert_eq!((theirs.uid(), theirs.gid()), (1234, 2345));
            assert_eq!(theirs.permissions().mode() & 0o777, 0o640);
            assert_eq!(std::fs::metadata(ours).unwrap().uid(), 0);
            let panicked = std::panic::catch_unwind(|| as_caller(caller, || panic!("in between")));
            assert!(panicked.is_err());
            std::fs::write(place.join("after"), "x").unwrap();
            assert_eq!(std::fs::metadata(place.join("after")).unwrap().uid(), 0);
        })
        .join()
        .unwrap();
    }
}
