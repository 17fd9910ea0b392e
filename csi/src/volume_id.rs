//! The id of a volume, as a controller made it or as kubelet made it for an inline volume.
//!
//! ```text
//! id = [a-z0-9] [a-z0-9.-]{0,127}    without ".."
//! ```
//!
//! An id is looked up and hashed, never used as a part of a path: several drivers were broken into
//! through ids with `..` in them. The check comes before any clean-up of the text, because a cleaned
//! path no longer shows what was asked for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest id in bytes: the limit of the CSI specification for a string field.
const ID_MAX: usize = 128;

/// A text is not a volume id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a volume id: 1 to 128 of a-z, 0-9, '.' and '-', beginning with a letter or a digit")]
pub struct VolumeIdError;

/// A volume's id. Valid by construction, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId(Arc<str>);

impl VolumeId {
    /// The id that belongs to a name: `<prefix>-` and 32 hex digits of the name's SHA-256. The same
    /// name gives the same id in every process, so a repeated request finds what the first one made.
    /// `prefix` is a word of the caller's own.
    pub fn of_name(prefix: &str, name: &str) -> Result<Self, VolumeIdError> {
        format!("{prefix}-{}", short_hash(name)).parse()
    }

    /// 32 hex digits that stand for the id in paths, where the id itself never appears.
    pub fn hash(&self) -> String {
        short_hash(&self.0)
    }

    /// Whether bytes could be what [`VolumeId::hash`] answers.
    pub(crate) fn is_hash(bytes: &[u8]) -> bool {
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        bytes.len() == 32 && bytes.iter().all(digit)
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeId {
    type Err = VolumeIdError;

    fn from_str(text: &str) -> Result<Self, VolumeIdError> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = text.len() <= ID_MAX
            && text.bytes().next().is_some_and(first)
            && text
                .bytes()
                .all(|byte| first(byte) || byte == b'.' || byte == b'-')
            && !text.contains("..");
        if good {
            Ok(Self(Arc::from(text)))
        } else {
            Err(VolumeIdError)
        }
    }
}

impl TryFrom<String> for VolumeId {
    type Error = VolumeIdError;

    fn try_from(text: String) -> Result<Self, VolumeIdError> {
        text.parse()
    }
}

impl From<VolumeId> for String {
    fn from(id: VolumeId) -> Self {
        id.as_str().to_owned()
    }
}

/// The first 16 bytes of a text's SHA-256, in hex.
fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..16])
}

/// Bytes in lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // Ids that name a path have let pods delete files of the node in other drivers.
    #[test]
    fn refuses_everything_that_could_be_a_path() {
        let inline = format!("csi-{}", "0f".repeat(32));
        for good in ["pvc-6f1c", "a", &inline, &"x".repeat(ID_MAX)] {
            assert_eq!(good.parse::<VolumeId>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/..",
            "a/../b",
            "..\\",
            "a..b",
            "%2e%2e",
            "a%2f",
            "a\0",
            "a b",
            "/etc",
            "A",
            "-a",
            ".a",
            "․․",
            "a\n",
            &"x".repeat(ID_MAX + 1),
            &"x".repeat(4096),
        ] {
            assert_eq!(
                bad.parse::<VolumeId>(),
                Err(VolumeIdError),
                "{bad:?} was accepted"
            );
        }
    }

    proptest! {
        // What is accepted stays inside the grammar, whatever bytes a client sends.
        #[test]
        fn accepted_ids_have_no_separator(text in any::<String>()) {
            if let Ok(id) = text.parse::<VolumeId>() {
                prop_assert!(!id.as_str().contains(['/', '\\', '\0', '%']));
                prop_assert!(!id.as_str().contains(".."));
            }
        }
    }
}
