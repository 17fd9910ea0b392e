//! The cold store of a directory volume, as a StorageClass or a PersistentVolume names it.
//!
//! ```text
//! cold         s3://bucket/prefix    where contents go
//! tierPolicy   older_than: 30d       what goes there without being asked: the text of a policy (YAML)
//! ```
//!
//! Here both are texts of bounded length that print on one line, or as lines. Which stores volumes may have is
//! said by who runs the driver, what a policy means by who keeps it: [`crate::data::Promises`].

use std::sync::Arc;

use super::{AttributeError, value_error};

/// Longest address in bytes.
const URL_MAX: usize = 512;

/// Longest policy in bytes: a part of what the interface allows for all attributes together.
const POLICY_MAX: usize = 2048;

/// Where the contents of a volume go. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdStore {
    url: Arc<str>,
    policy: Option<Arc<str>>,
}

impl ColdStore {
    /// Reads the attributes; a policy without a store means nothing.
    pub(crate) fn parse(
        url: Option<&String>,
        policy: Option<&String>,
    ) -> Result<Option<Self>, AttributeError> {
        let Some(url) = url else {
            return match policy {
                None => Ok(None),
                Some(_) => Err(value_error(
                    "tierPolicy",
                    "it needs a store: name one with cold",
                )),
            };
        };
        let plain = |c: char| !c.is_control() && !c.is_whitespace();
        if url.len() > URL_MAX || !url.contains("://") || !url.chars().all(plain) {
            return Err(value_error(
                "cold",
                "the address of a store, such as s3://bucket/prefix",
            ));
        }
        let readable = |text: &String| {
            let known = |c: char| c == '\n' || !c.is_control();
            text.len() <= POLICY_MAX && text.chars().all(known)
        };
        if policy.is_some_and(|policy| !readable(policy)) {
            let expected = format!("a policy as YAML of at most {POLICY_MAX} bytes");
            return Err(value_error("tierPolicy", &expected));
        }
        Ok(Some(Self {
            url: Arc::from(url.as_str()),
            policy: policy.map(|policy| Arc::from(policy.as_str())),
        }))
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What goes there without being asked.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }
}
