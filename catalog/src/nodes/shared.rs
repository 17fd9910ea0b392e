//! What nodes said, shared by the catalogs of one database: any of them answers for all nodes.
//!
//! ```text
//! "wr/" replica "/" page   BeatRecord   nodes that report to a catalog: when each spoke, and which report holds
//! "wn/" node               SaidRecord   what the node said
//! ```
//!
//! A node that says the same as before costs no write of its own: that it spoke stands in the beat of its
//! catalog, one transaction every [`BEAT_MS`] for all nodes. What a node said is written when it changed, at
//! most every [`SAID_MS`], and before the beat that tells of it. A catalog reads the beats of the others at
//! most every [`READ_MS`], before it answers, and of the reports only those it does not know. Both expire:
//! the catalog whose node it was removes them when the node is forgotten, any catalog those of one that is
//! gone. Nothing of this is needed to be right: what is lost is said again by the next reports.
//!
//! Only where the database is one that several catalogs share ([`Kv::is_shared`]); an embedded one is not
//! written to. The lock is held for no I/O.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::presence::{GONE_MS, MAX_NODES, Own, Presence};
use super::record::{decode, encode};
use crate::kv::{KeyRange, Kv, KvError, MAX_OPS, MAX_PAGE, Txn};
use said::{decode_said, encode_said};

const BEATS: &[u8] = b"wr/";
const REPORTS: &[u8] = b"wn/";

/// Time between two beats: a fraction of that for which a node is fresh.
const BEAT_MS: i64 = 5_000;
/// A node that is new, or says something new, is told of sooner.
const NEWS_MS: i64 = 1_000;
/// What a node says is written so often at most.
const SAID_MS: i64 = 10_000;
/// How long what others wrote is believed.
const READ_MS: i64 = 1_000;
/// Nodes of one page of a beat: with the longest names half of the largest value.
const PAGE: usize = 512;
/// Reports that are read at a time.
const REPORTS_AT_ONCE: usize = 32;
/// Pages of beats that are read: those of many catalogs.
const MAX_PAGES: usize = 256;

/// The nodes of a catalog.
#[derive(Debug, Serialize, Deserialize)]
struct BeatRecord {
    at_ms: i64,
    /// When each spoke, and when it said what its report holds.
    nodes: BTreeMap<String, (i64, i64)>,
}

