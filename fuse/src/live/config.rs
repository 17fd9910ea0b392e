//! Settings and parts of a live mount.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::lister::Lister;
use crate::ownership::Ownership;

/// Settings of a live mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveConfig {
    /// How old an answer about names may be when an application gets it. Half of it is granted to
    /// the kernel, half to the daemon's memory. Default: 1 s.
    pub metadata_ttl: Duration,
    /// The same for "no such name". Default: 1 s.
    pub negative_ttl: Duration,
    /// Single names kept in memory, about 150 bytes each. Default: 65,536.
    pub names: usize,
    /// Entries of listings kept in memory, about 60 bytes each. Default: 400,000.
    pub listed: u64,
    /// Above this many inode numbers a fresh mount starts with an empty table (numbers are never
    /// used again); about 250 bytes of disk each. Default: 50,000,000.
    pub inodes: u64,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            metadata_ttl: Duration::from_secs(1),
            negative_ttl: Duration::from_secs(1),
            names: 65_536,
            listed: 400_000,
            inodes: 50_000_000,
        }
    }
}

/// Who still knows inode numbers of a mount when its name space is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nobody: the mount is new. The table may be emptied when it is over its limit.
    Mount,
    /// The kernel: a worker takes the mount over from a dead one. Nothing is forgotten.
    TakeOver,
}

/// What a live mount is made of.
#[derive(Debug)]
pub struct LiveParts<'a> {
    /// The metadata side of the store.
    pub lister: Arc<dyn Lister>,
    /// Key prefix that is the mount's root, without slashes at the ends; empty for the whole store.
    pub prefix: &'a str,
    /// Directory of the inode table; belongs to this mount alone, kept between mounts.
    pub table: &'a Path,
    /// New mount or take-over.
    pub opening: Opening,
    /// Settings.
    pub config: LiveConfig,
    /// Owner and modes that entries show.
    pub ownership: Ownership,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}
