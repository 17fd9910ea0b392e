//! Workloads: what a training job, a notebook and a scan open, and in which order.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::replay::Open;

/// Objects of one dataset.
#[derive(Clone, Debug)]
pub(crate) struct Objects(Vec<Open>);

/// Order of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Fixed,
    Shuffled,
}

impl Objects {
    /// `count` objects of the same size.
    pub(crate) fn same(dataset: usize, count: u64, size: u64) -> Self {
        Self(
            (0..count)
                .map(|object| Open {
                    dataset,
                    object,
                    size,
                })
                .collect(),
        )
    }

    /// `count` objects of mixed sizes around `size`, from a tenth to ten times it.
    pub(crate) fn mixed(dataset: usize, count: u64, size: u64, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let objects = (0..count).map(|object| {
            let factor = 10_f64.powf(rng.random_range(-1.0..1.0));
            Open {
                dataset,
                object,
                size: (size as f64 * factor) as u64,
            }
        });
        Self(objects.collect())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|open| open.size).sum()
    }

    /// Each object once.
    pub(crate) fn pass(&self, order: Order, rng: &mut SmallRng) -> Vec<Open> {
        let mut opens = self.0.clone();
        if order == Order::Shuffled {
            opens.shuffle(rng);
        }
        opens
    }

    /// Independent opens by a Zipf law with exponent `skew`.
    pub(crate) fn zipf(&self, opens: usize, skew: f64, rng: &mut SmallRng) -> Vec<Open> {
        let mut sum = 0.0;
        let cumulative: Vec<f64> = (0..self.0.len())
            .map(|rank| {
                sum += ((rank + 1) as f64).powf(-skew);
                sum
            })
            .collect();
        let draw = |_| {
            let at = rng.random_range(0.0..sum);
            self.0[cumulative
                .partition_point(|c| *c <= at)
                .min(self.0.len() - 1)]
        };
        (0..opens).map(draw).collect()
    }
}

/// Two sequences merged at random, each in its own order.
pub(crate) fn interleave(a: &[Open], b: &[Open], rng: &mut SmallRng) -> Vec<Open> {
    let (mut a, mut b) = (a.iter(), b.iter());
    let mut merged = Vec::new();
    while a.len() + b.len() > 0 {
        let first = rng.random_range(0..a.len() + b.len()) < a.len();
        merged.extend(if first { a.next() } else { b.next() });
    }
    merged
}
