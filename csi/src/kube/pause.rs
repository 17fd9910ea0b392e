//! Pauses after failures: they grow, and are never the same for two replicas.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(250);

/// The longest pause: what is put right after an outage starts at most so late.
const LONGEST: Duration = Duration::from_secs(30);

/// Grows with each [`Pause::wait`] until [`Pause::reset`].
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pause {
    /// The next one is short again.
    pub(crate) fn reset(&mut self) {
        self.0 = FIRST;
    }

    /// Waits, a fifth more or less.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        pause.mul_f64(rand::random_range(0.8..1.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A pause that grows for ever would leave a cluster alone for hours after a short outage.
    #[test]
    fn pauses_grow_to_a_limit_and_begin_again() {
        let mut pause = Pause::default();
        let all: Vec<Duration> = (0..12).map(|_| pause.next()).collect();
        assert!(all[0] < FIRST * 2 && all[3] > FIRST * 4);
        assert!(all[11] <= LONGEST.mul_f64(1.2));
        pause.reset();
        assert!(pause.next() < FIRST * 2);
    }
}
