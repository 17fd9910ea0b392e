//! A warm-up job as a state machine; no I/O.
//!
//! ```text
//! part (one node)  waiting --first report--> running --every byte is there--> done
//!                     |                         |------it cannot be had-----> failed
//!                     +-------------------------+------cancelled------------> cancelled
//!
//! job              waiting    no part has begun
//!                  running    some part has not ended
//!                  cancelled  somebody cancelled it: recorded at once, whatever its parts are
//!                  failed     every part has ended, and one has failed
//!                  done       every part is done
//! ```
//!
//! What has ended never changes: late reports are ignored. A node that begins anew (its worker was
//! killed) reports lower figures than before, which are believed: they are what is there. `done` is
//! believed only with the very number of bytes that the version has.

use super::name::{JobId, NodeName};
use crate::name::DatasetName;

/// Most bytes of the reason why a part failed.
const MAX_ERROR: usize = 300;

/// Where to bring a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The node's own disk.
    Hot,
    /// The copy that the cluster shares.
    Warm,
    /// Its list of files only, to the node's disk.
    Metadata,
}

impl Tier {
    /// As the wire and records spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Metadata => "metadata",
        }
    }

    /// The tier of a text.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Hot, Self::Warm, Self::Metadata];
        all.into_iter().find(|tier| tier.as_str() == text)
    }
}

/// How far a part, or a job, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nobody has begun.
    Waiting,
    /// Begun, and not ended.
    Running,
    /// Every byte is there.
    Done,
    /// Some byte cannot be had; the reason is with it.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl State {
    /// As the wire and records spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a text.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Waiting,
            Self::Running,
            Self::Done,
            Self::Failed,
            Self::Cancelled,
        ];
        all.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether it never changes again.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// Why there is a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it.
    Asked,
    /// The dataset's descriptor wants every version warm.
    Policy,
}

/// What is to be brought where, and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// What was asked for, as text.
    pub selector: String,
    /// Whose version.
    pub dataset: DatasetName,
    /// Its number.
    pub version: u64,
    /// Where to.
    pub tier: Tier,
    /// Whether the bytes stay there.
    pub pin: bool,
    /// Bytes that each node is to have; 0 for lists of files.
    pub bytes: u64,
    /// The nodes; of a job each once, in order.
    pub nodes: Vec<NodeName>,
    /// Who asked, as logs name them.
    pub by: String,
    /// Why it is wanted.
    pub cause: Cause,
}

/// A job: one version, one tier, and the nodes it is asked of. Changes only by ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What its nodes are asked to do.
    pub work: Work,
    /// When it was made: milliseconds since 1970.
    pub created_ms: i64,
    /// How it ended, and when.
    pub ended: Option<(State, i64)>,
}

impl Job {
    /// How far it is, by its parts.
    pub fn state(&self, parts: &[Part]) -> State {
        if let Some((state, _)) = self.ended {
            return state;
        }
        if parts.iter().all(|part| part.state.has_ended()) {
            let all_done = parts.iter().all(|part| part.state == State::Done);
            return if all_done { State::Done } else { State::Failed };
        }
        let begun = parts.iter().any(|part| part.state != State::Waiting);
        if begun {
            State::Running
        } else {
            State::Waiting
        }
    }
}

/// What one node does for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The node.
    pub node: NodeName,
    /// How far it is.
    pub state: State,
    /// Bytes of the version that are in the tier, checked.
    pub done_bytes: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a node says of its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// `Running`, `Done` or `Failed`; anything else is taken for `Running`.
    pub state: State,
    /// Bytes of the version that are in the tier, checked.
    pub done_bytes: u64,
    /// Why it failed.
    pub error: Option<String>,
}

impl Part {
    /// The part of a node that has said nothing yet.
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            state: State::Waiting,
            done_bytes: 0,
            error: None,
        }
    }

    /// Takes in what the node says; `bytes` is what it is to have. Returns whether anything changed.
    pub fn apply(&mut self, report: &PartReport, bytes: u64) -> bool {
        if self.state.has_ended() {
            return false;
        }
        let before = self.clone();
        self.done_bytes = report.done_bytes.min(bytes);
        self.state = match report.state {
            State::Done if report.done_bytes == bytes => State::Done,
            State::Failed => State::Failed,
            _ => State::Running,
        };
        if self.state == State::Failed {
            self.error = Some(reason(report.error.as_deref()));
        }
        *self != before
    }
}

/// One line that says why, without what would steer a terminal.
fn reason(text: Option<&str>) -> String {
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    let text = text.unwrap_or("the node did not say why; see its worker.log");
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    while line.len() > MAX_ERROR {
        line.pop();
    }
    line
}

