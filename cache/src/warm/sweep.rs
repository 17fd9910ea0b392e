//! Care for the directory: making it, probing it, removing left-overs and making room.
//!
//! One node at a time sweeps, under a lease like that of a fill. It lists the copies shard by shard
//! and, when they take more than the budget, unlinks those used longest ago until they take nine
//! tenths of it: first the data, then the sums. A reader that has a copy open keeps reading it (or
//! finds it gone, which is a miss). Time of use is the modification time of the sums, which readers
//! renew; it orders evictions and decides nothing else.
//!
//! A temporary file is left over when it was seen in two sweeps without a lease of its owner.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::copy::optional;
use super::disk::Fault;
use super::format::{LeaseRecord, Owner, decode_lease, lease_max};
use super::layout::{Kind, Layout, classify, hex};
use super::lease::{self, Seen, Watch};
use super::stats::add;
use super::tier::Inner;
use crate::hot::DiskState;
use crate::identity::Digest;

/// Time between two probes of a directory that is down.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// Room is made down to this share of the budget, in tenths.
const ROOM_TENTHS: u64 = 9;

/// A copy as the sweep sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    used: SystemTime,
    digest: Digest,
    bytes: u64,
}

/// What one shard holds.
#[derive(Debug, Default)]
struct Shard {
    copies: Vec<Found>,
    leftovers: Vec<PathBuf>,
}

/// Runs until the tier stops.
pub(super) async fn care(tier: Arc<Inner>) {
    let work = async {
        make_directories(&tier).await;
        let mut suspects = HashSet::new();
        let mut watch = Watch::new(tier.config.lease_ttl.0);
        let mut next = Instant::now() + tier.config.sweep.0;
        loop {
            sleep(PROBE_PAUSE.min(tier.config.sweep.0)).await;
            if tier.disk.health.state() == DiskState::Down {
                let root = tier.layout.objects();
                tier.disk.probe(move || std::fs::metadata(root)).await;
            } else if Instant::now() >= next {
                if let Err(fault) = sweep(&tier, &mut suspects, &mut watch).await {
                    tracing::debug!(%fault, "the warm directory was not swept");
                }
                next = Instant::now() + tier.config.sweep.0;
            }
        }
    };
    tokio::select! {
        () = tier.stop.cancelled() => {}
        () = work => {}
    }
}

/// Makes the directories, as soon as that is possible. Those of the shards are made by the first
/// lease in each: 256 of them take seconds on a file system that is busy or far away, and what is
/// read meanwhile would be read past the tier.
async fn make_directories(tier: &Inner) {
    loop {
        let layout = tier.layout.clone();
        let make = move || {
            std::fs::create_dir_all(layout.objects())?;
            std::fs::create_dir_all(layout.quarantine())
        };
        match tier
            .disk
            .run_within(super::disk::SYNC_DEADLINES, make)
            .await
        {
            Ok(()) => return,
            Err(fault) => {
                let dir = tier.layout.root().display();
                tracing::warn!(%dir, %fault, "the warm directory cannot be used; trying again");
            }
        }
        sleep(PROBE_PAUSE).await;
    }
}

/// One sweep, unless another node is at it.
async fn sweep(
    tier: &Inner,
    suspects: &mut HashSet<PathBuf>,
    watch: &mut Watch,
) -> Result<(), Fault> {
    let owner: Owner = rand::random();
    let path = tier.layout.sweep_lease();
    let record = LeaseRecord {
        owner,
        heartbeat: 0,
        finished: Vec::new(),
    };
    let limit = lease_max(0);
    let at = path.clone();
    if !tier.disk.run(move || lease::take(&at, &record)).await? {
        let at = path.clone();
        let seen = tier.disk.run(move || lease::look(&at, 0, limit)).await?;
        if seen != Seen::Nothing && watch.is_silent(&seen) {
            tier.disk
                .run(move || lease::remove_silent(&path, &seen, 0, limit))
                .await?;
        }
        return Ok(());
    }
    let swept = sweep_as_holder(tier, suspects, owner).await;
    tier.disk
        .run(move || lease::release(&path, &owner, 0, limit))
        .await?;
    swept
}

