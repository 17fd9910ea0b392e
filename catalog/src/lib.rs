//! Names of datasets, their versions, and what is in them.
//!
//! This crate owns what a dataset is called, which version a name means and which files a version has.
//! It knows no bytes of them: files are read by `terrace-cache`, which knows nothing of this crate.
//! The parts and their borders are in `docs/decisions/0007-catalog-seams.md`.
//!
//! ```
//! use terrace_catalog::{Selector, VersionRef};
//!
//! let selector: Selector = "ads.clicks@v12".parse()?;
//! assert_eq!(selector.dataset().table(), "clicks");
//! assert_eq!(*selector.version(), VersionRef::Number(12));
//! # Ok::<(), terrace_catalog::NameError>(())
//! ```

pub mod access;
pub mod blobs;
mod calendar;
pub mod collect;
pub mod descriptor;
mod digest;
pub mod discovery;
pub mod iceberg;
pub mod kv;
pub mod ledger;
pub mod manifest;
mod name;
pub mod nodes;
pub mod rest;
pub mod roots;
pub mod saves;
pub mod schema;
pub mod scrub;
mod selector;
mod stream;
pub mod tls;
pub mod upkeep;
pub mod upstream;
pub mod vault;

pub use name::{DatasetName, NameError};
pub use selector::{Selector, TagName, VersionRef};
