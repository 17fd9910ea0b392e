//! When the objects of one dataset come again: a sampled reuse-time distribution.
//!
//! Time is traffic: bytes opened on the node since start, over all datasets. For every sampled
//! object the profile keeps when it was opened last (a *ghost*; resident or not). An open of a
//! ghost is a *reuse* after so much traffic; a ghost not yet opened again is a *censored* visit of
//! its present age. Both together give, by the Kaplan-Meier estimator, the survival function
//! S(t): the byte-weighted chance that an object is not opened again within t. Counting the
//! censored visits is what makes the first re-opens of a second epoch convincing, and what makes a
//! dataset that stopped being read lose its standing.
//!
//! Objects are sampled by their digest (at most [`GHOSTS_MAX`] per dataset; the threshold halves
//! when there are more and doubles when few are left), so the sample is the same in every epoch
//! and small datasets are seen whole. Reuses are weighted by recency: the window is as many
//! reuses as there are ghosts, one epoch of a dataset that is read in epochs.

use std::collections::HashMap;

/// Sampled objects per dataset. 2,048 give the hit curve within about two percent.
const GHOSTS_MAX: usize = 2048;

/// Fewest reuses that the recency window spans.
const WINDOW_MIN: f64 = 16.0;

/// Buckets of the logarithmic time axis: eight per octave, so a time is known within 12 percent.
pub(super) const BUCKETS: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Ghost {
    last: u64,
    size: u64,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Reuse {
    ghosts: HashMap<u64, Ghost>,
    /// Sampled are keys not above it.
    threshold: u64,
    /// Byte weight of reuses by time, in units of `weight`.
    reuses: Vec<f64>,
    /// Byte weight of ghosts given up without a reuse, by their age, in units of `weight`.
    given_up: Vec<f64>,
    /// Weight of the next reuse; grows, so that older ones count less.
    weight: f64,
    reuse_count: u64,
}

/// What a profile says at one moment.
#[derive(Debug)]
pub(super) struct Survival {
    /// `after[b]`: chance that a visit is not followed by a reuse up to the end of bucket `b`.
    pub(super) after: Vec<f64>,
    /// Last bucket that matters: 99 % of the observed reuses happened up to its end.
    pub(super) horizon: usize,
    /// Bytes of distinct objects in use, as of the dataset's last open.
    pub(super) footprint: f64,
}

impl Survival {
    /// Traffic within which (nearly) every object that will be opened again is.
    pub(super) fn horizon_traffic(&self) -> f64 {
        bucket_end(self.horizon)
    }
}

/// Bucket of a time.
pub(super) fn bucket(traffic: u64) -> usize {
    let traffic = traffic.max(8);
    let exponent = traffic.ilog2();
    let eighth = (traffic >> (exponent - 3)) & 7;
    (exponent as usize) * 8 + eighth as usize
}

/// End of a bucket's time span.
pub(super) fn bucket_end(bucket: usize) -> f64 {
    let next = bucket + 1;
    f64::powi(2.0, (next / 8) as i32) * (1.0 + (next % 8) as f64 / 8.0)
}

impl Reuse {
    pub(super) fn new() -> Self {
        Self {
            ghosts: HashMap::new(),
            threshold: u64::MAX,
            reuses: vec![0.0; BUCKETS],
            given_up: vec![0.0; BUCKETS],
            weight: 1.0,
            reuse_count: 0,
        }
    }

    /// Ghosts kept now: the cost of [`Reuse::survival`].
    pub(super) fn len(&self) -> usize {
        self.ghosts.len()
    }

    /// Counts an open of an object. Opens closer than `same_visit` to the one before belong to
    /// one visit (a footer is read, then the columns) and are no reuse. Returns whether this was
    /// the first reuse ever seen.
    pub(super) fn record(&mut self, key: u64, size: u64, now: u64, same_visit: u64) -> bool {
        if key > self.threshold {
            return false;
        }
        let Some(ghost) = self.ghosts.get_mut(&key) else {
            self.ghosts.insert(key, Ghost { last: now, size });
            if self.ghosts.len() > GHOSTS_MAX {
                self.thin(now);
            }
            return false;
        };
        let traffic = now - ghost.last;
        *ghost = Ghost { last: now, size };
        if traffic <= same_visit {
            return false;
        }
        self.reuses[bucket(traffic)] += self.weight * size as f64;
        self.weight *= 1.0 + 1.0 / WINDOW_MIN.max(self.ghosts.len() as f64);
        self.reuse_count += 1;
        if self.weight > 1e30 {
            self.scale(1.0 / self.weight);
            self.weight = 1.0;
        }
        self.reuse_count == 1
    }

    /// The distribution as of `now`, for a dataset opened last at `last_open`; `None` while no
    /// object was ever opened again.
    pub(super) fn survival(&self, now: u64, last_open: u64) -> Option<Survival> {
        let horizon = self.horizon()?;
        let mut censored: Vec<f64> = self.given_up.iter().map(|w| w / self.weight).collect();
        let end = bucket_end(horizon);
        let mut footprint = 0.0;
        for ghost in self.ghosts.values() {
            censored[bucket(now.saturating_sub(ghost.last))] += ghost.size as f64;
            if last_open.saturating_sub(ghost.last) as f64 <= end {
                footprint += ghost.size as f64;
            }
        }
        let reuses = self.reuses.iter().map(|w| w / self.weight);
        let reuses: Vec<f64> = reuses.collect();
        let mut at_risk: f64 = reuses.iter().sum::<f64>() + censored.iter().sum::<f64>();
        let mut alive = 1.0;
        let mut after = Vec::with_capacity(BUCKETS);
        for (reused, censored) in reuses.into_iter().zip(censored) {
            // A visit censored inside the bucket was at risk for half of it on average.
            let exposed = at_risk - censored / 2.0;
            if reused > 0.0 && exposed > 0.0 {
                alive *= 1.0 - (reused / exposed).min(1.0);
            }
            at_risk -= reused + censored;
            after.push(alive);
        }
        Some(Survival {
            after,
            horizon,
            footprint: footprint * self.inverse_rate(),
        })
    }

    /// Bytes of distinct objects seen and still remembered.
    pub(super) fn seen_bytes(&self) -> f64 {
        self.ghosts
            .values()
            .map(|ghost| ghost.size as f64)
            .sum::<f64>()
            * self.inverse_rate()
    }

    /// Forgets ghosts older than `age_max` and, when few are left, samples more densely again.
    pub(super) fn prune(&mut self, now: u64, age_max: u64) {
        self.give_up(now, age_max);
        if self.ghosts.len() < GHOSTS_MAX / 8 && self.threshold < u64::MAX {
            self.threshold = (self.threshold << 1) | 1;
            self.scale(2.0);
        }
    }

    fn horizon(&self) -> Option<usize> {
        let total: f64 = self.reuses.iter().sum();
        if total <= 0.0 {
            return None;
        }
        let mut sum = 0.0;
        self.reuses.iter().position(|weight| {
            sum += weight;
            sum >= 0.99 * total
        })
    }

    fn inverse_rate(&self) -> f64 {
        (u64::MAX as f64) / (self.threshold as f64)
    }

    /// Makes room: gives up stale ghosts or, when there are few of those, halves the sample.
    fn thin(&mut self, now: u64) {
        if let Some(horizon) = self.horizon() {
            self.give_up(now, (4.0 * bucket_end(horizon)) as u64);
        }
        if self.ghosts.len() > GHOSTS_MAX / 8 * 7 {
            self.threshold >>= 1;
            let threshold = self.threshold;
            self.ghosts.retain(|key, _| *key <= threshold);
            self.scale(0.5);
        }
    }

    fn give_up(&mut self, now: u64, age_max: u64) {
        let (given_up, weight) = (&mut self.given_up, self.weight);
        self.ghosts.retain(|_, ghost| {
            let age = now.saturating_sub(ghost.last);
            if age > age_max {
                given_up[bucket(age)] += weight * ghost.size as f64;
            }
            age <= age_max
        });
    }

    fn scale(&mut self, factor: f64) {
        for weight in self.reuses.iter_mut().chain(&mut self.given_up) {
            *weight *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn spread(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    // Without this, times would be mapped to the wrong place of the hit curve.
    #[test]
    fn buckets_contain_their_times() {
        for time in [8, 9, 15, 16, 17, 1000, 1 << 20, (1 << 40) + 12345, u64::MAX] {
            let at = bucket(time);
            assert!(at < BUCKETS && bucket_end(at) >= time as f64, "{time}");
            assert!(at == 24 || bucket_end(at - 1) <= time as f64, "{time}");
        }
    }

    // Without this, a dataset read in a loop would not be recognised from its second epoch's
    // first opens on, or its size would be wrong when it is sampled.
    #[test]
    fn a_fixed_order_loop_is_a_step_at_the_footprint() {
        for count in [10_u64, 50_000] {
            let mut reuse = Reuse::new();
            let opens = count + count / 2;
            for n in 0..opens {
                reuse.record(spread(n % count + 1), 100, n * 100, 10);
            }
            let survival = reuse.survival(opens * 100, opens * 100).unwrap();
            let step = bucket(count * 100);
            assert!(
                survival.after[step - 2] > 0.99,
                "{count}: {}",
                survival.after[step - 2]
            );
            assert!(
                survival.after[step + 1] < 0.15,
                "{count}: {}",
                survival.after[step + 1]
            );
            let footprint = survival.footprint / (count as f64 * 100.0);
            assert!((0.9..1.1).contains(&footprint), "{count}: {footprint}");
            assert!(reuse.len() <= GHOSTS_MAX);
        }
    }

    // Without this, a dataset nobody reads any more would be worth as much as before.
    #[test]
    fn silence_lowers_the_chance_of_reuse() {
        let mut reuse = Reuse::new();
        for n in 0..400_u64 {
            reuse.record(spread(n % 100 + 1), 1000, n * 1000, 10);
        }
        let busy = reuse.survival(400_000, 400_000).unwrap();
        let idle = reuse.survival(900_000, 400_000).unwrap();
        assert!(busy.after[busy.horizon] < 0.05);
        assert!(
            idle.after[idle.horizon] > 0.35,
            "{}",
            idle.after[idle.horizon]
        );
    }
}
