//! Bytes that are handed out only after the pin was checked again.
//!
//! HDFS has no conditional read: a file can be replaced while a range of it is on its way. So the
//! pieces are held back until [`WINDOW`] bytes (or the end of the range) have come, the version is
//! compared with the pin, and only then do they go on. The next window fills while the one before it
//! is being checked, so the transfer does not pause; a reader holds at most two windows.
//!
//! ```text
//! body -> filling --(full or end)--> checking --(pin confirmed)--> confirmed -> reader
//! ```

use std::collections::VecDeque;
use std::future::Future;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use futures::stream;
use futures::{FutureExt as _, StreamExt as _};

use super::backend::Body;
use super::failure::Failure;

/// Bytes of a window, at least; the piece that fills it may be larger.
pub(super) const WINDOW: usize = 4 << 20;

type Check = BoxFuture<'static, Result<(), Failure>>;

struct Held<C> {
    body: Body,
    check: C,
    filling: Vec<Bytes>,
    size: usize,
    checking: Option<(Check, Vec<Bytes>)>,
    confirmed: VecDeque<Bytes>,
    end: bool,
}

/// Passes on the pieces of `body` in windows, each after a `check` that began when it was complete.
/// A failure of body or check ends the stream; what was not confirmed by then is dropped.
pub(super) fn confirmed<C, F>(body: Body, check: C) -> Body
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let held = Held {
        body,
        check,
        filling: Vec::new(),
        size: 0,
        checking: None,
        confirmed: VecDeque::new(),
        end: false,
    };
    stream::try_unfold(held, |mut held| async move {
        loop {
            if let Some(piece) = held.confirmed.pop_front() {
                return Ok(Some((piece, held)));
            }
            if held.end && held.checking.is_none() && held.filling.is_empty() {
                return Ok(None);
            }
            held.step().await?;
        }
    })
    .boxed()
}

impl<C, F> Held<C>
where
    C: Fn() -> F,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    /// One piece more, or one check done.
    async fn step(&mut self) -> Result<(), Failure> {
        let full = self.size >= WINDOW || (self.end && !self.filling.is_empty());
        if full && self.checking.is_none() {
            let window = std::mem::take(&mut self.filling);
            self.size = 0;
            self.checking = Some(((self.check)().boxed(), window));
        }
        let fills = !self.end && self.size < WINDOW;
        let Some((check, _)) = self.checking.as_mut() else {
            let piece = self.body.next().await;
            return self.fill(piece);
        };
        if fills {
            match select(check, self.body.next()).await {
                Either::Left((checked, _)) => checked?,
                Either::Right((piece, _)) => return self.fill(piece),
            }
        } else {
            check.await?;
        }
        if let Some((_, window)) = self.checking.take() {
            self.confirmed.extend(window);
        }
        Ok(())
    }

    fn fill(&mut self, piece: Option<Result<Bytes, Failure>>) -> Result<(), Failure> {
        match piece.transpose()? {
            Some(piece) => {
                self.size += piece.len();
                self.filling.push(piece);
            }
            None => self.end = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MIB: usize = 1 << 20;

    fn body(pieces: usize) -> Body {
        let piece = Bytes::from(vec![1_u8; MIB]);
        stream::iter((0..pieces).map(move |_| Ok(piece.clone()))).boxed()
    }

    /// Succeeds `good` times, then says that the file changed.
    fn checks(good: usize) -> (Arc<AtomicUsize>, impl Fn() -> Check + Send + 'static) {
        let done = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&done);
        let check = move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::task::yield_now().await;
                if number < good {
                    Ok(())
                } else {
                    Err(Failure::changed("replaced"))
                }
            }
            .boxed()
        };
        (done, check)
    }

    // Without it bytes of a file replaced during the transfer would reach the reader.
    #[tokio::test]
    async fn nothing_passes_before_its_check() {
        for (pieces, good, passed, asked) in [
            (10, 9, 10, 3),
            (10, 2, 8, 3),
            (10, 0, 0, 1),
            (8, 9, 8, 2),
            (1, 0, 0, 1),
        ] {
            let (done, check) = checks(good);
            let got: Vec<_> = confirmed(body(pieces), check).collect().await;
            let whole = got.iter().filter(|piece| piece.is_ok()).count();
            assert_eq!(whole, passed, "{pieces} {good}");
            assert_eq!(done.load(Ordering::Relaxed), asked, "{pieces} {good}");
            assert_eq!(got.last().unwrap().is_err(), passed < pieces);
        }
    }

    // Without it a body that breaks off would look complete, or its unchecked bytes pass.
    #[tokio::test]
    async fn a_broken_body_ends_with_its_failure() {
        let broken = body(6)
            .chain(stream::iter([Err(Failure::unreachable("cut"))]))
            .boxed();
        let (_, check) = checks(9);
        let got: Vec<_> = confirmed(broken, check).collect().await;
        let whole = got.iter().filter(|piece| piece.is_ok()).count();
        assert!(whole <= 4 && got.last().unwrap().is_err(), "{whole}");
    }
}
