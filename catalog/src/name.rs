//! The name of a dataset, `namespace.table`, parsed once at the border.
//!
//! ```text
//! name      = segment "." segment
//! segment   = [a-z0-9] [a-z0-9_-]{0,63}
//! ```
//!
//! The alphabet is the intersection of what a Hive table, a path component, a Kubernetes annotation
//! value and a URL path take without escaping. Upper case is refused and not folded: two spellings
//! of one name would be two cache keys and two paths.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest segment, in bytes: `namespace.table@tag` stays below 255, the limit of a path component.
const SEGMENT_MAX: usize = 64;

/// Why a text is not a name, a tag or a selector. Its message quotes the text, shortened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not two segments joined by one dot.
    #[error("{0:?} is not a dataset name: write namespace.table")]
    Shape(String),
    /// A segment is empty, too long, or has a character outside the alphabet.
    #[error(
        "{0:?} is not a name: 1 to 64 of a-z, 0-9, '_' and '-', beginning with a letter or a digit"
    )]
    Segment(String),
    /// What follows `@` is neither a version number, a tag nor a day.
    #[error("{0:?} is not a version: write v12, a tag, or a day such as 2026-11-20")]
    Version(String),
    /// Not the id of a batch.
    #[error("{0:?} is not a batch id: 1 to 200 letters, digits, '.', '_', ':', '=' and '-'")]
    Batch(String),
    /// Not the name of a holder.
    #[error(
        "{0:?} is not a holder: write mount:NAME, pin:NAME, model:NAME, receipt:NAME or job:NAME"
    )]
    Holder(String),
}

/// A dataset: `namespace.table`. Cheap to clone; valid by construction.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetName {
    full: Arc<str>,
    dot: usize,
}

impl DatasetName {
    /// What comes before the dot.
    pub fn namespace(&self) -> &str {
        &self.full[..self.dot]
    }

    /// What comes after the dot.
    pub fn table(&self) -> &str {
        &self.full[self.dot + 1..]
    }

    /// `namespace.table`.
    pub fn as_str(&self) -> &str {
        &self.full
    }
}

impl FromStr for DatasetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, table) = text
            .split_once('.')
            .ok_or_else(|| NameError::Shape(shortened(text)))?;
        if table.contains('.') {
            return Err(NameError::Shape(shortened(text)));
        }
        check_segment(namespace)?;
        check_segment(table)?;
        Ok(Self {
            full: Arc::from(text),
            dot: namespace.len(),
        })
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl fmt::Debug for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatasetName({})", self.full)
    }
}

/// Refuses what is not a segment.
pub(crate) fn check_segment(text: &str) -> Result<(), NameError> {
    let alphabet = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = text.len() <= SEGMENT_MAX
        && text.bytes().next().is_some_and(alphabet)
        && text
            .bytes()
            .all(|byte| alphabet(byte) || byte == b'_' || byte == b'-');
    if good {
        Ok(())
    } else {
        Err(NameError::Segment(shortened(text)))
    }
}

/// The text as an error message quotes it: at most 80 characters of what may be a whole request.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A name that is accepted becomes a path component and a key: whatever is let in stays for ever.
    #[test]
    fn accepts_names_and_refuses_everything_else() {
        for good in ["ads.clicks", "a.b", "0.9", "team-1.user_events-v2"] {
            assert_eq!(good.parse::<DatasetName>().unwrap().to_string(), good);
        }
        let long = format!("{}.t", "n".repeat(SEGMENT_MAX + 1));
        for bad in [
            "",
            ".",
            "ads",
            "ads.",
            ".clicks",
            "ads.clicks.raw",
            "Ads.clicks",
            "ads.cl icks",
            "ads/clicks",
            "../x",
            "..",
            "ads..clicks",
            "_ads.clicks",
            "-a.b",
            "ads.clicks@v1",
            "ads.cl\0icks",
            "ads.клик",
            &long,
        ] {
            assert!(bad.parse::<DatasetName>().is_err(), "{bad:?} was accepted");
        }
    }

    // An error that quotes a megabyte of request fills the log.
    #[test]
    fn errors_quote_little() {
        let error = "x".repeat(1 << 20).parse::<DatasetName>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    proptest! {
        // Input comes from the network: no text may panic the parser, and what is accepted is
        // exactly what went in.
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            if let Ok(name) = text.parse::<DatasetName>() {
                prop_assert_eq!(name.as_str(), text.as_str());
                prop_assert_eq!(format!("{}.{}", name.namespace(), name.table()), text);
            }
        }
    }
}
