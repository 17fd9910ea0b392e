//! Names of spaces. They become components of paths, so they hold nothing but one.
//!
//! ```text
//! name  = kind "/" word
//! kind  = "home" | "project" | "volumes" | "snapshots"
//! word  = [a-z0-9_] [a-z0-9_.-]{0,63}     without ".."; of the last two 32 hexadecimal digits
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::VolumeId;

/// Longest word: users' names are shorter.
const WORD_MAX: usize = 64;

/// Whose a space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpaceKind {
    /// One user's: mode 0700.
    Home,
    /// A group's: mode 2770, so that what is made in it is the group's too.
    Project,
    /// A volume's of Kubernetes, named by the hash of its id: mode 0777, as in an `emptyDir`. Who may enter
    /// is decided by who gets it mounted: its base is closed (0700).
    Volume,
    /// A snapshot of such a volume, named likewise. Nobody gets it mounted.
    Snapshot,
}

/// A text is not the name of a space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of a volume: write home/USER or project/NAME, of at most 64 of a-z, 0-9, \
     '_', '.' and '-', beginning with a letter, a digit or '_'"
)]
pub struct SpaceNameError(pub String);

/// The name of a space. Valid by construction, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpaceName {
    kind: SpaceKind,
    word: Arc<str>,
}

impl SpaceKind {
    /// The directory of its spaces, and the first part of their names.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Project => "project",
            Self::Volume => "volumes",
            Self::Snapshot => "snapshots",
        }
    }

    /// Mode of a space's top directory.
    pub fn mode(self) -> u32 {
        match self {
            Self::Home | Self::Snapshot => 0o700,
            Self::Project => 0o2770,
            Self::Volume => 0o777,
        }
    }
}

impl SpaceName {
    /// The space of a volume of Kubernetes.
    pub fn of_volume(id: &VolumeId) -> Self {
        Self {
            kind: SpaceKind::Volume,
            word: Arc::from(id.hash()),
        }
    }

    /// The space of a snapshot.
    pub fn of_snapshot(id: &VolumeId) -> Self {
        Self {
            kind: SpaceKind::Snapshot,
            word: Arc::from(id.hash()),
        }
    }

    /// Whose it is.
    pub fn kind(&self) -> SpaceKind {
        self.kind
    }

    /// The user, or the project.
    pub fn word(&self) -> &str {
        &self.word
    }
}

impl FromStr for SpaceName {
    type Err = SpaceNameError;

    fn from_str(text: &str) -> Result<Self, SpaceNameError> {
        let refused = || SpaceNameError(text.chars().take(2 * WORD_MAX).collect());
        let (kind, word) = text.split_once('/').ok_or_else(refused)?;
        let kind = match kind {
            "home" => SpaceKind::Home,
            "project" => SpaceKind::Project,
            "volumes" => SpaceKind::Volume,
            "snapshots" => SpaceKind::Snapshot,
            _ => return Err(refused()),
        };
        let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let good = word.len() <= WORD_MAX
            && word.bytes().next().is_some_and(first)
            && word.bytes().all(|b| first(b) || matches!(b, b'.' | b'-'))
            && !word.contains("..")
            && (!matches!(kind, SpaceKind::Volume | SpaceKind::Snapshot)
                || VolumeId::is_hash(word.as_bytes()));
        if !good {
            return Err(refused());
        }
        Ok(Self {
            kind,
            word: Arc::from(word),
        })
    }
}

impl TryFrom<String> for SpaceName {
    type Error = SpaceNameError;

    fn try_from(text: String) -> Result<Self, SpaceNameError> {
        text.parse()
    }
}

impl From<SpaceName> for String {
    fn from(name: SpaceName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.directory(), self.word)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A name that leads elsewhere would let one tenant's volume be another's, or the node's.
    #[test]
    fn only_two_plain_components_are_a_name() {
        for good in [
            "home/alice",
            "project/vision-2",
            "home/a.b_c",
            "home/_x",
            "home/7",
            "volumes/0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(good.parse::<SpaceName>().unwrap().to_string(), good);
        }
        let long = format!("home/{}", "x".repeat(WORD_MAX + 1));
        for bad in [
            "",
            "home",
            "home/",
            "/alice",
            "home/.",
            "home/..",
            "home/../x",
            "home/a/b",
            "volumes/alice",
            "snapshots/monday",
            "home//a",
            "home/.a",
            "home/-a",
            "home/a..b",
            "home/A",
            "home/ä",
            "home/a\n",
            "home/a\0",
            "home/ a",
            "Home/a",
            "tmp/a",
            "project/a\\b",
            "project/%2e",
            " home/a",
            &long,
        ] {
            assert!(bad.parse::<SpaceName>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        // What is accepted is two components, whatever is asked for.
        #[test]
        fn accepted_names_lead_nowhere_else(text in "(home|project)?/?.{0,12}") {
            if let Ok(name) = text.parse::<SpaceName>() {
                prop_assert_eq!(name.to_string().matches('/').count(), 1);
                prop_assert!(!name.word().contains("..") && !name.word().starts_with('.'));
            }
        }
    }
}
