//! Bringing one flight to its end: look for the copy, take the lease, fill or follow, look again.

use std::sync::Arc;

use super::copy::{Copy, put_aside};
use super::disk::{Fault, SYNC_DEADLINES};
use super::fill::{Fill, FillEnd};
use super::flight::{End, Flight};
use super::follow::{FollowEnd, follow};
use super::format::{LeaseRecord, lease_max};
use super::lease;
use super::stats::add;
use super::tier::Inner;
use crate::source::Source;

/// Rounds after which a flight gives up: each one is a lease lost or a copy gone meanwhile.
const ROUNDS_MAX: u32 = 16;

/// Runs a flight and tells its readers how it ended. Cancelled by the tier's token.
pub(super) async fn drive(tier: Arc<Inner>, flight: Arc<Flight>, source: Arc<dyn Source>) {
    let end = match rounds(&tier, &flight, &source).await {
        Ok(end) => end,
        Err(fault) => {
            tracing::debug!(object = %flight.object, %fault, "no warm copy");
            End::Failed
        }
    };
    if let End::Published(copy) = &end {
        tier.remember(flight.digest, copy);
    }
    // Out of the map first: a reader that comes later must not join what has ended.
    tier.forget(&flight);
    flight.end(end);
}

async fn rounds(
    tier: &Arc<Inner>,
    flight: &Arc<Flight>,
    source: &Arc<dyn Source>,
) -> Result<End, Fault> {
    for _ in 0..ROUNDS_MAX {
        if let Some(copy) = find(tier, flight).await? {
            return Ok(End::Published(Arc::new(copy)));
        }
        if tier.disk.is_full() || tier.stop.is_cancelled() {
            return Ok(End::Failed);
        }
        let owner = rand::random();
        let finished = vec![None; flight.blocks() as usize];
        let record = LeaseRecord {
            owner,
            heartbeat: 0,
            finished,
        };
        let path = tier.layout.lease(&flight.digest);
        if !tier.disk.run(move || lease::take(&path, &record)).await? {
            tokio::select! {
                () = tier.stop.cancelled() => return Ok(End::Failed),
                end = follow(tier, flight) => match end? {
                    FollowEnd::Gone => continue,
                    FollowEnd::Unwanted => return Ok(End::Failed),
                },
            }
        }
        let end = fill_if_missing(tier, flight, source, owner).await;
        let (count, limit) = (flight.blocks(), lease_max(flight.object.size()));
        let path = tier.layout.lease(&flight.digest);
        let release = move || lease::release(&path, &owner, count, limit);
        let released = tier.disk.run(release).await;
        if end? == FillEnd::Failed {
            return Ok(End::Failed);
        }
        released?;
    }
    Ok(End::Failed)
}

/// Fills as the holder of the lease, unless the last holder published meanwhile.
async fn fill_if_missing(
    tier: &Arc<Inner>,
    flight: &Arc<Flight>,
    source: &Arc<dyn Source>,
    owner: [u8; 16],
) -> Result<FillEnd, Fault> {
    if find(tier, flight).await?.is_some() {
        return Ok(FillEnd::Published);
    }
    let fill = Fill {
        tier,
        flight,
        source: source.as_ref(),
        owner,
    };
    let end = tokio::select! {
        () = tier.stop.cancelled() => None,
        end = fill.run() => Some(end),
    };
    if let Some(end) = end {
        return Ok(end);
    }
    let part = tier.layout.part(&flight.digest, &owner);
    tier.disk
        .run_within(SYNC_DEADLINES, move || std::fs::remove_file(part))
        .await?;
    Ok(FillEnd::Failed)
}

/// The copy, if there is one; a damaged one is put aside and does not count.
async fn find(tier: &Inner, flight: &Flight) -> Result<Option<Copy>, Fault> {
    let (layout, object) = (tier.layout.clone(), flight.object.clone());
    match tier.disk.run(move || Copy::open(&layout, &object)).await {
        Err(Fault::Corrupt) => {}
        other => return other,
    }
    add(&tier.disk.counters.quarantined, 1);
    tracing::warn!(object = %flight.object, "put aside a damaged warm copy");
    let (layout, digest) = (tier.layout.clone(), flight.digest);
    tier.disk.run(move || put_aside(&layout, &digest)).await?;
    Ok(None)
}
