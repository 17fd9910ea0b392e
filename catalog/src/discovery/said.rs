//! What the last look at a table has to say, and when it said so.

use tokio::time::Instant;

use super::why::Why;

/// The answer to "why", and when it was made.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) why: Why,
    pub(super) at: Instant,
    pub(super) active: bool,
}

impl Said {
    /// The same answer, as old as it is now.
    pub(super) fn aged(self, now: Instant) -> Why {
        let more = now.saturating_duration_since(self.at).as_secs();
        let mut why = self.why;
        why.trouble
            .iter_mut()
            .for_each(|trouble| trouble.since_seconds += more);
        why.partitions
            .iter_mut()
            .for_each(|partition| partition.since_seconds += more);
        why.looked_seconds_ago = why.looked_seconds_ago.map(|seconds| seconds + more);
        why
    }
}
