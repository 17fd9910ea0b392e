//! Following another node's fill: its progress is ours to read, its silence ours to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::copy::{open_suspicious, optional};
use super::disk::Fault;
use super::flight::Flight;
use super::format::{Owner, lease_max};
use super::lease::{self, Seen, Watch};
use super::stats::add;
use super::tier::Inner;

/// First and longest pause between two looks at a lease.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowEnd {
    /// The lease is gone: published, given up, or broken by us.
    Gone,
    /// Nobody here waits any more.
    Unwanted,
}

/// Watches the lease of a flight's object until it is gone.
pub(super) async fn follow(tier: &Inner, flight: &Arc<Flight>) -> Result<FollowEnd, Fault> {
    flight.begin(None, true);
    let mut watch = Watch::new(tier.config.lease_ttl.0);
    let mut opened: Option<Owner> = None;
    let mut pause = PAUSES.0;
    let mut wanted = Instant::now();
    loop {
        let path = tier.layout.lease(&flight.digest);
        let (count, limit) = (flight.blocks(), lease_max(flight.object.size()));
        let at = path.clone();
        let seen = tier
            .disk
            .run(move || lease::look(&at, count, limit))
            .await?;
        if seen == Seen::Nothing {
            return Ok(FollowEnd::Gone);
        }
        if watch.is_silent(&seen) {
            break_lease(tier, flight, seen).await?;
            return Ok(FollowEnd::Gone);
        }
        if let Seen::Record(record) = seen {
            let progress = record.finished.iter().any(Option::is_some);
            if progress && opened != Some(record.owner) {
                let part = tier.layout.part(&flight.digest, &record.owner);
                let file = tier
                    .disk
                    .run(move || optional(open_suspicious(&part)))
                    .await?;
                opened = file.as_ref().map(|_| record.owner);
                flight.begin(file.map(Arc::new), true);
            }
            if opened == Some(record.owner) {
                flight.set_finished(record.finished);
            }
        }
        if tier.readers(flight) > 0 {
            wanted = Instant::now();
        } else if wanted.elapsed() > tier.config.wait.0 && tier.forget_unread(flight) {
            return Ok(FollowEnd::Unwanted);
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Removes a silent holder's lease and what it left behind.
async fn break_lease(tier: &Inner, flight: &Flight, seen: Seen) -> Result<(), Fault> {
    let (count, limit) = (flight.blocks(), lease_max(flight.object.size()));
    let path = tier.layout.lease(&flight.digest);
    let part = match &seen {
        Seen::Record(record) => Some(tier.layout.part(&flight.digest, &record.owner)),
        Seen::Nothing | Seen::Unclear => None,
    };
    let work = move || {
        let broken = lease::remove_silent(&path, &seen, count, limit)?;
        if let (true, Some(part)) = (broken, part) {
            optional(std::fs::remove_file(part))?;
        }
        Ok(broken)
    };
    if tier.disk.run(work).await? {
        add(&tier.disk.counters.leases_broken, 1);
        tracing::info!(object = %flight.object, "took over the warm fill of a silent node");
    }
    Ok(())
}
