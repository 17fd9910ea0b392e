//! The cluster's shared copy of chosen objects, in a directory on a shared file system.
//!
//! [`WarmTier`] owns the directory; [`WarmSource`] puts it in front of another [`Source`]. A read
//! is served from a verified copy; else one daemon of the cluster fills the copy from the inner
//! source while its readers (and, through the published progress, readers on other nodes) get the
//! blocks as they come. So the inner source serves each byte about once per cluster.
//!
//! ```text
//! <dir>/objects/<xx>/<digest>                the bytes, from offset 0 and nothing else
//! <dir>/objects/<xx>/<digest>.sum            length, identity, checksum per block (see `format`)
//! <dir>/objects/<xx>/<digest>.lease          who fills it, heartbeat, finished blocks
//! <dir>/objects/<xx>/<digest>.<owner>.part   bytes on their way in
//! <dir>/quarantine/<digest>.<random>         copies that failed their checksum
//! <dir>/sweep.lease                          who makes room at the moment
//! ```
//! The checksums lie beside the data and not behind it, so that a copy's file has exactly the
//! object's length. Still the kernel never reads it for an application: its bytes are checked each
//! time, and its failures are misses (`docs/decisions/0025-warm-passthrough.md`).
//!
//! Publication: `.part` synced; `.sum` written, synced, renamed into place; `.part` renamed to
//! `<digest>`; directory synced; lease removed. A copy exists when both files do. All names follow
//! from the object's identity and all writers write the same bytes, so every step may be repeated
//! or raced by another node, and a lost lease is only wasted work.
//!
//! Leases: created with `O_EXCL`. The holder rewrites it with a larger heartbeat several times per
//! time to live. Whoever finds it watches that number on its *own* monotonic clock and removes the
//! lease when it stood still for a whole time to live. No clock is compared with another node's.
//!
//! The inner source is read for an object by the holder of its lease, to fill it, and by readers the
//! tier failed, which are counted by reason: the directory is down, too many other objects are on
//! their way in for too long, a block did not come in time, a file operation failed. Meeting a fill
//! at its first or last moment is none of these: directories are made by the first lease in them, and
//! a file that another node unlinks between two operations on it (a stale handle on a network file
//! system) was not there.
//!
//! Every file operation runs on a bounded pool with a deadline. Any failure (full, EIO, no
//! permission, a hang, a checksum) is a miss: the read goes on from the inner source at the exact
//! offset. A directory that keeps failing is left alone until a probe finds it working again.
//!
//! Lock order: the map of flights, then one flight's state, then the map of open copies; none is
//! held across `.await` or file I/O.
//!
//! [`Source`]: crate::Source

mod config;
mod copy;
mod disk;
mod drive;
mod fill;
mod flight;
mod follow;
mod format;
mod layout;
mod lease;
mod source;
mod stats;
mod sweep;
mod tier;

pub use config::WarmConfig;
pub use source::WarmSource;
pub use stats::WarmStats;
pub use tier::{WarmError, WarmTier};
