//! How the budget is divided between datasets, and how each one uses its share.
//!
//! Hull segments of all datasets are served steepest first until the budget is spent, so the last
//! byte given to any dataset earns the same as that given to any other. Space a dataset already
//! fills counts a quarter more than it earns: two datasets of equal worth do not take turns in
//! throwing each other out. Datasets nobody has re-opened yet come last, in turn of arrival.

use super::curve::Curve;

/// What residents count more than newcomers of the same worth.
const STICKINESS: f64 = 1.25;

/// Loss of hits, as a share of bytes, above which recency is given up for stability.
const LOSS_MAX: f64 = 0.03;

/// Part of a share in which newcomers prove themselves where recency rules (the small queue of
/// S3-FIFO).
const PROBATION: f64 = 0.1;

/// What one dataset asks for.
#[derive(Debug)]
pub(super) struct Claim {
    /// Known only once objects were opened again.
    pub(super) curve: Option<Curve>,
    /// Factor on the slopes, below 1 for a dataset that fell silent.
    pub(super) damping: f64,
    /// Bytes of distinct objects seen.
    pub(super) seen: f64,
    /// Bytes it fills now.
    pub(super) resident: f64,
    /// Nobody reads it any more: it gets nothing and keeps what nobody else wants.
    pub(super) abandoned: bool,
}

/// How a dataset treats newcomers when its share is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Every newcomer goes in, to the `window`; one that is opened again moves to `main`. What goes
    /// out is the oldest of the window or, when that is small, the least recently opened of `main`.
    Recency,
    /// Old residents stay. Most of the share is `main`; a newcomer goes to the small `window`
    /// where recency rules, or is not kept.
    Stable,
}

/// How a dataset may use the tier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    /// Bytes of long-time residents.
    pub(super) main: u64,
    /// Bytes of the recency window beside them.
    pub(super) window: u64,
    /// Own traffic after which a resident that was not opened is dead; 0 while unknown.
    pub(super) lifetime: u64,
}

impl Plan {
    /// Of a dataset not considered yet: it may use free space only.
    pub(super) const NEW: Self = Self {
        mode: Mode::Stable,
        main: 0,
        window: 0,
        lifetime: 0,
    };

    pub(super) fn share(&self) -> u64 {
        self.main + self.window
    }
}

struct Piece {
    claim: usize,
    proven: bool,
    worth: f64,
    bytes: f64,
}

/// Bytes for each claim; their sum is `limit` unless all are abandoned.
pub(super) fn divide(limit: f64, claims: &[Claim]) -> Vec<f64> {
    let mut pieces = Vec::new();
    for (index, claim) in claims
        .iter()
        .enumerate()
        .filter(|(_, claim)| !claim.abandoned)
    {
        push_pieces(&mut pieces, index, claim);
    }
    // Stable: equal worth goes by the order of the claims.
    pieces
        .sort_by(|a: &Piece, b: &Piece| b.proven.cmp(&a.proven).then(b.worth.total_cmp(&a.worth)));
    let mut shares = vec![0.0; claims.len()];
    let mut left = limit;
    for piece in pieces {
        let bytes = piece.bytes.min(left);
        shares[piece.claim] += bytes;
        left -= bytes;
    }
    // What nobody claims is room to grow for those in use, because estimates lag behind.
    let floor = limit / 64.0;
    let weights: Vec<f64> = (claims.iter().zip(&shares))
        .map(|(claim, share)| if claim.abandoned { 0.0 } else { share + floor })
        .collect();
    let total: f64 = weights.iter().sum();
    if total > 0.0 {
        for (share, weight) in shares.iter_mut().zip(&weights) {
            *share += left * weight / total;
        }
    }
    shares
}

fn push_pieces(pieces: &mut Vec<Piece>, index: usize, claim: &Claim) {
    let proven = claim.curve.is_some();
    let mut push = |worth: f64, from: f64, to: f64| {
        let split = claim.resident.clamp(from, to);
        let worth = worth * claim.damping;
        pieces.push(Piece {
            claim: index,
            proven,
            worth: worth * STICKINESS,
            bytes: split - from,
        });
        pieces.push(Piece {
            claim: index,
            proven,
            worth,
            bytes: to - split,
        });
    };
    match &claim.curve {
        Some(curve) => {
            for segment in curve.segments() {
                push(segment.slope(), segment.from.space, segment.to.space);
            }
        }
        None => push(1.0, 0.0, 2.0 * claim.seen.max(claim.resident)),
    }
}

/// How to use `share` bytes; `before` is the mode up to now.
pub(super) fn plan(claim: &Claim, share: f64, before: Mode) -> Plan {
    let Some(curve) = &claim.curve else {
        return Plan {
            main: share as u64,
            ..Plan::NEW
        };
    };
    // A share just above the footprint may be just below it in truth: look at less, too.
    let loss = curve
        .loss_of_recency(share)
        .max(curve.loss_of_recency(0.8 * share));
    let bar = match before {
        Mode::Recency => LOSS_MAX,
        Mode::Stable => LOSS_MAX / 2.0,
    };
    // A straight line from the origin is reached by either way, but stability writes nothing.
    let segment = curve.segment_at(share);
    let straight = segment.is_some_and(|segment| segment.from.space <= 0.0);
    let mode = if loss > bar || straight {
        Mode::Stable
    } else {
        Mode::Recency
    };
    let window = match segment {
        _ if mode == Mode::Recency => PROBATION * share,
        Some(segment) if segment.from.space > 0.0 => {
            let width = (segment.to.space - segment.from.space).max(1.0);
            let upper = ((share - segment.from.space) / width).clamp(0.0, 1.0);
            (1.0 - upper) * segment.from.space
        }
        _ => 0.0,
    };
    let main = (share - window).max(0.0);
    Plan {
        mode,
        main: main as u64,
        window: window as u64,
        lifetime: 0,
    }
}
