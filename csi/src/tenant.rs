//! The name of a tenant: whom a node charges for what a mount uses. It gives no access to anything.
//!
//! ```text
//! name = [a-z0-9] [a-z0-9-]{0,62}
//! ```
//! It becomes a key of the configuration, a label of metrics and an attribute of volumes, so it holds nothing
//! that would have to be quoted in any of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name.
const NAME_MAX: usize = 63;

/// The name of a tenant. Valid by construction, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(Arc<str>);

/// A text is not the name of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a tenant; write a-z, 0-9 and '-', at most {NAME_MAX}")]
pub struct TenantNameError(String);

impl TenantName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = TenantNameError;

    fn from_str(text: &str) -> Result<Self, TenantNameError> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(|byte| first(byte) || byte == b'-')
            && !text.starts_with('-');
        if good {
            Ok(Self(text.into()))
        } else {
            Err(TenantNameError(text.chars().take(NAME_MAX).collect()))
        }
    }
}

impl TryFrom<String> for TenantName {
    type Error = TenantNameError;

    fn try_from(text: String) -> Result<Self, TenantNameError> {
        text.parse()
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
