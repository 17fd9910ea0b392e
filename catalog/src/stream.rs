//! Streams from bounded channels, as both stores make them.

use futures::Stream;
use futures::stream::unfold;
use tokio::sync::mpsc::Receiver;

/// What is received, until the sender is gone.
pub(crate) fn received<T>(receiver: Receiver<T>) -> impl Stream<Item = T> {
    unfold(receiver, |mut receiver| async move {
        let next = receiver.recv().await?;
        Some((next, receiver))
    })
}
