//! Requests that need contents which are in the cold store: answered when they are here.
//!
//! Waiting takes no thread: there may be as many who wait as there are programs, and what they wait
//! for needs threads itself. The kernel keeps a program that is killed until its request is answered,
//! so one whose program is dying is answered at once; the recall goes on for others.

use std::sync::Arc;
use std::time::Duration;

use fuser::{ReplyAttr, ReplyOpen, Request};
use nix::errno::Errno;

use super::DirectoryAdapter;
use super::answers::{error, file_attr};
use crate::directory::{Change, DirectoryFs, ELSEWHERE};

/// How often contents may be moved away between their return and the request's turn.
const ATTEMPTS: u32 = 8;

/// How often it is looked whether the program still waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// SIGKILL in the masks of `/proc/PID/status`.
const KILLED: u64 = 1 << (libc::SIGKILL - 1);

impl DirectoryAdapter {
    /// Opens a file whose contents are elsewhere.
    pub(super) fn open_when_here(
        &self,
        request: &Request,
        node: u64,
        flags: i32,
        reply: ReplyOpen,
    ) {
        let unique = request.unique().0;
        let counted = flags & libc::O_ACCMODE != libc::O_RDONLY && self.fs.counts_writes();
        self.when_here(
            request,
            node,
            move |fs| fs.open_file(unique, node, flags),
            move |this, opened| this.reply_opened(opened, counted, reply),
        );
    }

    /// Truncates a file whose contents are elsewhere to a part of them, or makes it longer.
    pub(super) fn change_when_here(
        &self,
        request: &Request,
        node: u64,
        change: Change,
        reply: ReplyAttr,
    ) {
        self.when_here(
            request,
            node,
            move |fs| fs.change(node, &change),
            move |this, changed| match changed {
                Ok(stat) => reply.attr(&this.fs.ttl(), &file_attr(&stat)),
                Err(errno) => reply.error(error(errno)),
            },
        );
    }

    fn when_here<T: Send + 'static>(
        &self,
        request: &Request,
        node: u64,
        attempt: impl Fn(&DirectoryFs) -> Result<T, Errno> + Send + Sync + 'static,
        answer: impl FnOnce(&Self, Result<T, Errno>) + Send + 'static,
    ) {
        let (this, program, attempt) = (self.clone(), request.pid(), Arc::new(attempt));
        let task = async move {
            let mut result = Err(Errno::EBUSY);
            for _ in 0..ATTEMPTS {
                let recalled = tokio::select! {
                    recalled = this.fs.recall(node) => recalled,
                    () = dying(program) => Err(Errno::EINTR),
                };
                if let Err(errno) = recalled {
                    result = Err(errno);
                    break;
                }
                let (fs, attempt) = (Arc::clone(&this.fs), Arc::clone(&attempt));
                let tried = tokio::task::spawn_blocking(move || {
                    fs.prepare_thread();
                    attempt(&fs)
                });
                match tried.await {
                    Ok(Err(ELSEWHERE)) => {}
                    Ok(done) => {
                        result = done;
                        break;
                    }
                    Err(_) => {
                        result = Err(Errno::EIO);
                        break;
                    }
                }
            }
            answer(&this, result);
        };
        drop(self.tasks.spawn_on(task, &self.runtime)); // owned by the tracker
    }
}

/// Returns when a thread has been killed and only waits for its answer.
pub(super) async fn dying(thread: u32) {
    let path = format!("/proc/{thread}/status");
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // One that cannot be seen (of another name space) is waited for.
        let status = tokio::fs::read_to_string(&path).await.unwrap_or_default();
        if is_killed(&status) {
            return;
        }
    }
}

fn is_killed(status: &str) -> bool {
    status
        .lines()
        .filter_map(|line| {
            line.strip_prefix("SigPnd:")
                .or(line.strip_prefix("ShdPnd:"))
        })
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & KILLED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a killed program would stay until a store answers, or a live one would be let go.
    #[test]
    fn a_killed_program_is_told_from_a_living_one() {
        let status = |own, shared| {
            format!("Name:\tcat\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000100\n")
        };
        assert!(is_killed(&status("0000000000000100", "0000000000000000")));
        assert!(is_killed(&status("0000000000000000", "0000000000000102")));
        assert!(!is_killed(&status("0000000000000002", "0000000000004000")));
        assert!(!is_killed(""));
    }
}
