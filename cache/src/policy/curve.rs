//! What space is worth to one dataset: its hit curve and the concave hull over it.
//!
//! With S(t) the chance that an object is not opened again within t bytes of traffic, a tier that
//! keeps objects for T after their last open holds space(T) ~ A(T) = integral of S from 0 to T,
//! and hits(T) = 1 - S(T) of the dataset's bytes (average eviction time of LRU). A dataset read
//! once per epoch has a cliff: no hits until it fits. Its concave hull is the straight line from
//! nothing to everything, and a stable subset of the dataset reaches that line (the argument of
//! Talus, which splits a cache between the two ends of a hull segment). So the hull, not the
//! curve, says what space can earn, and the distance between the two says whether recency or
//! stability is the way to earn it. The slope of the hull, d hits / d A, is hit bytes per byte of
//! space per byte of traffic: comparable between datasets, and 1 / (epoch length) for a loop.

use super::reuse::{BUCKETS, Survival, bucket_end};

/// A tier that keeps objects for some time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    /// Integral of S, in traffic bytes.
    area: f64,
    /// Bytes of the tier it takes.
    pub(super) space: f64,
    /// Share of the dataset's bytes that hit.
    pub(super) hits: f64,
}

/// A straight part of the hull.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) from: Point,
    pub(super) to: Point,
}

impl Segment {
    /// Hit bytes per byte of space per byte of traffic.
    pub(super) fn slope(&self) -> f64 {
        (self.to.hits - self.from.hits) / (self.to.area - self.from.area).max(1.0)
    }
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Curve {
    /// What recency reaches; first the origin, strictly increasing in space.
    recency: Vec<Point>,
    hull: Vec<Point>,
}

impl Curve {
    pub(super) fn new(survival: &Survival) -> Self {
        let mut recency = vec![Point::default()];
        let (mut area, mut alive, mut begin) = (0.0, 1.0, 0.0);
        let mut flat = false;
        for index in 0..BUCKETS.min(survival.horizon + 1) {
            let (end, after) = (bucket_end(index), survival.after[index]);
            if after < alive && flat {
                recency.push(Point {
                    area,
                    space: 0.0,
                    hits: 1.0 - alive,
                });
            }
            area += (alive + after) / 2.0 * (end - begin);
            flat = after >= alive;
            if !flat {
                recency.push(Point {
                    area,
                    space: 0.0,
                    hits: 1.0 - after,
                });
            }
            (alive, begin) = (after, end);
        }
        let per_area = survival.footprint / area.max(1.0);
        for point in &mut recency {
            point.space = point.area * per_area;
        }
        let hull = hull(&recency);
        Self { recency, hull }
    }

    /// Ratio of tier bytes to traffic: the dataset's share of the node's traffic.
    pub(super) fn space_per_traffic(&self) -> f64 {
        self.hull
            .last()
            .map_or(1.0, |point| point.space / point.area.max(1.0))
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.hull.windows(2).map(|pair| Segment {
            from: pair[0],
            to: pair[1],
        })
    }

    /// The hull segment above `space`.
    pub(super) fn segment_at(&self, space: f64) -> Option<Segment> {
        self.segments().find(|segment| space <= segment.to.space)
    }

    /// How much a tier of `space` bytes loses, as a share of all bytes, if it goes by recency.
    pub(super) fn loss_of_recency(&self, space: f64) -> f64 {
        at(&self.hull, space) - at(&self.recency, space)
    }
}

/// Hits at `space` on a polyline.
fn at(line: &[Point], space: f64) -> f64 {
    for pair in line.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        if space <= to.space {
            let width = (to.space - from.space).max(f64::MIN_POSITIVE);
            return from.hits + (to.hits - from.hits) * ((space - from.space) / width);
        }
    }
    line.last().map_or(0.0, |point| point.hits)
}

/// Upper concave hull of points sorted by area.
fn hull(points: &[Point]) -> Vec<Point> {
    let mut hull: Vec<Point> = Vec::new();
    for &point in points {
        while let [.., a, b] = hull.as_slice() {
            let flatter = (b.hits - a.hits) * (point.area - a.area)
                <= (point.hits - a.hits) * (b.area - a.area);
            if !flatter {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::reuse::bucket;
    use super::*;

    /// Survival of a mix: (share of reuses, traffic after which they come).
    fn survival(reuses: &[(f64, u64)], footprint: f64) -> Survival {
        let mut after = vec![1.0; BUCKETS];
        for (share, traffic) in reuses {
            for value in &mut after[bucket(*traffic)..] {
                *value -= share;
            }
        }
        let horizon = reuses
            .iter()
            .map(|(_, traffic)| bucket(*traffic))
            .max()
            .unwrap();
        Survival {
            after,
            horizon,
            footprint,
        }
    }

    // Without this, a loop would be taken for a dataset that recency serves well.
    #[test]
    fn a_loop_is_a_cliff_under_a_straight_hull() {
        let curve = Curve::new(&survival(&[(1.0, 1 << 30)], 1e9));
        assert_eq!(curve.segments().count(), 1);
        assert!((curve.hull[1].space - 1e9).abs() < 1.0);
        assert!((curve.loss_of_recency(5e8) - 0.5).abs() < 0.05);
        let slope = curve.segments().next().unwrap().slope() * (1_u64 << 30) as f64;
        assert!((0.85..1.1).contains(&slope), "{slope}");
    }

    // Without this, a hot head inside a big loop would get no space of its own.
    #[test]
    fn a_hot_head_and_a_loop_are_two_segments() {
        let curve = Curve::new(&survival(&[(0.5, 1 << 20), (0.5, 1 << 30)], 1e9));
        let segments: Vec<Segment> = curve.segments().collect();
        assert_eq!(segments.len(), 2);
        assert!(segments[0].slope() > 100.0 * segments[1].slope());
        assert!(segments[1].from.space < 1e7 && segments[1].from.hits > 0.45);
    }
}
