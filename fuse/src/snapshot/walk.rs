//! A snapshot of what is below a store prefix right now.
//!
//! Keys that no path can name are left out and counted, as a live mount hides them. The walk is not
//! atomic (no store offers that): each object is pinned at the version the listing showed.

use std::fmt::Debug;

use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use terrace_cache::store::{ObjectMeta, Store, StoreError};

use super::build::{BuildError, Builder, Entry, EntryKind, Surplus};
use crate::names::check_path;

/// A filled builder and what did not go into it.
#[derive(Debug)]
pub struct Walked {
    /// Ready for [`Builder::finish`].
    pub builder: Builder,
    /// Objects left out because their key cannot be a path.
    pub hidden: u64,
}

/// Why a store could not be walked into a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The set.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Lists every object below `prefix` (key prefix, no slashes at the ends). Cancelled by dropping;
/// `progress` gets the number of objects seen, about every thousand.
pub async fn from_store(
    store: &Store,
    prefix: &str,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Walked, WalkError> {
    collect(store.url().root(), prefix, store.walk(prefix), progress).await
}

/// The same over any stream of objects.
pub(crate) async fn collect(
    store: &str,
    prefix: &str,
    mut objects: BoxStream<'static, Result<ObjectMeta, StoreError>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Walked, WalkError> {
    let mut builder = Builder::new(store, prefix, Surplus::Hide);
    let (mut seen, mut hidden) = (0_u64, 0);
    while let Some(meta) = objects.try_next().await? {
        seen += 1;
        if seen.is_multiple_of(1000) {
            progress(seen);
        }
        let path = if prefix.is_empty() {
            Some(&*meta.key)
        } else {
            meta.key
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('/'))
        };
        match path {
            Some(path) if check_path(path).is_ok() => builder.push(&Entry {
                path,
                mode: None,
                kind: EntryKind::File(&meta.version),
            })?,
            // The marker object of a directory: the path exists because of what is below it.
            Some(path) if path.is_empty() || path.ends_with('/') => {}
            _ => hidden += 1,
        }
    }
    progress(seen);
    Ok(Walked { builder, hidden })
}
