//! One suite for every key-value store: what `kv` promises, on RocksDB and on a real PostgreSQL.
//!
//! A store is done when it passes all of `suite.rs`, the histories of `linear.rs` and its own file
//! here. PostgreSQL is found through `TERRACE_TEST_POSTGRES` (see `tests/servers`); without it its
//! half is one counted SKIP line for each test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod linear;
mod postgres;
mod rocks;
mod suite;

use std::sync::Arc;

use terrace_catalog::kv::Kv;

/// A fresh store, and what belongs to it.
struct Fixture {
    kv: Arc<dyn Kv>,
    /// The same store as another replica sees it; the same object where there is only one.
    other: Arc<dyn Kv>,
    _directory: Option<tempfile::TempDir>,
}

/// Runs one test of the suite on both stores.
macro_rules! on_every_store {
    ($($(#[doc = $why:literal])* $name:ident)*) => {
        mod on_rocks {
            $($(#[doc = $why])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { crate::suite::$name(crate::rocks::fixture().await).await; })*
        }
        mod on_postgres {
            $($(#[doc = $why])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(fixture) = crate::postgres::fixture(stringify!($name)).await {
                    crate::suite::$name(fixture).await;
                }
            })*
        }
    };
}

on_every_store! {
    /// Half a transaction would be a version without its files.
    transactions_are_all_or_nothing
    /// A compare that does not look would let two committers overwrite each other.
    compares_compare
    /// A page that loses a key hides a dataset.
    pages_are_ordered_and_complete
    /// A limit that holds on one store only is found out in production.
    limits_are_refused
    /// Events that appear behind a reader are missed for ever.
    appended_keys_are_never_missed
    /// Two committers of one version.
    histories_are_linearizable
    /// A watcher that is not woken looks at yesterday.
    a_watch_wakes_after_every_change
    /// A backup of two moments restores a catalog that never was.
    a_backup_is_one_moment_and_restores
    /// Half a backup must not pass for a whole one.
    damaged_backups_are_refused
}