/// When what was done last.
#[derive(Debug, Default)]
struct Times {
    read_ms: i64,
    beat_ms: i64,
    /// Something was written that no beat has told of.
    has_news: bool,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Shared {
    kv: std::sync::Arc<dyn Kv>,
    replica: String,
    times: Mutex<Times>,
}

impl Shared {
    /// Over the catalog's own store.
    pub(super) fn new(kv: std::sync::Arc<dyn Kv>) -> Self {
        Self {
            kv,
            replica: format!("{:016x}", rand::random::<u64>()),
            times: Mutex::default(),
        }
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what a node has said, as far as others have to know.
    pub(super) async fn tell(
        &self,
        presence: &Presence,
        node: &NodeName,
        now_ms: i64,
    ) -> Result<(), KvError> {
        if !self.kv.is_shared() {
            return Ok(());
        }
        if let Some((said_ms, heard)) = presence.untold(node, now_ms - SAID_MS) {
            let txn = Txn::new().put(report_key(node), encode_said(&heard)?);
            self.kv.txn(txn).await?;
            presence.told(node, said_ms, now_ms);
            self.times().has_news = true;
        }
        let is_due = {
            let mut times = self.times();
            let pause = if times.has_news { NEWS_MS } else { BEAT_MS };
            let is_due = now_ms - times.beat_ms >= pause;
            if is_due {
                (times.beat_ms, times.has_news) = (now_ms, false);
            }
            is_due
        };
        match is_due {
            true => self.beat(presence.own(now_ms), now_ms).await,
            false => Ok(()),
        }
    }

    async fn beat(&self, own: Vec<Own>, now_ms: i64) -> Result<(), KvError> {
        let mut txn = Txn::new();
        let mut pages = own.chunks(PAGE);
        for page in 0..MAX_NODES.div_ceil(PAGE) {
            let nodes = pages.next().unwrap_or_default().iter();
            let nodes: BTreeMap<_, _> = nodes
                .map(|own| (own.name.to_string(), (own.seen_ms, own.said_ms)))
                .collect();
            let key = self.beat_key(page);
            txn = match nodes.is_empty() {
                true => txn.delete(key),
                false => {
                    let at_ms = now_ms;
                    txn.put(key, encode(&BeatRecord { at_ms, nodes })?)
                }
            };
        }
        self.kv.txn(txn).await.map(drop)
    }

    /// Learns what others wrote, unless it did a moment ago.
    pub(super) async fn read(&self, presence: &Presence, now_ms: i64) -> Result<(), KvError> {
        if !self.kv.is_shared() {
            return Ok(());
        }
        {
            let mut times = self.times();
            if (0..READ_MS).contains(&(now_ms - times.read_ms)) {
                return Ok(());
            }
            times.read_ms = now_ms;
        }
        let mut unknown = Vec::new();
        for (_, beat) in self.beats().await? {
            if now_ms - beat.at_ms > GONE_MS {
                continue;
            }
            for (name, (seen_ms, said_ms)) in beat.nodes {
                let Ok(name) = name.parse::<NodeName>() else {
                    continue;
                };
                let own = Own {
                    name,
                    seen_ms,
                    said_ms,
                };
                if !presence.seen(&own, now_ms) {
                    unknown.push(own);
                }
            }
        }
        for some in unknown.chunks(REPORTS_AT_ONCE) {
            let keys: Vec<Bytes> = some.iter().map(|own| report_key(&own.name)).collect();
            for (own, stored) in some.iter().zip(self.kv.get_many(&keys).await?) {
                let Some(stored) = stored else { continue };
                match decode_said(&stored.value) {
                    Ok(heard) => presence.learn(own, heard, now_ms),
                    Err(error) => {
                        tracing::warn!(%error, node = %own.name, "a report is not understood");
                    }
                }
            }
        }
        Ok(())
    }

    /// The pages of all catalogs but this one.
    async fn beats(&self) -> Result<Vec<(Bytes, BeatRecord)>, KvError> {
        let own = [BEATS, self.replica.as_bytes()].concat();
        let found = self.kv.scan(KeyRange::prefix(BEATS), MAX_PAGES).await?;
        let others = found.into_iter().filter(|(key, _)| !key.starts_with(&own));
        others
            .map(|(key, stored)| Ok((key, decode(&stored.value)?)))
            .collect()
    }

    /// Removes what nobody will ask for any more.
    pub(super) async fn tidy(&self, presence: &Presence, now_ms: i64) -> Result<(), KvError> {
        if !self.kv.is_shared() {
            return Ok(());
        }
        let mut gone = Vec::new();
        let mut forgotten = presence.forget(now_ms);
        for (key, beat) in self.beats().await? {
            let lives = |name: &NodeName| presence.knows(name);
            if now_ms - beat.at_ms > GONE_MS {
                let names = beat.nodes.keys().filter_map(|name| name.parse().ok());
                forgotten.extend(names.filter(|name| !lives(name)));
                gone.push(key);
            } else {
                // They report to another catalog by now.
                forgotten.retain(|name| !beat.nodes.contains_key(name.as_str()));
            }
        }
        gone.extend(forgotten.iter().map(report_key));
        for some in gone.chunks(MAX_OPS) {
            let txn = some.iter().cloned().fold(Txn::new(), Txn::delete);
            self.kv.txn(txn).await?;
        }
        Ok(())
    }

    fn beat_key(&self, page: usize) -> Bytes {
        let name = format!("{}/{page}", self.replica);
        [BEATS, name.as_bytes()].concat().into()
    }
}

fn report_key(node: &NodeName) -> Bytes {
    [REPORTS, node.as_str().as_bytes()].concat().into()
}

/// Fewer pages than one scan brings.
const _: () = assert!(MAX_PAGES <= MAX_PAGE);

mod said;
#[cfg(test)]
mod tests;