async fn sweep_as_holder(
    tier: &Inner,
    suspects: &mut HashSet<PathBuf>,
    owner: Owner,
) -> Result<(), Fault> {
    let mut copies = Vec::new();
    let mut leftovers = HashSet::new();
    for byte in 0..=255 {
        let layout = tier.layout.clone();
        let shard = tier.disk.run(move || list(&layout, byte)).await?;
        copies.extend(shard.copies);
        leftovers.extend(shard.leftovers);
        let record = LeaseRecord {
            owner,
            heartbeat: u64::from(byte) + 1,
            finished: Vec::new(),
        };
        let path = tier.layout.sweep_lease();
        if !tier
            .disk
            .run(move || lease::renew(&path, &record, lease_max(0)))
            .await?
        {
            return Ok(());
        }
    }
    for path in leftovers.iter().filter(|path| suspects.contains(*path)) {
        let path = path.clone();
        tier.disk
            .run(move || optional(std::fs::remove_file(path)))
            .await?;
        add(&tier.disk.counters.swept, 1);
    }
    *suspects = leftovers;
    make_room(tier, copies).await
}

/// Unlinks copies used longest ago while all of them take more than the budget.
async fn make_room(tier: &Inner, mut copies: Vec<Found>) -> Result<(), Fault> {
    let budget = tier.config.budget.0;
    let mut used: u64 = copies.iter().map(|copy| copy.bytes).sum();
    if budget == 0 || used <= budget {
        return Ok(());
    }
    copies.sort_unstable();
    for copy in copies {
        if used <= budget / 10 * ROOM_TENTHS {
            break;
        }
        let layout = tier.layout.clone();
        let unlink = move || {
            optional(std::fs::remove_file(layout.data(&copy.digest)))?;
            optional(std::fs::remove_file(layout.sum(&copy.digest)))
        };
        tier.disk.run(unlink).await?;
        tier.drop_copy(&copy.digest);
        used -= copy.bytes;
        add(&tier.disk.counters.evicted, 1);
        add(&tier.disk.counters.evicted_bytes, copy.bytes);
    }
    tier.disk.not_full();
    Ok(())
}

/// Lists one shard. Blocking; foreign files are left alone.
fn list(layout: &Layout, byte: u8) -> io::Result<Shard> {
    let mut shard = Shard::default();
    let directory = layout.shard(byte);
    let entries = optional(std::fs::read_dir(&directory))?;
    for entry in entries.into_iter().flatten() {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let (hex_digest, kind) = classify(name);
        match kind {
            Kind::Data => {
                let Some(digest) = parse(hex_digest) else {
                    continue;
                };
                let Some(data) = optional(std::fs::symlink_metadata(&path))? else {
                    continue;
                };
                let sum = optional(std::fs::symlink_metadata(layout.sum(&digest)))?;
                let used = sum.as_ref().and_then(|sum| sum.modified().ok());
                let blocks = data.blocks() + sum.map_or(0, |sum| sum.blocks());
                let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
                shard.copies.push(Found {
                    used,
                    digest,
                    bytes: blocks * 512,
                });
            }
            Kind::Part(owner) => {
                let lease = directory.join(format!("{hex_digest}.lease"));
                if holder(&lease)?.as_deref() != Some(owner.as_str()) {
                    shard.leftovers.push(path);
                }
            }
            Kind::Sum | Kind::Lease | Kind::Foreign => {}
        }
    }
    Ok(shard)
}

/// Owner of a lease of an object of unknown length, in hexadecimal.
fn holder(path: &std::path::Path) -> io::Result<Option<String>> {
    let Some(bytes) = optional(std::fs::read(path))? else {
        return Ok(None);
    };
    let count = bytes
        .get(12..16)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes);
    let record = count.and_then(|count| decode_lease(&bytes, count));
    Ok(record.map(|record| hex(&record.owner)))
}

fn parse(hex_digest: &str) -> Option<Digest> {
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex_digest.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(Digest(bytes))
}
