//! Names of datasets and of their versions.
//!
//! This crate owns what a dataset is called and which version a name means. It knows no bytes: files
//! are read by `terrace-cache`, which knows nothing of this crate.
//!
//! ```
//! use terrace_catalog::{Selector, VersionRef};
//!
//! let selector: Selector = "ads.clicks@v12".parse()?;
//! assert_eq!(selector.dataset().table(), "clicks");
//! assert_eq!(*selector.version(), VersionRef::Number(12));
//! # Ok::<(), terrace_catalog::NameError>(())
//! ```

mod name;
mod selector;

pub use name::{DatasetName, NameError};
pub use selector::{Selector, TagName, VersionRef};
