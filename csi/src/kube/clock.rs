//! Times as Kubernetes writes them: RFC 3339, UTC.

use chrono::{DateTime, SecondsFormat, Utc};

/// Now.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from(std::time::SystemTime::now())
}

/// To the second: `Time` of the API.
pub(crate) fn seconds(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// To the microsecond: `MicroTime` of the API.
pub(crate) fn micros(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A time from the catalog, which counts milliseconds since 1970.
pub(crate) fn from_millis(millis: i64) -> Option<String> {
    DateTime::from_timestamp_millis(millis).map(seconds)
}

/// A time that somebody wrote; none when it is none.
pub(crate) fn parse(text: &str) -> Option<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text);
    parsed.ok().map(|time| time.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A time in another form is refused by an API server, with the whole object.
    #[test]
    fn times_are_written_as_the_api_reads_them() {
        assert_eq!(from_millis(0).unwrap(), "1970-01-01T00:00:00Z");
        let time = parse("2026-01-02T03:04:05.000006Z").unwrap();
        assert_eq!(micros(time), "2026-01-02T03:04:05.000006Z");
        assert_eq!(seconds(time), "2026-01-02T03:04:05Z");
        assert!(parse("yesterday").is_none() && from_millis(i64::MAX).is_none());
    }
}
