//! Priority of a worker that applications wait for.
//!
//! While a worker starts, everybody who uses a mount of the node stands still; giving it the processor
//! first costs them nothing. Linux divides the processor twice, and so there are two values, both
//! called nice:
//! ```text
//! between sessions   /proc/self/autogroup   raised by the keeper before it starts a worker
//! within a session   setpriority(2)         the keeper has it all the time, for it hardly ever runs,
//!                                           and a process inherits it
//! ```
//! The worker, which is in the keeper's session, gives both back when it serves what the one before it
//! served. The second one belongs to a thread and is inherited by the threads that it starts, hence
//! the walk over all of them. A kernel without groups of sessions knows the second one only. Without
//! the privilege (CAP_SYS_NICE) everything stays as it is.

use std::io;

use nix::libc;

/// What is subtracted from a nice value; it ends at -20.
const BOOST: i32 = 19;

const GROUP: &str = "/proc/self/autogroup";

/// The values of a worker that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usual {
    /// Of its threads.
    pub(crate) nice: i32,
    /// Of its session, where the kernel groups by session.
    pub(crate) group: Option<i32>,
}

/// Raises the priority of the keeper, the calling thread. Returns what its workers return to.
pub(crate) fn raise_keeper() -> Option<Usual> {
    Boost::begin(None).map(|boost| boost.usual)
}

/// Raises the keeper's session, and with it the worker that is about to start.
pub(crate) fn raise_session() {
    set_group_nice(-BOOST);
}

/// Remembers what to return to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boost {
    usual: Usual,
}

impl Boost {
    /// Raises the priority of the calling thread and of those it will start, above `usual` (by
    /// default what it has now).
    pub(super) fn begin(usual: Option<Usual>) -> Option<Self> {
        let usual = match usual {
            Some(usual) => usual,
            None => Usual {
                nice: nice_value()?,
                group: group_nice(),
            },
        };
        match set_nice(0, usual.nice - BOOST) {
            Ok(()) => Some(Self { usual }),
            Err(error) => {
                tracing::debug!(%error, "started at the usual priority");
                None
            }
        }
    }

    /// Gives every thread of the process, and the session, the usual priority.
    pub(super) fn end(self) {
        let threads = std::fs::read_dir("/proc/self/task")
            .into_iter()
            .flatten()
            .flatten();
        let ids = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for id in ids {
            // A thread that has ended meanwhile needs nothing.
            if let Err(error) = set_nice(id, self.usual.nice) {
                tracing::debug!(%error, thread = id, "priority not restored");
            }
        }
        if let Some(group) = self.usual.group {
            set_group_nice(group);
        }
    }
}

/// The number in `/autogroup-661 nice 0` (sched(7)).
fn group_nice() -> Option<i32> {
    let text = std::fs::read_to_string(GROUP).ok()?;
    let value = text.split_whitespace().last()?.parse().ok()?;
    // Another keeper of the session has just raised it.
    Some(if value == -BOOST { 0 } else { value })
}

/// Without groups, or without the privilege, there is nothing to set.
fn set_group_nice(value: i32) {
    if let Err(error) = std::fs::write(GROUP, value.to_string()) {
        tracing::debug!(%error, "priority of the session not set");
    }
}

/// Field 19 of `/proc/thread-self/stat` (proc_pid_stat(5)).
fn nice_value() -> Option<i32> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(16)?
        .parse()
        .ok()
}

/// Sets the nice value of a thread; 0 is the calling one.
fn set_nice(thread: libc::id_t, value: i32) -> io::Result<()> {
    // SAFETY: the call takes three integers.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_thread_returns_to_the_priority_of_before() {
        // Without it a worker would go on taking the processor from the applications it serves.
        let before = nice_value().unwrap();
        let Some(boost) = Boost::begin(None) else {
            println!("SKIP every_thread_returns_to_the_priority_of_before: no CAP_SYS_NICE");
            return;
        };
        let (started, has_started) = std::sync::mpsc::sync_channel::<()>(1);
        let (ended, has_ended) = std::sync::mpsc::sync_channel::<()>(1);
        let thread = std::thread::spawn(move || {
            let at_start = nice_value().unwrap();
            started.send(()).unwrap();
            has_ended.recv().unwrap();
            (at_start, nice_value().unwrap())
        });
        has_started.recv().unwrap();
        boost.end();
        ended.send(()).unwrap();
        let (at_start, at_end) = thread.join().unwrap();
        assert!(
            at_start == before - BOOST || at_start == before,
            "{at_start}"
        );
        assert_eq!((at_end, nice_value().unwrap()), (before, before));
    }
}
