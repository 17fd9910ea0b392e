//! Places in stores that belong to the catalog: saved models and managed copies lie there.
//!
//! ```text
//! VAULT/<dataset id>/<place>/<path of a file>       place = time (12 hex digits, ms since 1970) "-" random (16)
//! VAULT/<dataset id>/<place>/files.jsonl            the list of a save, beside its files (`saves::list`)
//! ```
//!
//! Invariants: a place is named once and never again, so a file in it is never replaced by another
//! one's; when a place was named is in its name, so a collector knows which are too young to judge. A
//! vault holds nothing else: whatever is in it and no version names is garbage.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::ledger::DatasetId;
use crate::upstream::{UpFile, Upstream, UpstreamError, UpstreamErrorKind};

/// Bytes that are read from a file at a time, where all of it is read.
pub(crate) const PIECE: u64 = 4 << 20;

/// The bytes of a file, in order.
pub type Content<'a> = BoxStream<'a, Result<Bytes, UpstreamError>>;

/// A location that the catalog writes to. Paths are relative to it, as in [`Upstream`].
#[async_trait]
pub trait Vault: Upstream {
    /// Writes a file, whole or not at all; durable when it returns what is there. Replaces one at the
    /// same path. An error of `content` ends it. Dropped, nothing is seen at the path.
    async fn put(&self, path: &str, content: Content<'_>) -> Result<UpFile, UpstreamError>;

    /// Lets a file of this vault be found at another path too, without reading it. None: not here.
    async fn link(&self, from: &UpFile, to: &str) -> Result<Option<UpFile>, UpstreamError>;

    /// Removes a file, if it is this one; no error when nothing is there.
    async fn remove(&self, file: &UpFile) -> Result<(), UpstreamError>;
}

/// The vaults of a catalog: the first takes what nobody says where to put.
#[derive(Clone, Debug, Default)]
pub struct Vaults(Arc<Vec<Arc<dyn Vault>>>);

impl Vaults {
    /// In this order.
    pub fn new(vaults: Vec<Arc<dyn Vault>>) -> Self {
        Self(Arc::new(vaults))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Vault>> {
        self.0.iter()
    }

    /// The vault with this URL; without one, the first.
    pub fn find(&self, url: Option<&str>) -> Option<&Arc<dyn Vault>> {
        let wanted = url.map(|url| url.trim_end_matches('/'));
        self.iter()
            .find(|vault| wanted.is_none_or(|url| vault.url() == url))
    }

    /// The vault that a location lies in, and its path there.
    pub fn holder<'a>(&self, location: &'a str) -> Option<(&Arc<dyn Vault>, &'a str)> {
        self.iter().find_map(|vault| {
            let rest = location.strip_prefix(vault.url())?.strip_prefix('/')?;
            Some((vault, rest))
        })
    }
}

/// A place in a vault: one save, or one generation of copies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub dataset: DatasetId,
    /// When it was named: milliseconds since 1970.
    pub named_ms: i64,
    random: u64,
}

impl Place {
    /// A new one.
    pub(crate) fn new(dataset: DatasetId, now_ms: i64) -> Self {
        Self {
            dataset,
            named_ms: now_ms.clamp(0, (1 << 48) - 1),
            random: rand::random(),
        }
    }

    /// What distinguishes it from the dataset's other places.
    pub fn name(&self) -> String {
        format!("{:012x}-{:016x}", self.named_ms, self.random)
    }

    /// The place that a path of a vault lies in, and the rest of the path.
    pub fn of_path(path: &str) -> Option<(Self, &str)> {
        let at = path.match_indices('/').nth(1)?.0;
        Some((path[..at].parse().ok()?, &path[at + 1..]))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dataset, self.name())
    }
}

impl FromStr for Place {
    type Err = ();

    /// Exactly what printing gives.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (dataset, name) = text.split_once('/').ok_or(())?;
        let (time, random) = name.split_once('-').ok_or(())?;
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(drop);
        let place = Self {
            dataset: DatasetId(number(dataset)?),
            named_ms: i64::try_from(number(time)?).map_err(drop)?,
            random: number(random)?,
        };
        if place.to_string() == text {
            Ok(place)
        } else {
            Err(())
        }
    }
}

/// The whole of a file, a piece at a time; `seen` is shown every piece.
pub(crate) fn content<'a>(
    upstream: &'a dyn Upstream,
    file: UpFile,
    seen: impl Fn(&Bytes) + Send + Sync + 'a,
) -> Content<'a> {
    let pieces = stream::try_unfold((file, 0), move |(file, from)| async move {
        if from >= file.size {
            return Ok(None);
        }
        let to = file.size.min(from + PIECE);
        let bytes = upstream.read(&file, from..to).await?;
        if bytes.len() as u64 != to - from {
            let text = format!("{}: fewer bytes than asked for", file.path);
            return Err(UpstreamError::new(UpstreamErrorKind::Corrupt, text));
        }
        Ok(Some((bytes, (file, to))))
    });
    pieces.inspect_ok(move |bytes| seen(bytes)).boxed()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A place read as another one would let the collector judge the wrong files.
    #[test]
    fn places_print_as_they_are_parsed() {
        let place = Place::new(DatasetId(7), 1_795_176_000_000);
        let path = format!("{place}/a/b.bin");
        let (found, rest) = Place::of_path(&path).unwrap();
        assert_eq!((&found, rest), (&place, "a/b.bin"));
        assert_eq!(found.named_ms, 1_795_176_000_000);
        for bad in [
            "",
            "7/x",
            "a/b/c",
            "0000000000000007/1-2/x",
            "x",
            "../../x/y",
        ] {
            assert!(Place::of_path(bad).is_none(), "{bad:?}");
        }
        let upper = place.to_string().to_uppercase();
        assert!(upper.chars().all(|c| !c.is_ascii_alphabetic()) || upper.parse::<Place>().is_err());
    }
}
