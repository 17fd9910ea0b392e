//! Numbers as clients send them: whole, and of versions, events and seconds not so large that a reader of
//! JSON would change them. Counts of bytes may be larger, up to what the document's `int64` holds: a reader
//! that rounds them says nothing else by it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Greatest number that every reader of JSON keeps exact (2^53 - 1; RFC 8259, section 6).
const MAX: u64 = (1 << 53) - 1;

/// Greatest count of bytes: what the format `int64` of the document holds.
const MAX_BYTES: u64 = i64::MAX as u64;

/// A whole number up to `MOST`. `7.0` is one: JSON knows no other kind of number, and schemas say so.
struct Whole<const MOST: u64>(u64);

impl<'de, const MOST: u64> Deserialize<'de> for Whole<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(Reader)
    }
}

struct Reader<const MOST: u64>;

impl<const MOST: u64> Visitor<'_> for Reader<MOST> {
    type Value = Whole<MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {MOST}")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Whole<MOST>, E> {
        match value <= MOST {
            true => Ok(Whole(value)),
            false => Err(E::invalid_value(
                serde::de::Unexpected::Unsigned(value),
                &self,
            )),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Whole<MOST>, E> {
        // Below 2^53 each whole number is one value of the type, and above it is not known which was meant.
        match value.fract() == 0.0 && (0.0..=MAX as f64).contains(&value) {
            true => Ok(Whole(value as u64)),
            false => Err(E::invalid_value(serde::de::Unexpected::Float(value), &self)),
        }
    }
}

/// A count of bytes.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let Whole(number) = Whole::<MAX_BYTES>::deserialize(deserializer)?;
    Ok(number)
}

/// A count of bytes, or none.
pub(super) fn some_bytes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let number = Option::<Whole<MAX_BYTES>>::deserialize(deserializer)?;
    Ok(number.map(|Whole(number)| number))
}

/// A number from 1.
pub(super) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Whole::<MAX>::deserialize(deserializer)? {
        Whole(0) => Err(D::Error::custom("0 is less than 1")),
        Whole(number) => Ok(number),
    }
}

/// A number, or none.
pub(super) fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<Whole<MAX>>::deserialize(deserializer)?;
    Ok(number.map(|Whole(number)| number))
}

/// A number from 1, or none.
pub(super) fn some_positive<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    match some(deserializer)? {
        Some(0) => Err(D::Error::custom("0 is less than 1")),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Body {
        #[serde(deserialize_with = "super::positive")]
        n: u64,
        #[serde(default, deserialize_with = "super::some_positive")]
        m: Option<u64>,
        #[serde(default, deserialize_with = "super::bytes")]
        b: u64,
    }

    // A report of a node is refused for one number in it: its sizes must all be readable.
    #[test]
    fn bytes_are_whole_and_fit_the_documents_numbers() {
        for (text, expected) in [
            (r#"{"n":1,"b":0}"#, Some(0)),
            (r#"{"n":1,"b":4096.0}"#, Some(4096)),
            (r#"{"n":1,"b":9223372036854775807}"#, Some(super::MAX_BYTES)),
            (r#"{"n":1,"b":9223372036854775808}"#, None),
            (r#"{"n":1,"b":1e18}"#, None),
            (r#"{"n":1,"b":-1}"#, None),
            (r#"{"n":1,"b":0.5}"#, None),
            (r#"{"n":1,"b":null}"#, None),
        ] {
            let read = serde_json::from_str::<Body>(text).ok();
            assert_eq!(read.map(|body| body.b), expected, "{text}");
        }
    }

    // A number that is read as another one names another version.
    #[test]
    fn numbers_are_whole_and_exact() {
        for (text, expected) in [
            (r#"{"n":7}"#, Some((7, None))),
            (r#"{"n":7.0,"m":1e3}"#, Some((7, Some(1000)))),
            (
                r#"{"n":9007199254740991,"m":null}"#,
                Some((super::MAX, None)),
            ),
            (r#"{"n":0}"#, None),
            (r#"{"n":1,"m":0}"#, None),
            (r#"{"n":7.5}"#, None),
            (r#"{"n":-1}"#, None),
            (r#"{"n":9007199254740992}"#, None),
            (r#"{"n":1e300}"#, None),
            (r#"{"n":"7"}"#, None),
            (r#"{"n":true}"#, None),
        ] {
            let read = serde_json::from_str::<Body>(text).ok();
            assert_eq!(read.map(|body| (body.n, body.m)), expected, "{text}");
        }
        let query = serde_urlencoded::from_str::<Body>("n=7&m=8").ok();
        assert_eq!(query.map(|body| (body.n, body.m)), Some((7, Some(8))));
        assert!(serde_urlencoded::from_str::<Body>("n=7.5").is_err());
    }
}
