//! Numbers of versions, events and seconds as clients send them: whole, and not so large that a reader of
//! JSON would change them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Greatest number that every reader of JSON keeps exact (2^53 - 1; RFC 8259, section 6).
const MAX: u64 = (1 << 53) - 1;

/// A whole number up to [`MAX`]. `7.0` is one: JSON knows no other kind of number, and schemas say so.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {MAX}")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Whole, E> {
        match value {
            0..=MAX => Ok(Whole(value)),
            _ => Err(E::invalid_value(
                serde::de::Unexpected::Unsigned(value),
                &self,
            )),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Whole, E> {
        match value.fract() == 0.0 && (0.0..=MAX as f64).contains(&value) {
            true => Ok(Whole(value as u64)),
            false => Err(E::invalid_value(serde::de::Unexpected::Float(value), &self)),
        }
    }
}

/// A number from 1.
pub(super) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Whole::deserialize(deserializer)? {
        Whole(0) => Err(D::Error::custom("0 is less than 1")),
        Whole(number) => Ok(number),
    }
}

/// A number, or none.
pub(super) fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<Whole>::deserialize(deserializer)?;
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
