//! One operation per volume at a time, and every operation to its end.
//!
//! The interface allows a driver to refuse a call for a volume that has another one under way: the
//! orchestrator asks again. A call whose caller goes away (kubelet gives up after two minutes) is
//! carried out to its end all the same, with the volume's name still held, so that the call that
//! comes again never meets half of the first one.
//!
//! Lock order: the set of names is held for the length of an insertion or a removal, under nothing
//! and over nothing.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::TaskTracker;
use tonic::Status;

/// Volumes that have an operation under way; the operations belong to it.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    held: Arc<Mutex<HashSet<String>>>,
    tasks: TaskTracker,
}

/// Holds the name of a volume until it is dropped.
#[derive(Debug)]
pub struct Held {
    name: String,
    held: Arc<Mutex<HashSet<String>>>,
}

impl Locks {
    /// Takes a name.
    ///
    /// Errors: ABORTED when an operation holds it.
    pub fn hold(&self, name: &str) -> Result<Held, Status> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.insert(name.to_owned()) {
            return Err(Status::aborted(
                "an operation on this volume is under way; try again",
            ));
        }
        Ok(Held {
            name: name.to_owned(),
            held: Arc::clone(&self.held),
        })
    }

    /// Carries `work` out with the name held. It goes on when the caller stops waiting.
    ///
    /// Errors: those of `work`; ABORTED when an operation holds the name; INTERNAL when `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let held = self.hold(name)?;
        let task = self.tasks.spawn(async move {
            let result = work.await;
            drop(held);
            result
        });
        let ended = task.await;
        ended.unwrap_or_else(|error| Err(Status::internal(format!("the operation broke: {error}"))))
    }

    /// Waits for the end of everything that [`Locks::run`] began.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tokio::sync::oneshot;
    use tonic::Code;

    use super::*;

    // Two mounts of one volume at the same moment would leave one of them behind.
    #[tokio::test]
    async fn a_second_operation_is_told_to_come_again() {
        let locks = Locks::default();
        let first = locks.hold("v1").unwrap();
        assert_eq!(locks.hold("v1").unwrap_err().code(), Code::Aborted);
        assert!(locks.hold("v2").is_ok());
        drop(first);
        assert!(locks.hold("v1").is_ok());
    }

    // A caller that gives up in the middle must not leave half of an operation, or a free name.
    #[tokio::test]
    async fn an_operation_outlives_its_caller() {
        let locks = Locks::default();
        let (go, wait) = oneshot::channel::<()>();
        let (begun, started) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel::<()>();
        let work = async move {
            begun.send(()).ok();
            wait.await.ok();
            done.send(()).ok();
            Ok(())
        };
        let caller = {
            let locks = locks.clone();
            tokio::spawn(async move { locks.run("v1", work).await })
        };
        started.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(locks.hold("v1").unwrap_err().code(), Code::Aborted);
        go.send(()).unwrap();
        ended.await.unwrap();
        locks.drained().await;
        assert!(locks.hold("v1").is_ok());
    }
}
