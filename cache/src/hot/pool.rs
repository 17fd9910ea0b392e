//! A bounded pool of threads for work that may hang on a disk.
//!
//! Nobody who must answer (a FUSE thread, the async runtime) touches the disk itself: the work runs
//! here and the caller waits with a deadline. Work that overruns its deadline keeps its thread
//! until the kernel lets go; its caller does not wait for that. Queue and threads are bounded, so a
//! dead disk costs at most `threads` stuck threads and a full queue.
//!
//! Time in the queue is not held against the disk: a deadline begins when the work begins, and only
//! overrunning it is reported as [`Failure::Overrun`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// More waiting jobs than this are refused.
const QUEUE_LIMIT: usize = 1024;

/// How many deadlines a job may wait in the queue.
const QUEUE_PATIENCE: u32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// Why a job gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It began and did not end in time.
    Overrun,
    /// It did not begin: the queue is full, or it waited there too long.
    Busy,
    /// The pool is closed, or the job panicked.
    Gone,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Pool {
    queue: Arc<Queue>,
}

/// The pool's threads; dropping it closes the pool and waits for them, within reason.
#[derive(Debug)]
pub(crate) struct PoolThreads {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
    base: Instant,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// When a job began, in milliseconds since the pool's start plus one; 0 = still in the queue.
#[derive(Debug, Default)]
struct Begun(AtomicU64);

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("waiting", &self.lock().jobs.len())
            .finish()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.base.elapsed().as_millis() as u64 + 1
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let job = loop {
                if let Some(job) = state.jobs.pop_front() {
                    break job;
                }
                if state.closed {
                    return;
                }
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            // A panic must not take the thread away; the caller sees its channel close.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    /// How much longer to wait for a job, or why not.
    fn patience(
        &self,
        begun: &Begun,
        queued: Instant,
        deadline: Duration,
    ) -> Result<Duration, Failure> {
        match begun.0.load(Ordering::Acquire) {
            0 => (deadline * QUEUE_PATIENCE)
                .checked_sub(queued.elapsed())
                .map(|left| left.min(deadline))
                .ok_or(Failure::Busy),
            begun => deadline
                .checked_sub(Duration::from_millis(self.now().saturating_sub(begun)))
                .ok_or(Failure::Overrun),
        }
    }
}

impl Pool {
    pub(crate) fn start(name: &str, threads: usize) -> std::io::Result<(Self, PoolThreads)> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            wake: Condvar::new(),
            base: Instant::now(),
        });
        let mut handles = Vec::new();
        for number in 0..threads.max(1) {
            let queue = Arc::clone(&queue);
            let builder = std::thread::Builder::new().name(format!("{name}-{number}"));
            handles.push(builder.spawn(move || queue.work())?);
        }
        let threads = PoolThreads {
            queue: Arc::clone(&queue),
            threads: handles,
        };
        Ok((Self { queue }, threads))
    }

    fn submit(
        &self,
        begun: &Arc<Begun>,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), Failure> {
        let mut state = self.queue.lock();
        if state.closed {
            return Err(Failure::Gone);
        }
        if state.jobs.len() >= QUEUE_LIMIT {
            return Err(Failure::Busy);
        }
        let queue = Arc::clone(&self.queue);
        let begun = Arc::clone(begun);
        state.jobs.push_back(Box::new(move || {
            begun.0.store(queue.now(), Ordering::Release);
            job();
        }));
        drop(state);
        self.queue.wake.notify_one();
        Ok(())
    }

    /// Runs `job` and waits for it on this thread.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let begun = Arc::new(Begun::default());
        let queued = Instant::now();
        self.submit(&begun, move || {
            let _ = sender.send(job());
        })?;
        let mut wait = deadline;
        loop {
            match receiver.recv_timeout(wait) {
                Ok(value) => return Ok(value),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Failure::Gone),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    wait = self.queue.patience(&begun, queued, deadline)?;
                }
            }
        }
    }

    /// Runs `job` and waits for it in the async runtime. Dropping the future does not stop the job.
    pub(crate) async fn run_async<T: Send + 'static>(
        &self,
        deadline: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, mut receiver) = oneshot::channel();
        let begun = Arc::new(Begun::default());
        let queued = Instant::now();
        self.submit(&begun, move || {
            let _ = sender.send(job());
        })?;
        let mut wait = deadline;
        loop {
            match tokio::time::timeout(wait, &mut receiver).await {
                Ok(answer) => return answer.map_err(|_| Failure::Gone),
                Err(_) => wait = self.queue.patience(&begun, queued, deadline)?,
            }
        }
    }
}

impl Drop for PoolThreads {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.wake.notify_all();
        // A thread stuck in the kernel is left behind: the process is about to end, or the disk
        // is dead and so is the thread.
        let patience = Instant::now() + Duration::from_secs(5);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < patience {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this, a hung disk would hang its readers, or a slow queue would be called a dead disk.
    #[test]
    fn an_overrun_is_told_from_a_wait_in_the_queue() {
        let (pool, threads) = Pool::start("test-io", 1).expect("threads start");
        let deadline = Duration::from_millis(100);
        let (release, gate) = mpsc::channel::<()>();
        assert_eq!(
            pool.run(deadline, move || gate.recv()),
            Err(Failure::Overrun)
        );
        assert_eq!(pool.run(deadline, || 1), Err(Failure::Busy));
        drop(release);
        assert_eq!(pool.run(deadline, || 2), Ok(2));
        // Printing a panic takes its time.
        let patient = Duration::from_secs(30);
        let panicked = pool.run(patient, || panic!("on purpose"));
        assert_eq!(panicked, Err::<(), _>(Failure::Gone));
        assert_eq!(pool.run(deadline, || 3), Ok(3));
        drop(threads);
        assert_eq!(pool.run(deadline, || 4), Err(Failure::Gone));
    }
}
