//! The fill of a whole object.
//!
//! One [`Job`] per object at most. It lives while somebody holds an [`Interest`]: each `fill()`
//! that waits holds one, and the object holds one for a fill in the background. It claims absent
//! blocks part by part, beginning with what a reader will ask for next, runs a few parts at once,
//! and leaves alone what readers and readahead are fetching.

use std::fmt::Display;
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::error::ReadError;
use super::part::{self, Ended, Part};
use super::stats::add;

/// How a fill ended; `None` while it runs.
type Outcome = Option<Result<(), ReadError>>;

/// A running fill, as the object's state knows it.
#[derive(Debug)]
pub(super) struct Job {
    interest: Weak<Interest>,
    outcome: watch::Receiver<Outcome>,
}

/// The wish that a fill goes on; the last one dropped cancels it.
#[derive(Debug, Default)]
pub(super) struct Interest {
    cancel: CancellationToken,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Joins the object's fill or starts one. The fill goes on while the interest is held.
pub(super) fn join(engine: &Arc<Engine>) -> (Arc<Interest>, watch::Receiver<Outcome>) {
    engine.with_job(|slot| {
        if let Some(job) = slot
            && let Some(interest) = job.interest.upgrade()
            && job.outcome.borrow().is_none()
        {
            return (interest, job.outcome.clone());
        }
        let interest = Arc::new(Interest::default());
        let (sender, outcome) = watch::channel(None);
        *slot = Some(Job {
            interest: Arc::downgrade(&interest),
            outcome: outcome.clone(),
        });
        let (engine, cancel) = (Arc::clone(engine), interest.cancel.clone());
        let shared = Arc::clone(&engine.shared);
        shared.spawn(async move {
            let result = run(&engine, &cancel).await;
            count(&engine, &result);
            sender.send_replace(Some(result));
        });
        (interest, outcome)
    })
}

/// Waits for the end of a fill.
pub(super) async fn wait(mut outcome: watch::Receiver<Outcome>) -> Result<(), ReadError> {
    match outcome.wait_for(Option::is_some).await {
        Ok(ended) => ended.clone().unwrap_or(Err(ReadError::Closed)),
        Err(_) => Err(ReadError::Closed),
    }
}

fn count(engine: &Engine, result: &Result<(), ReadError>) {
    let counters = &engine.shared.counters;
    match result {
        Ok(()) => add(&counters.fills, 1),
        Err(ReadError::Closed) => add(&counters.fills_cancelled, 1),
        // Counted by the refusal itself; a full tier would fill the log.
        Err(error @ ReadError::NotKept(_)) => {
            add(&counters.fills_failed, 1);
            tracing::debug!(object = %engine.id, %error, "object is not kept");
        }
        Err(error) => {
            add(&counters.fills_failed, 1);
            tracing::warn!(object = %engine.id, %error, "fill ended early");
        }
    }
}

/// Fills, then leaves to their readers the parts that are still under way.
async fn run(engine: &Arc<Engine>, cancel: &CancellationToken) -> Result<(), ReadError> {
    let mut parts = JoinSet::new();
    let wanted = cancel.child_token();
    let result = fill(engine, cancel, &wanted, &mut parts).await;
    wanted.cancel();
    // Not aborted: a reader may wait for them, and their writes must settle. The cache's tracker
    // owns them.
    parts.detach_all();
    result
}

async fn fill(
    engine: &Arc<Engine>,
    cancel: &CancellationToken,
    wanted: &CancellationToken,
    parts: &mut JoinSet<Ended>,
) -> Result<(), ReadError> {
    let refused = |reason: &dyn Display| ReadError::NotKept(reason.to_string());
    let hot = engine.keep().map_err(|error| refused(&error))?;
    let total = engine.total();
    if total > engine.shared.config.part_blocks() && !hot.is_filled() {
        // A large object: know that there is room before anything is fetched.
        hot.prepare().await.map_err(|error| refused(&error))?;
    }
    let mut cursor = engine.first_wanted();
    // A block that the hot tier takes and loses is fetched again, but not for ever.
    let mut claims_left = u64::from(total) * 2 + 8;
    let mut checked = false;
    loop {
        // Before the look, so that no movement after it is missed.
        let moved = engine.moved.notified();
        if total == 0 || hot.is_filled() {
            engine.note_filled();
            return Ok(());
        }
        if cancel.is_cancelled() || engine.gone.is_cancelled() {
            return Err(ReadError::Closed);
        }
        if !engine.is_kept() {
            return Err(refused(&"the hot tier does not take its blocks"));
        }
        if let Some(error) = engine.changed() {
            return Err(ReadError::Store(error));
        }
        for part in next_parts(engine, wanted, cursor, parts.len()) {
            checked = false;
            cursor = part.blocks.end;
            claims_left = claims_left.saturating_sub(part.blocks.len() as u64);
            let task = engine
                .shared
                .tracker
                .track_future(part::run(Arc::clone(engine), part));
            parts.spawn_on(task, &engine.shared.runtime);
        }
        if claims_left == 0 {
            return Err(refused(&"the hot tier loses its blocks"));
        }
        let starved = parts.len() < engine.shared.config.parts_per_object;
        if starved && let Some((block, data, hot)) = engine.unkept(0..total) {
            engine.settle(block, hot.write(block, data).await);
            continue;
        }
        if parts.is_empty() && !checked && hot.missing(0..total).is_empty() {
            // All there, and not believed: written by a process that was killed before it could say
            // that the file was its own. Nobody else is going to check it.
            checked = true;
            hot.verify().await.map_err(|error| refused(&error))?;
            continue;
        }
        tokio::select! {
            Some(ended) = parts.join_next() => {
                if let Ok(Ended::Failed(error)) = ended {
                    return Err(error);
                }
            }
            () = moved, if starved => {}
            () = cancel.cancelled() => {}
            () = engine.gone.cancelled() => {}
        }
    }
}

/// Claims parts up to the limit: from `cursor` to the end, then from the beginning.
fn next_parts(
    engine: &Engine,
    wanted: &CancellationToken,
    cursor: u32,
    running: usize,
) -> Vec<Part> {
    let idle = engine
        .shared
        .config
        .parts_per_object
        .saturating_sub(running);
    if idle == 0 {
        return Vec::new();
    }
    let ahead = engine.claim(cursor..engine.total(), wanted, idle);
    match ahead.is_empty() && cursor > 0 {
        true => engine.claim(0..cursor, wanted, idle),
        false => ahead,
    }
}
