//! `terrace doctor`: what this machine can do, what is wrong and what to do about it.
//!
//! Each check looks at one fact and never changes anything. A failed check means mounts will not
//! work; a warning means they work slower or with a limit.

mod hot;
mod kernel;
mod store;

use std::path::PathBuf;

use serde::Serialize;
use terrace_cache::store::Credentials;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Ok,
    /// Works, with a limit.
    Warn,
    /// Does not work.
    Fail,
}

/// One fact and what follows from it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// What was looked at: `kernel`, `passthrough`, `hot directory`, ...
    pub(crate) name: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What was found.
    pub(crate) found: String,
    /// What to try; empty when nothing is to be done.
    pub(crate) hint: String,
}

/// What to look at besides the machine.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Hot directory, existing or not.
    pub(crate) hot: PathBuf,
    /// Sources to reach.
    pub(crate) sources: Vec<String>,
    /// Credentials for them.
    pub(crate) credentials: Credentials,
}

impl Check {
    pub(crate) fn ok(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, found, "")
    }

    pub(crate) fn warn(name: &str, found: impl Into<String>, hint: &str) -> Self {
        Self::new(name, Outcome::Warn, found, hint)
    }

    pub(crate) fn fail(name: &str, found: impl Into<String>, hint: &str) -> Self {
        Self::new(name, Outcome::Fail, found, hint)
    }

    fn new(name: &str, outcome: Outcome, found: impl Into<String>, hint: &str) -> Self {
        Self {
            name: name.to_owned(),
            outcome,
            found: found.into(),
            hint: hint.to_owned(),
        }
    }
}

/// Runs every check. Takes as long as the slowest store may take to answer.
pub(crate) fn examine(subject: &Subject) -> Vec<Check> {
    let mut checks = kernel::examine();
    checks.extend(hot::examine(&subject.hot));
    checks.extend(store::examine(subject));
    checks
}
