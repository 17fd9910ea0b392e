//! Requests that promise: close and fsync, answered when what they promise is kept.
//!
//! What this node and the directory do takes a thread, as any other wait for a disk; waiting for the cold
//! store takes none, as what is waited for needs threads itself. A program that is killed meanwhile is
//! answered at once: nobody is told that its bytes are there.

use std::sync::Arc;

use fuser::{ReplyEmpty, Request};
use nix::errno::Errno;

use super::DirectoryAdapter;
use super::elsewhere::dying;
use crate::directory::{Call, HandleOf};

impl DirectoryAdapter {
    /// Keeps what a call on a handle promises, and answers.
    pub(super) fn settle(&self, request: &Request, of: HandleOf, call: Call, reply: ReplyEmpty) {
        if call == Call::Close && self.fs.closes_plainly() {
            return self.soon(move |fs| Self::reply_done(fs.flush(of), reply));
        }
        if !self.fs.promises_cold() {
            return self.later(move |fs| Self::reply_done(fs.settle_here(of, call), reply));
        }
        let (this, program) = (self.clone(), request.pid());
        let task = async move {
            let fs = Arc::clone(&this.fs);
            let here = tokio::task::spawn_blocking(move || {
                fs.prepare_thread();
                fs.settle_here(of, call)
            });
            let done = match here.await {
                Ok(Ok(true)) => tokio::select! {
                    done = this.fs.reach_cold(of.node) => done,
                    () = dying(program) => Err(Errno::EINTR),
                },
                Ok(other) => other.map(drop),
                Err(_) => Err(Errno::EIO), // the runtime ends
            };
            Self::reply_done(done, reply);
        };
        drop(self.tasks.spawn_on(task, &self.runtime)); // owned by the tracker
    }
}
