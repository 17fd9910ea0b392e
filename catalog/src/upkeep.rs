//! Collecting and scrubbing without being asked, by one of the catalogs over a database at a time.
//!
//! ```text
//! every LOOK    for each piece of work with an interval: is it due, and is it this catalog's turn? (turns)
//! a turn        the work, and beside it the lease is renewed; a lease that is lost ends the work
//! its end       a line in the audit log, also when it failed; then the turn is tried again within the hour
//! ```
//!
//! The work is what a request would do (`collect`, `scrub`), with the same rules. One that a request has
//! begun in this process already counts as a turn that failed. Ending a run between two steps harms
//! nothing, so stopping waits for none.

mod turns;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::collect::{Collection, Collector, Item, USUAL_GRACE};
use crate::kv::Kv;
use crate::ledger::{Clock, system_clock};
use crate::scrub::{Finding, ScrubRequest, Scrubber};
use crate::stream::received;
use turns::{LEASE, Turns};

/// Time between two looks whether something is due.
const LOOK: Duration = Duration::from_secs(30);

/// Things that wait to be written down; then the work waits.
const WAITING: usize = 64;

/// What is done how often; none: only when somebody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Between the beginnings of two collections, with the usual grace period.
    pub collect_every: Option<Duration>,
    /// Between the beginnings of two scrubs of everything.
    pub scrub_every: Option<Duration>,
    /// Most bytes that a scrub reads a second; 0: no limit.
    pub scrub_rate: u64,
}

/// A piece of work.
#[derive(Clone, Copy, Debug)]
enum Work {
    Collect,
    Scrub,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::Scrub => "scrub",
        }
    }
}

/// See the module text.
#[derive(Clone)]
pub struct Upkeep {
    turns: Turns,
    collector: Arc<Collector>,
    scrubber: Arc<Scrubber>,
    schedule: Schedule,
    clock: Clock,
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upkeep({:?})", self.schedule)
    }
}

impl Upkeep {
    /// Over the catalog's own store. Starts nothing; see [`Upkeep::run`].
    pub fn new(
        kv: Arc<dyn Kv>,
        collector: Arc<Collector>,
        scrubber: Arc<Scrubber>,
        schedule: Schedule,
    ) -> Self {
        Self {
            turns: Turns::new(kv),
            collector,
            scrubber,
            schedule,
            clock: system_clock(),
        }
    }

    /// With another clock than the machine's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Looks until `stop`. One such task for each catalog.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Does what is due, if it is this catalog's turn. May be dropped at any time.
    pub async fn look(&self) {
        let schedule = &self.schedule;
        for (work, every) in [
            (Work::Collect, schedule.collect_every),
            (Work::Scrub, schedule.scrub_every),
        ] {
            let Some(every) = every else { continue };
            let name = work.name();
            match self.turns.take(name, every, (self.clock)()).await {
                Ok(false) => {}
                Ok(true) => self.turn(work).await,
                Err(error) => tracing::warn!(%error, work = name, "nobody knows whose turn it is"),
            }
        }
    }

    async fn turn(&self, work: Work) {
        let name = work.name();
        let doing = async {
            match work {
                Work::Collect => self.collect().await,
                Work::Scrub => self.scrub().await,
            }
        };
        let done = tokio::select! {
            done = doing => done,
            why = self.keep(name) => Err(why),
        };
        let ended = self.turns.end(name, done.is_ok()).await;
        let (result, said) = match &done {
            Ok(said) => ("ok", said),
            Err(why) => ("failed", why),
        };
        tracing::info!(target: "audit", who = "schedule", what = name, result, said);
        if let Err(error) = ended {
            tracing::warn!(%error, work = name, "a turn is not given back; its lease ends it");
        }
    }

    /// Renews the lease; returns with the reason when it is lost.
    async fn keep(&self, name: &str) -> String {
        let mut unknown = 0;
        loop {
            tokio::time::sleep(LEASE / 3).await;
            match self.turns.renew(name, (self.clock)()).await {
                Ok(true) => unknown = 0,
                Ok(false) => return "another catalog has the turn by now".to_owned(),
                Err(error) => {
                    unknown += 1;
                    // The third time the lease is over.
                    if unknown > 1 {
                        return format!("the turn cannot be kept: {error}");
                    }
                }
            }
        }
    }

    async fn collect(&self) -> Result<String, String> {
        let wanted = Collection {
            grace: USUAL_GRACE,
            dry_run: false,
        };
        let run = |items| async move { self.collector.run(wanted, &items).await };
        let done = heard(run, |item: Item| {
            tracing::debug!(kind = ?item.kind, name = item.name, "collected");
        });
        let done = done.await.map_err(|error| error.to_string())?;
        Ok(format!(
            "took {} things of {} bytes, marked {} versions",
            done.taken, done.taken_bytes, done.retired
        ))
    }

    async fn scrub(&self) -> Result<String, String> {
        let request = ScrubRequest {
            dataset: None,
            bytes_per_second: self.schedule.scrub_rate,
        };
        let run = |found| async move { self.scrubber.run(&request, &found).await };
        let done = heard(run, |found: Finding| {
            let (dataset, version) = (found.dataset, found.version);
            let (what, reason) = (found.what, found.reason);
            tracing::error!(dataset, version, what, reason, "a scrub found damage");
        });
        let done = done.await.map_err(|error| error.to_string())?;
        Ok(format!(
            "read {} versions, {} bytes; {} files or blocks are damaged",
            done.versions, done.bytes, done.damaged
        ))
    }
}

/// Runs a piece of work to its end, beside who hears of each thing that it tells. The work owns the sender:
/// its end is that of what is heard.
async fn heard<T, F: Future>(
    run: impl FnOnce(mpsc::Sender<T>) -> F,
    mut hear: impl FnMut(T),
) -> F::Output {
    let (sender, told) = mpsc::channel::<T>(WAITING);
    let hearing = received(told).for_each(|one| {
        hear(one);
        std::future::ready(())
    });
    let (done, ()) = tokio::join!(run(sender), hearing);
    done
}
