//! Jobs as they are stored: JSON below the keys of `jobs.rs`. Readers ignore fields they do not know.

use serde::{Deserialize, Serialize};

use super::job::{Cause, Job, Part, State, Tier, Work};
use super::name::{JobId, NodeName};
use crate::kv::KvError;

/// A job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JobRecord {
    selector: String,
    dataset: String,
    version: u64,
    tier: String,
    pin: bool,
    bytes: u64,
    nodes: Vec<String>,
    created_ms: i64,
    by: String,
    /// Whether a descriptor asked for it.
    policy: bool,
    /// How it ended, and when.
    ended: Option<(String, i64)>,
}

/// One node's part, once it has said something.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PartRecord {
    state: String,
    done_bytes: u64,
    error: Option<String>,
}

/// How far the descriptors' wishes were followed in the events.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CursorRecord {
    pub(super) after: u64,
}

impl JobRecord {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            selector: job.work.selector.clone(),
            dataset: job.work.dataset.to_string(),
            version: job.work.version,
            tier: job.work.tier.as_str().to_owned(),
            pin: job.work.pin,
            bytes: job.work.bytes,
            nodes: job.work.nodes.iter().map(ToString::to_string).collect(),
            created_ms: job.created_ms,
            by: job.work.by.clone(),
            policy: job.work.cause == Cause::Policy,
            ended: job
                .ended
                .map(|(state, at_ms)| (state.as_str().to_owned(), at_ms)),
        }
    }

    pub(super) fn job(self, id: JobId) -> Result<Job, KvError> {
        let damaged = |what: &str| KvError::Corrupt(format!("job {id}: {what}"));
        let nodes = self.nodes.iter().map(|name| name.parse::<NodeName>());
        let nodes = nodes.collect::<Result<_, _>>();
        let ended = match self.ended {
            None => None,
            Some((state, at_ms)) => {
                let state = State::parse(&state).filter(|state| state.has_ended());
                Some((state.ok_or_else(|| damaged("it ended strangely"))?, at_ms))
            }
        };
        Ok(Job {
            work: Work {
                selector: self.selector,
                dataset: (self.dataset.parse()).map_err(|_| damaged("its dataset is none"))?,
                version: self.version,
                tier: Tier::parse(&self.tier).ok_or_else(|| damaged("its tier is none"))?,
                pin: self.pin,
                bytes: self.bytes,
                nodes: nodes.map_err(|_| damaged("a node is none"))?,
                by: self.by,
                cause: if self.policy {
                    Cause::Policy
                } else {
                    Cause::Asked
                },
            },
            created_ms: self.created_ms,
            ended,
            id,
        })
    }
}

impl PartRecord {
    pub(super) fn of(part: &Part) -> Self {
        Self {
            state: part.state.as_str().to_owned(),
            done_bytes: part.done_bytes,
            error: part.error.clone(),
        }
    }

    pub(super) fn part(self, node: NodeName) -> Result<Part, KvError> {
        let damaged = || KvError::Corrupt(format!("the part of {node} in a job has no state"));
        let state = State::parse(&self.state).ok_or_else(damaged)?;
        Ok(Part {
            node,
            state,
            done_bytes: self.done_bytes,
            error: self.error,
        })
    }
}

pub(super) fn encode<T: Serialize>(record: &T) -> Result<bytes::Bytes, KvError> {
    let text = serde_json::to_vec(record);
    let text = text.map_err(|error| KvError::Corrupt(error.to_string()))?;
    Ok(text.into())
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, KvError> {
    serde_json::from_slice(value).map_err(|error| KvError::Corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A catalog of this release must read the jobs of the last one: this text is what it wrote.
    #[test]
    fn the_format_stays_readable() {
        let text =
            br#"{"selector":"ads.clicks@prod","dataset":"ads.clicks","version":3,"tier":"hot",
            "pin":true,"bytes":7,"nodes":["n1","n2"],"created_ms":5,"by":"etl(0f)","policy":false,
            "ended":["failed",9],"later":1}"#;
        let record: JobRecord = decode(text).unwrap();
        let job = record.job("0123456789ab".parse().unwrap()).unwrap();
        assert_eq!(
            (job.work.version, job.work.tier, job.work.pin),
            (3, Tier::Hot, true)
        );
        assert_eq!(job.ended, Some((State::Failed, 9)));
        let again: JobRecord = decode(&encode(&JobRecord::of(&job)).unwrap()).unwrap();
        assert_eq!(again.job(job.id.clone()).unwrap(), job);
        for bad in [r#"{"state":"x","done_bytes":1,"error":null}"#, "", "[]"] {
            let read = decode::<PartRecord>(bad.as_bytes());
            assert!(read.and_then(|r| r.part("n1".parse().unwrap())).is_err());
        }
    }
}