/// Percentage of bytes, rounded down to a tenth: 100 when and only when the state is `Done`.
pub fn percent(done: u64, total: u64, state: State) -> f64 {
    if state == State::Done {
        return 100.0;
    }
    let tenths = u128::from(done) * 1000 / u128::from(total.max(1));
    // Below 1000, which a float has exactly.
    tenths.min(999) as u16 as f64 / 10.0
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const BYTES: u64 = 1000;

    /// What somebody has asked these nodes for.
    pub(in super::super) fn work(nodes: &[&str], bytes: u64) -> Work {
        Work {
            selector: "ads.clicks".to_owned(),
            dataset: "ads.clicks".parse().unwrap(),
            version: 3,
            tier: Tier::Hot,
            pin: false,
            bytes,
            nodes: nodes.iter().map(|name| name.parse().unwrap()).collect(),
            by: "test".to_owned(),
            cause: Cause::Asked,
        }
    }

    fn job(nodes: &[&str]) -> (Job, Vec<Part>) {
        let job = Job {
            id: "0123456789ab".parse().unwrap(),
            work: work(nodes, BYTES),
            created_ms: 1,
            ended: None,
        };
        let parts = job.work.nodes.iter().cloned().map(Part::new).collect();
        (job, parts)
    }

    fn says(state: State, done_bytes: u64) -> PartReport {
        PartReport {
            state,
            done_bytes,
            error: (state == State::Failed).then(|| "no such\nobject".to_owned()),
        }
    }

    // Each row of the machine in the module text; a wrong one makes a job end too early or never.
    #[test]
    fn a_job_is_as_far_as_its_parts() {
        let (job, mut parts) = job(&["a", "b"]);
        assert_eq!(job.state(&parts), State::Waiting);
        assert!(parts[0].apply(&says(State::Running, 10), BYTES));
        assert_eq!(job.state(&parts), State::Running);
        assert!(parts[0].apply(&says(State::Done, BYTES), BYTES));
        assert_eq!(job.state(&parts), State::Running, "b has not begun");
        let mut failed = parts.clone();
        assert!(failed[1].apply(&says(State::Failed, 5), BYTES));
        assert_eq!(job.state(&failed), State::Failed);
        assert_eq!(failed[1].error.as_deref(), Some("no such object"));
        assert!(parts[1].apply(&says(State::Done, BYTES), BYTES));
        assert_eq!(job.state(&parts), State::Done);
        let cancelled = Job {
            ended: Some((State::Cancelled, 9)),
            ..job
        };
        assert_eq!(cancelled.state(&failed), State::Cancelled);
    }

    // A node that says "done" with too few bytes, or too many, has not warmed this version.
    #[test]
    fn done_is_believed_only_with_every_byte() {
        for wrong in [0, BYTES - 1, BYTES + 1] {
            let (job, mut parts) = job(&["a"]);
            parts[0].apply(&says(State::Done, wrong), BYTES);
            assert_eq!(job.state(&parts), State::Running, "{wrong}");
            let shown = percent(parts[0].done_bytes, BYTES, job.state(&parts));
            assert!(shown < 100.0, "{shown}");
        }
    }

    proptest! {
        // Whatever nodes say in whatever order: what has ended stays, and 100 percent means done.
        #[test]
        fn no_sequence_of_reports_breaks_the_machine(
            reports in prop::collection::vec((0_usize..2, 0_u8..5, 0_u64..2 * BYTES), 0..40)
        ) {
            let states = [
                State::Waiting, State::Running, State::Done, State::Failed, State::Cancelled,
            ];
            let (job, mut parts) = job(&["a", "b"]);
            for (at, state, done) in reports {
                let before = parts[at].clone();
                parts[at].apply(&says(states[usize::from(state)], done), BYTES);
                if before.state.has_ended() {
                    prop_assert_eq!(&before, &parts[at]);
                }
                let state = job.state(&parts);
                let done: u64 = parts.iter().map(|part| part.done_bytes).sum();
                let shown = percent(done, 2 * BYTES, state);
                let whole = parts.iter().all(|part| part.done_bytes == BYTES);
                prop_assert_eq!(shown == 100.0, state == State::Done);
                prop_assert!(state != State::Done || whole);
                prop_assert!((0.0..=100.0).contains(&shown));
            }
        }
    }

    // Nothing to bring is not "complete" before somebody looked.
    #[test]
    fn an_empty_version_is_not_complete_by_itself() {
        assert_eq!(percent(0, 0, State::Waiting), 0.0);
        assert_eq!(percent(0, 0, State::Done), 100.0);
        assert_eq!(percent(u64::MAX, u64::MAX, State::Running), 99.9);
        assert_eq!(percent(421, 1000, State::Running), 42.1);
    }
}
