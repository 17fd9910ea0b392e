//! The name space of a catalog: every table as a directory, every version under its own name.
//!
//! ```text
//! /<ns>/<table>/...           the newest version      resolved when looked up, believed for a second
//! /<ns>/<table>@v12/...       that version; also @tag and @2026-11-20; found, not listed
//!     .terrace/               version.json, manifest, heat.json, usage; found, not listed
//!     .iceberg/               what SQL engines read beside the files ([`sql`]); found, not listed
//! /.hf/models--<ns>--<name>/  refs/<revision>, snapshots/<commit> -> a version; found, not listed
//! ```
//!
//! Each version is a [`Snapshot`]; this module is what lies above: names, and which inode number
//! means what ([`place`]). Invariants:
//!
//! - A directory of a version is an inode of that version. When a name moves on, the next lookup of it
//!   gets another inode, at once and whole; open files, running scans and working directories keep
//!   the version they began with.
//! - Every name has an inode of its own, also when two name the same version: a directory with two
//!   places in the tree would be moved back and forth by the kernel.
//! - What an inode number means is on disk before it is told ([`slots`]).
//! - A catalog that does not answer is never "no such table": what was seen keeps the version it had
//!   ([`reach`]), anything else is an error.
//!
//! Lock order: the slot file, then its state; all other locks are taken alone.
//!
//! [`Snapshot`]: crate::snapshot::Snapshot

mod about;
mod catalog;
mod file_list;
mod held;
mod hub;
mod listing;
mod lookup;
mod names;
mod place;
mod reach;
mod serve;
mod slot;
mod slots;
mod sql;
mod tree;
mod versions;

pub use self::catalog::{ManifestId, Report, TableVersion, Tables};
pub use self::serve::{STORE, TreeSource};
pub use self::slots::SlotsError;
pub use self::tree::{TableTree, TreeConfig, TreeParts, TreeStatus};
