//! Bytes of immutable objects, from the store up to the node's SSD.
//!
//! The crate owns: how an object is identified ([`ObjectId`]), how it is read from a store
//! ([`store`]), how it rests on the node ([`hot`]) and on the cluster's shared file system
//! ([`warm`]), how missing bytes come in ([`fill`]) and which go out ([`policy`]).
//! It refuses: names of datasets, directories, FUSE, the environment, printing, globals.
//!
//! Data flows one way: `Object` (what a file system reads) -> `fill` -> `Source` (warm tier over the
//! store, or the store alone). A tier may forget; the store may not. An error of a tier is a miss;
//! an error of the store is an error.
//!
//! Lock order (a thread that holds one may only take those to its right):
//! `fill::Object` state -> `hot` object state -> `hot` space ledger -> `policy`. None is held
//! across `.await` or across file I/O that can hang.

mod buffers;
pub mod fill;
pub mod hot;
pub mod identity;
pub mod policy;
pub mod source;
pub mod store;
pub mod units;
pub mod warm;

pub use identity::{DatasetKey, Digest, ObjectId, Token, Version};
pub use source::{ByteStream, Source};
