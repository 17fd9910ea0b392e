//! Which version of a dataset is meant: `namespace.table`, `...@v12`, `...@tag`, `...@2026-11-20`.
//!
//! ```text
//! selector  = name [ "@" version ]
//! version   = "latest" | "v" number | tag | day
//! number    = [1-9] [0-9]*                 fits 64 bits
//! day       = year "-" month "-" day       of the Gregorian calendar; the latest version of that day
//! tag       = [a-z] [a-z0-9_.-]{0,63}      not "latest", not "v" number, not ending in a dot
//! ```
//!
//! The forms cannot be confused: a day begins with a digit, and a tag that looks like a version number
//! cannot be made. Printing gives the one canonical spelling, so `ads.clicks@latest` prints as
//! `ads.clicks`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::{DatasetName, NameError, shortened};

/// Longest tag, in bytes.
const TAG_MAX: usize = 64;

/// A movable name of a version. Valid by construction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagName(Arc<str>);

/// What follows `@`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VersionRef {
    /// The newest version; also what a selector without `@` means.
    Latest,
    /// Version `n`, counted from 1.
    Number(u64),
    /// The version a tag names now.
    Tag(TagName),
    /// The newest version committed on a day (UTC).
    Day {
        /// Year, four digits.
        year: u16,
        /// 1 to 12.
        month: u8,
        /// 1 to the length of the month.
        day: u8,
    },
}

/// A dataset and which version of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    dataset: DatasetName,
    version: VersionRef,
}

impl Selector {
    /// Joins the two parts.
    pub fn new(dataset: DatasetName, version: VersionRef) -> Self {
        Self { dataset, version }
    }

    /// The dataset.
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// Which version of it.
    pub fn version(&self) -> &VersionRef {
        &self.version
    }
}

impl TagName {
    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Selector {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (dataset, version) = match text.split_once('@') {
            Some((dataset, version)) => (dataset.parse()?, version.parse()?),
            None => (text.parse()?, VersionRef::Latest),
        };
        Ok(Self { dataset, version })
    }
}

impl FromStr for VersionRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(digits) = version_digits(text) {
            let number = digits.parse().ok().filter(|_| !digits.starts_with('0'));
            return number
                .map(Self::Number)
                .ok_or_else(|| NameError::Version(shortened(text)));
        }
        if text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            return parse_day(text).ok_or_else(|| NameError::Version(shortened(text)));
        }
        text.parse().map(Self::Tag)
    }
}

impl FromStr for TagName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-')
        };
        let good = text.len() <= TAG_MAX
            && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && text.bytes().all(inner)
            && !text.ends_with('.')
            && text != "latest"
            && version_digits(text).is_none();
        if good {
            Ok(Self(Arc::from(text)))
        } else {
            Err(NameError::Version(shortened(text)))
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            VersionRef::Latest => write!(f, "{}", self.dataset),
            version => write!(f, "{}@{version}", self.dataset),
        }
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => write!(f, "v{number}"),
            Self::Tag(tag) => write!(f, "{tag}"),
            Self::Day { year, month, day } => write!(f, "{year:04}-{month:02}-{day:02}"),
        }
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The digits of `v<digits>`; None for any other text.
fn version_digits(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('v')?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// `YYYY-MM-DD` of a day that exists.
fn parse_day(text: &str) -> Option<VersionRef> {
    let bytes = text.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !shape {
        return None;
    }
    let (year, month, day): (u16, u8, u8) = (
        text[..4].parse().ok()?,
        text[5..7].parse().ok()?,
        text[8..].parse().ok()?,
    );
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    (1..=length)
        .contains(&day)
        .then_some(VersionRef::Day { year, month, day })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A selector read as another version than the user meant trains on the wrong data.
    #[test]
    fn every_form_means_one_thing() {
        let version = |text: &str| text.parse::<Selector>().unwrap().version().clone();
        assert_eq!(version("ads.clicks"), VersionRef::Latest);
        assert_eq!(version("ads.clicks@latest"), VersionRef::Latest);
        assert_eq!(version("ads.clicks@v12"), VersionRef::Number(12));
        assert_eq!(
            version("ads.clicks@2024-02-29"),
            VersionRef::Day {
                year: 2024,
                month: 2,
                day: 29
            }
        );
        assert_eq!(
            version("ads.clicks@prod"),
            VersionRef::Tag("prod".parse().unwrap())
        );
        assert_eq!(
            version("ads.clicks@v1.2"),
            VersionRef::Tag("v1.2".parse().unwrap())
        );
    }

    // A second spelling of a version would be a second path to the same data.
    #[test]
    fn refuses_what_is_not_canonical() {
        for bad in [
            "@",
            "v0",
            "v01",
            "v99999999999999999999",
            "Prod",
            "2023-02-29",
            "2026-13-01",
            "2026-1-1",
            "2026-11-20T00",
            "12",
            "-x",
            "a/b",
            "..",
            "a.",
            "",
            "prod@v1",
            "п",
        ] {
            assert!(bad.parse::<VersionRef>().is_err(), "{bad:?} was accepted");
            assert!(format!("ads.clicks@{bad}").parse::<Selector>().is_err());
        }
        for reserved in ["latest", "v7"] {
            assert!(
                reserved.parse::<TagName>().is_err(),
                "{reserved:?} became a tag"
            );
        }
    }

    proptest! {
        // Whatever is accepted prints as a text that means the same.
        #[test]
        fn printing_and_parsing_agree(text in "[a-z0-9]{1,3}\\.[a-z0-9_-]{1,3}(@[a-z0-9.-]{1,10})?") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
            }
        }

        // Input comes from the network: no text may panic the parser.
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = text.parse::<Selector>();
            let _ = text.parse::<VersionRef>();
        }
    }
}
