//! What the leader keeps as it should be: passes that compare what is with what is wanted.
//!
//! ```text
//! caches change, or the catalog, or time passes
//!   -> pass: wanted - actual = changes, each a request that can be made twice
//!   -> nothing is remembered that the next pass could not find again
//! ```
//!
//! A pass works on what is there now and not on events, so nothing is queued, an event that is lost,
//! doubled or late changes nothing, and a controller that is killed anywhere goes on with the next pass of
//! the next one. A pass that fails is made again after a growing pause; the others go on.

mod datasets;
mod scratch;
mod status;
mod taints;
mod view;
mod volumes;
mod warm;

use std::fmt::Display;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use datasets::DatasetKeeper;
pub(crate) use scratch::ScratchKeeper;
pub use scratch::ScratchPolicy;
pub(crate) use taints::TaintKeeper;
pub(crate) use view::{CatalogView, View};
pub(crate) use volumes::VolumeKeeper;
pub(crate) use warm::WarmKeeper;

use super::api::KubeError;
use super::catalog::CatalogFault;
use super::pause::Pause;
use crate::metrics::ControllerNumbers;

/// Shortest time between two passes: what changes together is looked at together.
const GATHER: Duration = Duration::from_millis(200);

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Kube(#[from] KubeError),
    #[error(transparent)]
    Catalog(#[from] CatalogFault),
}

/// One thing that is kept as it should be.
pub(crate) trait Keeper: Send {
    /// For the log and the numbers.
    const NAME: &'static str;

    /// A pass is made at least this often.
    const EVERY: Duration;

    /// Makes one pass. What concerns one object is logged and does not end the pass; an error means that
    /// nobody answers. May be dropped at every await.
    fn pass(&mut self) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// Makes passes until `stop`: when one of the `wakers` counts up, and every [`Keeper::EVERY`].
pub(crate) async fn keep<K: Keeper>(
    mut keeper: K,
    mut wakers: [watch::Receiver<u64>; 2],
    numbers: ControllerNumbers,
    stop: CancellationToken,
) {
    let mut pause = Pause::default();
    loop {
        // Marked first: what changes during the pass leads to another one.
        wakers.iter_mut().for_each(|waker| {
            waker.mark_unchanged();
        });
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = keeper.pass() => outcome,
        };
        numbers.passed(K::NAME, outcome.is_ok());
        let next = async {
            match outcome {
                Err(error) => {
                    tracing::warn!(what = K::NAME, %error, "tried again after a pause");
                    pause.wait().await;
                }
                Ok(()) => {
                    pause.reset();
                    let [first, second] = &mut wakers;
                    tokio::select! {
                        () = tokio::time::sleep(K::EVERY) => {}
                        _ = first.changed() => {}
                        _ = second.changed() => {}
                    }
                    tokio::time::sleep(GATHER).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = next => {}
        }
    }
}

/// Lets a pass go on when one object is refused, and ends it when nobody answers.
pub(crate) fn only<T>(
    what: impl Display,
    outcome: Result<T, KubeError>,
) -> Result<Option<T>, KubeError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error @ KubeError::Refused { status, .. }) if status < 500 && status != 401 => {
            tracing::warn!(%what, %error, "left as it is");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
