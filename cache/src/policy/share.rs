//! How the budget is divided between datasets, and how each one uses its share.
//!
//! What is guaranteed to a tenant goes to the best of its own datasets first ([`super::tenants`]); what
//! it has of that and nobody asks for is not divided at all. Of the rest, up to each tenant's cap:
//! hull segments of all datasets are served steepest first until the budget is spent, so the last
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
    /// Whose it is: a position in the list of [`Group`]s.
    pub(super) group: usize,
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

/// What a tenant's datasets may have together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Bytes that are theirs before anybody's worth is looked at.
    pub(super) floor: f64,
    /// Bytes that they have at most.
    pub(super) cap: f64,
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

/// Bytes for each claim; their sum is `limit` unless all are abandoned or capped.
pub(super) fn divide(limit: f64, groups: &[Group], claims: &[Claim]) -> Vec<f64> {
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
    let mut division = Division {
        groups,
        claims,
        shares: vec![0.0; claims.len()],
        given: vec![0.0; groups.len()],
        left: limit,
    };
    division.serve(&mut pieces, |group| group.floor);
    division.keep_idle();
    division.serve(&mut pieces, |group| group.cap);
    division.spread(limit / 64.0);
    division.shares
}

/// A division under way.
struct Division<'a> {
    groups: &'a [Group],
    claims: &'a [Claim],
    shares: Vec<f64>,
    /// Sum of the shares of each group.
    given: Vec<f64>,
    left: f64,
}

impl Division<'_> {
    fn give(&mut self, claim: usize, bytes: f64) {
        self.shares[claim] += bytes;
        self.given[self.claims[claim].group] += bytes;
        self.left -= bytes;
    }

    /// Serves pieces in their order until each group has `most`.
    fn serve(&mut self, pieces: &mut [Piece], most: impl Fn(&Group) -> f64) {
        for piece in pieces {
            let group = self.claims[piece.claim].group;
            let room = (most(&self.groups[group]) - self.given[group]).max(0.0);
            let bytes = piece.bytes.min(self.left).min(room);
            piece.bytes -= bytes;
            self.give(piece.claim, bytes);
        }
    }

    /// What tenants have within their guarantees and did not ask for is nobody else's.
    fn keep_idle(&mut self) {
        let mut there = vec![0.0_f64; self.groups.len()];
        for claim in self.claims {
            there[claim.group] += claim.resident;
        }
        for ((there, group), given) in there.iter().zip(self.groups).zip(&self.given) {
            let idle = there.min(group.floor) - given;
            self.left = (self.left - idle.max(0.0)).max(0.0);
        }
    }

    /// What nobody claims is room to grow for those in use, because estimates lag behind.
    fn spread(&mut self, floor: f64) {
        let weights: Vec<f64> = (self.claims.iter().zip(&self.shares))
            .map(|(claim, share)| if claim.abandoned { 0.0 } else { share + floor })
            .collect();
        // Each turn but the last one fills a group up to its cap.
        for _ in 0..=self.groups.len() {
            let caps = self.groups.iter().zip(&self.given);
            let room: Vec<f64> = caps.map(|(group, given)| group.cap - given).collect();
            let mut wanted = vec![0.0; self.groups.len()];
            for (claim, weight) in self.claims.iter().zip(&weights) {
                if room[claim.group] > 0.0 {
                    wanted[claim.group] += weight;
                }
            }
            let total: f64 = wanted.iter().sum();
            // Rounding leaves less than a byte.
            if total <= 0.0 || self.left < 1.0 {
                return;
            }
            let left = self.left;
            for (index, weight) in weights.iter().enumerate() {
                let group = self.claims[index].group;
                if wanted[group] > 0.0 {
                    let part = (left * wanted[group] / total).min(room[group]);
                    self.give(index, part * weight / wanted[group]);
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(group: usize, seen: f64, resident: f64, abandoned: bool) -> Claim {
        Claim {
            group,
            curve: None,
            damping: 1.0,
            seen,
            resident,
            abandoned,
        }
    }

    fn groups(numbers: &[(f64, f64)]) -> Vec<Group> {
        let group = |(floor, cap): &(f64, f64)| Group {
            floor: *floor,
            cap: *cap,
        };
        numbers.iter().map(group).collect()
    }

    // Without it a tenant that reads a lot would plan with what is guaranteed to another one, and
    // push its own data in and out for ever.
    #[test]
    fn guarantees_come_first_and_caps_hold() {
        let one = groups(&[(0.0, 1000.0)]);
        let free = divide(1000.0, &one, &[claim(0, 400.0, 0.0, false)]);
        assert!((free[0] - 1000.0).abs() < 1.0, "{free:?}");

        // Nobody's large dataset came first; the tenant's small one has its guarantee all the same.
        let two = groups(&[(0.0, 1000.0), (300.0, 1000.0)]);
        let claims = [claim(0, 5000.0, 900.0, false), claim(1, 5000.0, 0.0, false)];
        let shares = divide(1000.0, &two, &claims);
        assert!(shares[1] >= 300.0 && shares[0] <= 700.0, "{shares:?}");

        // An idle tenant keeps what it has, and lends what it has not.
        let claims = [claim(0, 5000.0, 700.0, false), claim(1, 0.0, 200.0, true)];
        let shares = divide(1000.0, &two, &claims);
        assert!((shares[0] - 800.0).abs() < 1.0, "{shares:?}");

        // What a cap leaves goes to the others.
        let capped = groups(&[(0.0, 1000.0), (0.0, 100.0)]);
        let claims = [claim(0, 10.0, 0.0, false), claim(1, 5000.0, 0.0, false)];
        let shares = divide(1000.0, &capped, &claims);
        assert!(shares[1] <= 100.5 && shares[0] >= 899.0, "{shares:?}");
    }
}
