//! How missing bytes come in: the engine between what a file system reads and where bytes are.
//!
//! A [`Cache`] knows one [`Object`] per digest while somebody holds it. A read looks, block by
//! block, into memory (blocks just fetched), then the hot tier, and asks the [`Source`] for what
//! is in neither. What the source answers goes to the waiting readers at once, from memory, and to
//! the hot tier after that.
//!
//! ```text
//!       read_now / read                                 fill / fill_in_background
//!              |                                                   |
//!  stream.rs: where is the reader, how far ahead?     job.rs: next absent part, N at once
//!              |                                                   |
//!              +-------> flights.rs, engine.rs: where is a block? <+
//!                           | claim (single flight)          ^ deliver, settle
//!                           v                                |
//!                  part.rs: one ranged read, cut into blocks of 1 MiB
//!  budget.rs (bytes in flight)   window.rs (recent blocks in memory)
//! ```
//!
//! Invariants:
//! - A block is asked from the source by one part at a time; every later reader of it waits for
//!   that part. A part is claimed only when it starts, so nobody waits for queued work.
//! - Memory is bounded: bytes in flight (from arrival until the hot tier has them) by
//!   [`CacheConfig::in_flight`], recent blocks by [`CacheConfig::window`], idle buffers by a
//!   constant. A part holds room only for the block that is arriving and those on their way to
//!   the disk, so a store that stalls leaves room for the others. Beside that the store holds what
//!   it receives, at most a block for each of its requests in flight.
//! - A failure of the hot tier turns a kept object into one served from memory; it never reaches a
//!   reader. A failure of the source reaches the readers of that range and nobody else, except
//!   `Changed`, which every later miss of the object answers at once.
//! - A task lives as long as its owner wants it: a read's part until its blocks are delivered,
//!   readahead until its [`ReadStream`] is dropped, a fill until nobody waits for it and, when in
//!   the background, until the last handle of the object is dropped. Readers that joined are
//!   served first. [`Cache::shutdown`] ends and awaits all.
//!
//! Lock order (a thread that holds one may only take those to its right): object map -> object
//! state -> stream position -> window -> buffer pool; object state -> hot object. None is held
//! across `.await` or file I/O.
//!
//! [`Source`]: crate::source::Source

mod budget;
mod cache;
mod config;
mod engine;
mod error;
mod flights;
mod job;
mod object;
mod part;
mod sniff;
mod stats;
mod stream;
mod whole;
mod window;

pub use cache::Cache;
pub use config::CacheConfig;
pub use error::ReadError;
pub use object::Object;
pub use stats::{CacheStats, TierStats};
pub use stream::ReadStream;
