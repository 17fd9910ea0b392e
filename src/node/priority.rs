//! Priority of a worker that applications wait for.
//!
//! While a worker starts, everybody who uses a mount of the node stands still; giving it the processor
//! first costs them nothing. So a worker begins with a better nice value and returns to its own one
//! when it serves what the one before it served. On Linux the value belongs to a thread and is
//! inherited by the threads that it starts, hence the walk over all of them at the end.
//! Without the privilege (CAP_SYS_NICE) everything stays as it is.

use std::io;

use nix::libc;

/// What is subtracted from the nice value; it ends at -20.
const BOOST: i32 = 10;

/// Remembers the nice value to return to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boost {
    before: i32,
}

impl Boost {
    /// Raises the priority of the calling thread and of those it will start.
    pub(super) fn begin() -> Option<Self> {
        let before = nice_value()?;
        match set_nice(0, before - BOOST) {
            Ok(()) => Some(Self { before }),
            Err(error) => {
                tracing::debug!(%error, "started at the usual priority");
                None
            }
        }
    }

    /// Gives every thread of the process its usual priority.
    pub(super) fn end(self) {
        let threads = std::fs::read_dir("/proc/self/task")
            .into_iter()
            .flatten()
            .flatten();
        let ids = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for id in ids {
            // A thread that has ended meanwhile needs nothing.
            if let Err(error) = set_nice(id, self.before) {
                tracing::debug!(%error, thread = id, "priority not restored");
            }
        }
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
        let Some(boost) = Boost::begin() else {
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
