//! Bytes that are handed out only after the pin was checked again.
//!
//! HDFS has no conditional read: a file can be replaced while a range of it is on its way. So the
//! pieces are held back until [`WINDOW`] bytes (or the end of the range) have come, the version is
//! compared with the pin, and only then do they go on. The transfer does not pause meanwhile; a
//! reader holds at most one window.

use std::collections::VecDeque;
use std::future::Future;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use super::backend::Body;
use super::failure::Failure;

/// Bytes held back at most, plus one piece.
pub(super) const WINDOW: usize = 4 << 20;

struct Held<C> {
    body: Body,
    check: C,
    waiting: VecDeque<Bytes>,
    confirmed: VecDeque<Bytes>,
    end: bool,
}

/// Passes on the pieces of `body` in windows, each after `check` has succeeded.
pub(super) fn confirmed<C, F>(body: Body, check: C) -> Body
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = Result<(), Failure>> + Send,
{
    let held = Held {
        body,
        check,
        waiting: VecDeque::new(),
        confirmed: VecDeque::new(),
        end: false,
    };
    stream::try_unfold(held, |mut held| async move {
        loop {
            if let Some(piece) = held.confirmed.pop_front() {
                return Ok(Some((piece, held)));
            }
            if held.end {
                return Ok(None);
            }
            let mut size = 0;
            while size < WINDOW && !held.end {
                match held.body.next().await.transpose()? {
                    Some(piece) => {
                        size += piece.len();
                        held.waiting.push_back(piece);
                    }
                    None => held.end = true,
                }
            }
            (held.check)().await?;
            held.confirmed.append(&mut held.waiting);
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    // Without it bytes of a file replaced during the transfer would reach the reader.
    #[tokio::test]
    async fn nothing_passes_before_its_check() {
        let piece = Bytes::from(vec![1_u8; 1 << 20]);
        let pieces: Vec<_> = (0..10).map(|_| Ok(piece.clone())).collect();
        let checks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&checks);
        let check = move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    0 | 1 => Ok(()),
                    _ => Err(Failure::changed("replaced")),
                }
            }
        };
        let got: Vec<_> = confirmed(stream::iter(pieces).boxed(), check)
            .collect()
            .await;
        assert_eq!(got.iter().filter(|piece| piece.is_ok()).count(), 8);
        assert!(got.last().is_some_and(Result::is_err));
        assert_eq!(checks.load(Ordering::Relaxed), 3);
    }
}
