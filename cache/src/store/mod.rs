//! Stores: S3-compatible, HDFS, WebHDFS and directories behind one type.

mod error;

pub use error::{StoreError, StoreErrorKind};
