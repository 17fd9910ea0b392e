//! The catalog's datasets as every replica sees them: listed again and again, kept in memory.
//!
//! The webhook answers from it, so a pod is admitted while the catalog is away; how old it may be is for
//! who asks to say. The one lock is held for the copy of a pointer.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use terrace_catalog::DatasetName;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kube::catalog::{Catalog, Listed};
use crate::kube::pause::Pause;

/// Listed at least this often, whatever the catalog's events say.
const EVERY: Duration = Duration::from_secs(15);

/// What was listed.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) datasets: BTreeMap<DatasetName, Listed>,
    pub(crate) taken: Instant,
}

/// See the module text. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CatalogView {
    current: Arc<RwLock<Option<Arc<View>>>>,
    changes: watch::Sender<u64>,
}

impl CatalogView {
    pub(crate) fn new() -> Self {
        Self {
            current: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// What was listed last; none before the first list.
    pub(crate) fn current(&self) -> Option<Arc<View>> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counted up with every list that differs from the one before.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Lists until `stop`.
    pub(crate) async fn follow(self, catalog: Arc<dyn Catalog>, stop: CancellationToken) {
        let mut pause = Pause::default();
        loop {
            let listed = tokio::select! {
                () = stop.cancelled() => return,
                listed = catalog.datasets() => listed,
            };
            let next = async {
                match listed {
                    Ok(listed) => {
                        self.take(listed);
                        pause.reset();
                        let changed = tokio::time::timeout(EVERY, catalog.changed());
                        // Either way it is time to look again.
                        let _ = changed.await;
                        tokio::time::sleep(super::GATHER).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the last list of datasets stays in use");
                        pause.wait().await;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = next => {}
            }
        }
    }

    fn take(&self, listed: Vec<Listed>) {
        let pairs = listed.into_iter().map(|one| (one.name.clone(), one));
        let view = Arc::new(View {
            datasets: pairs.collect(),
            taken: Instant::now(),
        });
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let differs = current
            .as_ref()
            .is_none_or(|old| old.datasets != view.datasets);
        *current = Some(view);
        drop(current);
        if differs {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}
