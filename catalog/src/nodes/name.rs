//! Names of nodes and of jobs, parsed once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::shortened;

/// Most bytes of a node's name: it becomes a part of a holder's name in the ledger.
const MAX_NAME: usize = 190;

/// Digits of a job's id.
const ID_DIGITS: usize = 12;

/// What is no name of a node or of a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeNameError {
    /// Not a node.
    #[error(
        "{0:?} is not the name of a node: 1 to 190 letters, digits, '.', '_' and '-', beginning with a \
         letter or a digit"
    )]
    Node(String),
    /// Not a job.
    #[error("{0:?} is not the id of a job: 12 hexadecimal digits")]
    Job(String),
}

/// A node, as it calls itself: by default its host name. Valid by construction.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, NodeNameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let first = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if first && text.len() <= MAX_NAME && text.bytes().all(inner) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(NodeNameError::Node(shortened(text)))
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeName({})", self.0)
    }
}

/// A warm-up job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Arc<str>);

impl JobId {
    /// The id of these bytes: random ones, or a digest.
    pub(super) fn from_bytes(bytes: [u8; ID_DIGITS / 2]) -> Self {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(text.into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, NodeNameError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == ID_DIGITS && text.bytes().all(digit) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(NodeNameError::Job(shortened(text)))
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A name with a slash in it would be a part of another job's keys.
    #[test]
    fn names_that_are_parts_of_keys_have_no_separators() {
        for good in ["n1", "gpu-07.rack_2.example", "0"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        let long = "n".repeat(MAX_NAME + 1);
        for bad in ["", ".n", "a/b", "a b", "ä", "a\n", "-x", &long] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} was accepted");
        }
        assert!("0123456789ab".parse::<JobId>().is_ok());
        for bad in ["", "0123456789a", "0123456789AB", "0123456789a/"] {
            assert!(bad.parse::<JobId>().is_err(), "{bad:?} was accepted");
        }
    }
}
