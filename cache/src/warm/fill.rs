//! Filling one object as the holder of its lease.
//!
//! Three things run side by side in one task: parts are fetched, handed to readers and written;
//! what was written is synced, so that the progress published is visible elsewhere; and the lease
//! is renewed. The first to fail or to lose the lease ends all three.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::sleep;

use super::disk::{Fault, SYNC_DEADLINES};
use super::flight::Flight;
use super::format::{LeaseRecord, Owner, block_len, encode_sum, lease_max};
use super::layout::Layout;
use super::lease;
use super::stats::add;
use super::tier::Inner;
use crate::hot::BLOCK;
use crate::identity::ObjectId;
use crate::source::Source;

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FillEnd {
    Published,
    /// Another node took the lease.
    Lost,
    Failed,
}

/// A fill under way.
pub(super) struct Fill<'a> {
    pub(super) tier: &'a Inner,
    pub(super) flight: &'a Flight,
    pub(super) source: &'a dyn Source,
    pub(super) owner: Owner,
}

impl Fill<'_> {
    /// Fills and publishes; the temporary file is gone afterwards in any case, the lease is the
    /// caller's.
    pub(super) async fn run(&self) -> FillEnd {
        let end = match self.create().await {
            Ok(file) => {
                self.flight.begin(Some(Arc::clone(&file)), false);
                let synced = Mutex::new(vec![None; self.flight.blocks() as usize]);
                tokio::select! {
                    end = self.fetch_all(&file) => end,
                    end = self.beat(&synced) => end,
                    end = self.sync(&file, &synced) => end,
                }
            }
            Err(_) => FillEnd::Failed,
        };
        let counters = &self.tier.disk.counters;
        match end {
            FillEnd::Published => add(&counters.fills, 1),
            FillEnd::Lost => add(&counters.leases_lost, 1),
            FillEnd::Failed => add(&counters.fills_failed, 1),
        }
        if end != FillEnd::Published {
            self.flight.begin(None, false);
            let part = self.tier.layout.part(&self.flight.digest, &self.owner);
            let _ = self.tier.disk.run(move || std::fs::remove_file(part)).await;
        }
        end
    }

    async fn create(&self) -> Result<Arc<File>, Fault> {
        let path = self.tier.layout.part(&self.flight.digest, &self.owner);
        let open = move || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o644);
            options.open(path).map(Arc::new)
        };
        self.tier.disk.run(open).await
    }

    async fn fetch_all(&self, file: &Arc<File>) -> FillEnd {
        let part_blocks = (self.tier.config.part.0 / BLOCK).max(1) as u32;
        let count = self.flight.blocks().div_ceil(part_blocks) as usize;
        let mut taken = vec![false; count];
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.tier.config.parts_per_object {
                match self.flight.next_part(&mut taken, part_blocks) {
                    Some(part) => running.push(self.fetch(file, part)),
                    None => break,
                }
            }
            match running.next().await {
                Some(Ok(())) => {}
                Some(Err(())) => return FillEnd::Failed,
                None => break,
            }
        }
        self.publish(file).await
    }

    /// Fetches one part and writes it. Errors of the source are the reader's to find out itself.
    async fn fetch(&self, file: &Arc<File>, part: Range<u32>) -> Result<(), ()> {
        let length = self.flight.object.size();
        let begin = u64::from(part.start) * BLOCK;
        let end = (u64::from(part.end) * BLOCK).min(length);
        let _permit = self.tier.in_flight(end - begin).await;
        let mut stream = self
            .source
            .read(&self.flight.object, begin..end)
            .await
            .map_err(|_| ())?;
        let mut index = part.start;
        let mut block = BytesMut::with_capacity(block_len(length, index));
        while let Some(piece) = stream.next().await {
            let mut piece: Bytes = piece.map_err(|_| ())?;
            while !piece.is_empty() {
                let room = block_len(length, index) - block.len();
                block.extend_from_slice(&piece.split_to(room.min(piece.len())));
                if block.len() == block_len(length, index) {
                    self.store(file, index, block.split().freeze())
                        .await
                        .map_err(|_| ())?;
                    index += 1;
                    if index == part.end && !piece.is_empty() {
                        return Err(());
                    }
                }
            }
        }
        if index == part.end { Ok(()) } else { Err(()) }
    }

    async fn store(&self, file: &Arc<File>, index: u32, bytes: Bytes) -> Result<(), Fault> {
        add(&self.tier.disk.counters.fill_bytes, bytes.len() as u64);
        self.flight.arrived(index, bytes.clone());
        self.tier.spend(bytes.len() as u64).await;
        let file = Arc::clone(file);
        let write = move || {
            let sum = crc32c::crc32c(&bytes);
            file.write_all_at(&bytes, u64::from(index) * BLOCK)?;
            Ok(sum)
        };
        let sum = self.tier.disk.run(write).await?;
        self.flight.written(index, sum);
        Ok(())
    }

    /// Renews the lease until it is lost.
    async fn beat(&self, synced: &Mutex<Vec<Option<u32>>>) -> FillEnd {
        let path = self.tier.layout.lease(&self.flight.digest);
        let limit = lease_max(self.flight.object.size());
        let mut heartbeat = 1;
        loop {
            sleep(self.tier.beat()).await;
            let finished = synced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let record = LeaseRecord {
                owner: self.owner,
                heartbeat,
                finished,
            };
            let path = path.clone();
            let renewed = self
                .tier
                .disk
                .run(move || lease::renew(&path, &record, limit))
                .await;
            match renewed {
                Ok(true) => heartbeat += 1,
                Ok(false) => return FillEnd::Lost,
                // Others will see the silence; whether to go on is for the writes to find out.
                Err(_) => {}
            }
        }
    }

    /// Syncs what was written, so that its progress may be published.
    async fn sync(&self, file: &Arc<File>, synced: &Mutex<Vec<Option<u32>>>) -> FillEnd {
        loop {
            sleep(self.tier.beat()).await;
            let finished = self.flight.finished();
            let known = synced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if finished == known {
                continue;
            }
            let file = Arc::clone(file);
            let done = self
                .tier
                .disk
                .run_within(SYNC_DEADLINES, move || file.sync_data())
                .await;
            if done.is_err() {
                return FillEnd::Failed;
            }
            *synced.lock().unwrap_or_else(PoisonError::into_inner) = finished;
        }
    }

    async fn publish(&self, file: &Arc<File>) -> FillEnd {
        let finished: Option<Vec<u32>> = self.flight.finished().into_iter().collect();
        let Some(table) = finished else {
            return FillEnd::Failed;
        };
        let (layout, object) = (self.tier.layout.clone(), self.flight.object.clone());
        let (file, owner) = (Arc::clone(file), self.owner);
        let publish = move || publish(&layout, &object, &file, &table, &owner);
        match self.tier.disk.run_within(SYNC_DEADLINES, publish).await {
            Ok(()) => FillEnd::Published,
            Err(_) => FillEnd::Failed,
        }
    }
}

/// Makes a finished temporary file the copy. See the module text of [`super`] for the order.
fn publish(
    layout: &Layout,
    object: &ObjectId,
    file: &File,
    table: &[u32],
    owner: &Owner,
) -> io::Result<()> {
    let digest = object.digest();
    file.sync_all()?;
    let sum_part = layout.sum_part(&digest, owner);
    let sum = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&sum_part)?;
    sum.write_all_at(&encode_sum(object, table), 0)?;
    sum.sync_all()?;
    std::fs::rename(&sum_part, layout.sum(&digest))?;
    std::fs::rename(layout.part(&digest, owner), layout.data(&digest))?;
    File::open(layout.shard(digest.0[0]))?.sync_all()
}
