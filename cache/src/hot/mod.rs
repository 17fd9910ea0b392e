//! The hot tier: complete and partial objects as files on the node's SSD.
//!
//! Owns the hot directory (`directory.rs` draws it), the index (`record.rs`), block checksums
//! (`blocks.rs`, `sidecar.rs`), space, and the verdict whether bytes may be used. It refuses: the
//! network, names of data sets beyond a grouping key, and guessing. It may forget anything at any
//! time; what it returns was checked against the checksum taken when the block came in.
//!
//! ## Life of an object
//! ```text
//!  absent -- first write --> partial -- last block --> filled -- group sync --> complete
//!    ^                         |                         |                         |
//!    +---- evict, discard -----+-------------------------+-------------------------+
//! ```
//! *Filled*: every block was checked by this process, or the fingerprint proves that nothing
//! changed since one did. A filled file is sealed: it may be somebody's passthrough backing, so it
//! is never written, truncated or punched again. A bad block found later moves the object to a new
//! file (incarnation); it is recorded at once and without a sync, which survives the death of the
//! process. *Complete*: synced, then recorded in the index with a synced write.
//!
//! ## What a restart believes
//! - A record whose own checksum fails, a data file that is missing or of another length, a sidecar
//!   that does not fit: the object is forgotten.
//! - A filled or complete object with an unchanged fingerprint of a trusted epoch (`record::Trust`):
//!   as is. Filled ones are synced before the directory is called clean (`adopt.rs`).
//! - Everything else: each block is read and checked before the first byte of it is used. So
//!   sidecars and partial records are written without ordering them after the data; checksums are
//!   the proof.
//! - A file without a record (killed before its checkpoint): a sweep unlinks it.
//!
//! ## Locks, in order
//! Object state -> catalogue -> policy; `round` -> `sidecars`, under which files are written. No file I/O that can hang happens under any of them, and
//! no object is dropped under the catalogue's lock (its last drop closes a file). The index and the
//! files are touched by the pool's threads, the sync thread and the scrub thread only.

mod adopt;
mod backing;
mod blocks;
mod catalogue;
mod closer;
mod codec;
mod commit;
mod config;
mod data;
mod directory;
mod error;
#[cfg(test)]
mod format_tests;
pub(crate) mod health;
mod index;
mod ledger;
mod link;
mod load;
mod object;
pub(crate) mod pool;
mod read;
mod record;
mod recover;
mod scrub;
mod shared;
mod sidecar;
mod space;
mod stats;
mod sys;
mod table;
mod tier;
mod watch;
mod write;

pub use backing::{Backing, Eviction};
pub use config::HotConfig;
pub use error::{HotError, HotErrorKind};
pub use health::DiskState;
pub use ledger::Reservation;
pub use link::{Found, Link, LinkAttributes, Linked, Linker};
pub use object::HotObject;
pub use scrub::ScrubReport;
pub use stats::{HotStats, HotUsage, Residency};
pub use tier::HotTier;
pub use write::WriteHint;

/// The unit of fill and checksum: 1 MiB. The last block of an object is short.
pub const BLOCK: u64 = 1 << 20;
