//! Times as people write them: `90d`, `10m`, `250ms`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A whole number and a unit. None for anything else, and for more than 100 years.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let millis = number.parse::<u64>().ok()?.checked_mul(*factor)?;
    (millis <= 36_525 * 86_400_000).then(|| Duration::from_millis(millis))
}

/// The shortest text that means exactly this.
pub(super) fn print_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = UNITS
        .iter()
        .rev()
        .find(|(_, factor)| millis % factor == 0 && millis > 0);
    let (name, factor) = unit.unwrap_or(&UNITS[1]);
    format!("{}{name}", millis / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    // A time read as another unit keeps versions for 90 minutes instead of 90 days.
    #[test]
    fn times_mean_what_they_say() {
        for (text, millis) in [
            ("250ms", 250),
            ("10m", 600_000),
            ("90d", 7_776_000_000),
            ("0s", 0),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Some(duration));
            assert_eq!(print_duration(duration), text);
        }
        for bad in [
            "",
            "10",
            "m",
            "-1s",
            "1.5h",
            "1 h",
            "1w",
            "99999999999999999999s",
            "40000d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }
}
