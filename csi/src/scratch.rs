//! Scratch volumes: directories of one node with limits that hold, made on demand and removed with
//! everything in them.
//!
//! ```text
//! create   record "making" -> number -> making/<hash> + limit -> rename to volumes/ -> "ready"
//! delete   record "deleting" -> rename to trash/ -> (answer) -> files -> limit -> number -> record
//! expand   record with the new size -> limit
//! ```
//!
//! Every step may be the last one before a kill: the record says what was begun, and the same call,
//! or the sweep of the next start, ends it. What was answered is never undone; what was not answered
//! is removed. A directory without a record is left alone: no file of a user is removed because a
//! record is missing.
//!
//! Lock order: the volume's (or snapshot's) lock, then the source's of a copy (tried, never waited
//! for), then the shared one, under which room and numbers are given out (`locks.rs`). All calls
//! block; none holds the shared lock while it copies or removes files.

mod accounting;
mod backend;
mod base;
mod btrfs;
mod caps;
pub(crate) mod copy;
mod describe;
mod error;
mod extents;
pub(crate) mod ids;
mod image;
pub(crate) mod locks;
mod loops;
mod project;
pub(crate) mod quotactl;
mod request;
mod room;
mod snapshots;
mod store;
mod sweep;
pub(crate) mod tree;

pub use backend::{QuotaKind, QuotaKindError, Usage};
pub use base::Expected;
pub use caps::{CapError, IoCaps, IoControl};
pub use error::ScratchError;
pub use ids::PRIVATE_IDS;
pub use image::ImageFormat;
pub use request::NewVolume;
pub use room::Summary;
pub use store::{Scratch, ScratchConfig};
pub use sweep::Swept;
pub(crate) use tree::open_below;
