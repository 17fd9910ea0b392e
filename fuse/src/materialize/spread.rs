//! Pieces of work for several threads.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::MaterializeError;

/// Does `work` for each of `pieces` with so many threads, the calling one among them; the results in
/// no order. The first error stops all threads after the piece under way.
pub(super) fn spread<P: Sync, R: Send>(
    pieces: &[P],
    threads: NonZeroUsize,
    work: impl Fn(&P) -> Result<R, MaterializeError> + Sync,
) -> Result<Vec<R>, MaterializeError> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let some = || -> Result<Vec<R>, MaterializeError> {
        let mut done = Vec::new();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let one = work(piece);
            done.push(one.inspect_err(|_| stop.store(true, Ordering::Relaxed))?);
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let others = threads.get().min(pieces.len()).saturating_sub(1);
        let others: Vec<_> = (0..others).map(|_| scope.spawn(some)).collect();
        let mut all = some();
        for other in others {
            let more = other.join().map_err(|_| MaterializeError::Thread).flatten();
            all = all.and_then(|mut all| {
                all.extend(more?);
                Ok(all)
            });
        }
        all
    })
}
