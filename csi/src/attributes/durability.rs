//! How durable what pods write into a directory is: a level for all of it, or rules by path.
//!
//! ```text
//! shared                            written through, as by a mount without rules (default)
//! local                             staged on the node's SSD: the rule `fsync=local`
//! cold                              a checked copy in the volume's cold store: `fsync=cold,close=cold`
//! ckpt/**:fsync=local;fsync=shared  rules of `terrace mount --durability`, with ';' between them; the first one
//!                                   whose pattern matches a file's path decides
//! ```
//!
//! Here a text is taken apart. What a rule means is judged by who keeps it ([`crate::data::Promises`]), so there
//! is one grammar of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{AttributeError, value_error};

/// Longest text in bytes: a part of what the interface allows for all attributes together.
const TEXT_MAX: usize = 1024;

/// What stands between two rules. It is in no pattern that anybody writes, and a comma is in rules.
const BETWEEN: char = ';';

/// Everything is written through.
const SHARED: &str = "shared";

/// What has happened to written data before close(2) and fsync(2) return. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability(Arc<str>);

impl Durability {
    /// The attribute's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a rule names a level.
    pub fn names(&self, level: &str) -> bool {
        let named = |rule: &String| {
            let levels = rule.rsplit(':').next().unwrap_or_default();
            let mut levels = levels.split(',').filter_map(|one| one.split_once('='));
            levels.any(|(_, named)| named == level)
        };
        self.rules().iter().any(named)
    }

    /// As rules of a mount, in order; none: written through.
    pub fn rules(&self) -> Vec<String> {
        match &*self.0 {
            SHARED => Vec::new(),
            "local" => vec!["fsync=local".to_owned()],
            "cold" => vec!["fsync=cold,close=cold".to_owned()],
            rules => rules
                .split(BETWEEN)
                .map(|rule| rule.trim().to_owned())
                .collect(),
        }
    }
}

impl Default for Durability {
    fn default() -> Self {
        Self(Arc::from(SHARED))
    }
}

impl FromStr for Durability {
    type Err = AttributeError;

    fn from_str(text: &str) -> Result<Self, AttributeError> {
        let found = Self(Arc::from(text));
        let is_rule = |rule: &String| rule.contains('=') && !rule.chars().any(char::is_control);
        if text.len() > TEXT_MAX || !found.rules().iter().all(is_rule) {
            return Err(value_error(
                "durability",
                "local, shared, cold, or rules with ';' between them, such as ckpt/**:fsync=local;fsync=shared",
            ));
        }
        Ok(found)
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
