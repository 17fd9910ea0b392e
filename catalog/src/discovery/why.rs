//! Why something is not published, in words a person understands.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::completeness::Missing;

/// Most partitions that one answer names; the others are only counted.
pub const SHOWN: usize = 200;

/// What discovery knows of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// `namespace.table`.
    pub dataset: String,
    /// Where its files lie, without credentials.
    pub location: String,
    /// The newest version, when there is one.
    pub version: Option<u64>,
    /// What holds for the whole table: the store does not answer, the name is taken, ...
    pub trouble: Option<Trouble>,
    /// What was published all the same and a person may want to know.
    pub warnings: Vec<String>,
    /// Partitions that are published as they are now.
    pub complete: u64,
    /// Partitions that a writer has not finished.
    pub syncing: u64,
    /// Partitions that cannot be published until somebody does something.
    pub refused: u64,
    /// The partitions that are not complete, in order, at most [`SHOWN`].
    pub partitions: Vec<PartitionWhy>,
    /// Seconds since the last look that got an answer; none before the first.
    pub looked_seconds_ago: Option<u64>,
}

/// What keeps a whole table back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// In words.
    pub reason: String,
    /// For how long already, seconds.
    pub since_seconds: u64,
}

/// State of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A writer has not finished it.
    Syncing,
    /// Published as it is.
    Complete,
    /// Not publishable until somebody does something.
    Refused,
}

/// Why one partition is not published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionWhy {
    /// Its directory below the table; empty for a table without partitions.
    pub partition: String,
    /// Syncing or refused.
    pub state: State,
    /// In words.
    pub reason: String,
    /// The same, for programs; empty for refused partitions.
    pub missing: Vec<Missing>,
    /// For how long already, seconds.
    pub since_seconds: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        match self {
            Self::Files => f.write_str("no data files yet"),
            Self::StillChanging { files } => {
                write!(f, "{files} file{} still changing", plural(*files))
            }
            Self::Staging { entries } => {
                write!(
                    f,
                    "{entries} staging file{} of a writer left",
                    plural(*entries)
                )
            }
            Self::Marker => f.write_str("marker file missing"),
            Self::Announcement => f.write_str("waiting for a call or a manifest file"),
            Self::Vanished { files } => write!(
                f,
                "{files} published file{} gone without a new marker; waiting whether that stays so",
                plural(*files)
            ),
            Self::OldMarker { behind_ms } => {
                write!(
                    f,
                    "marker file is {} older than the newest file",
                    age(*behind_ms / 1000)
                )
            }
            Self::Tie => f.write_str("marker file is as old as the newest file; looking once more"),
            Self::Siblings => f.write_str("complete; waiting for partitions of the same job"),
            Self::Quiet { seconds, wanted } => {
                write!(
                    f,
                    "unchanged for {} of {}",
                    age(clamp(*seconds)),
                    age(clamp(*wanted))
                )
            }
            Self::Manifest(found) if found.broken => {
                f.write_str("the manifest file cannot be read")
            }
            Self::Manifest(found) => write!(
                f,
                "the manifest file does not agree: {} missing, {} different, {} not listed",
                found.missing, found.different, found.extra
            ),
            Self::Expected {
                what,
                wanted,
                found: Some(found),
            } => {
                write!(f, "{wanted} {what} expected, {found} found")
            }
            Self::Expected {
                what,
                wanted,
                found: None,
            } => {
                write!(f, "{wanted} {what} expected, and the files do not tell")
            }
        }
    }
}

/// Everything that is missing, joined.
pub(crate) fn words(missing: &[Missing]) -> String {
    let each: Vec<String> = missing.iter().map(Missing::to_string).collect();
    each.join(", ")
}

fn clamp(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// `40 s`, `12 min`, `3 h`, `2 d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

impl fmt::Display for PartitionWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.partition.is_empty() {
            "table"
        } else {
            &self.partition
        };
        write!(
            f,
            "{name}: {}, since {}",
            self.reason,
            age(clamp(self.since_seconds))
        )
    }
}

impl fmt::Display for Why {
    /// One line for the table, one for each partition that is not complete.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self
            .version
            .map_or("not published".to_owned(), |version| format!("v{version}"));
        writeln!(
            f,
            "{} ({version}) at {}: {} complete, {} syncing, {} refused",
            self.dataset, self.location, self.complete, self.syncing, self.refused
        )?;
        if let Some(trouble) = &self.trouble {
            writeln!(
                f,
                "  {}, since {}",
                trouble.reason,
                age(clamp(trouble.since_seconds))
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "  {warning}")?;
        }
        for partition in &self.partitions {
            writeln!(f, "  {partition}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The reason is read by somebody whose table does not appear: it must say what to wait for.
    #[test]
    fn reasons_are_sentences() {
        let missing = vec![Missing::StillChanging { files: 3 }, Missing::Marker];
        let why = PartitionWhy {
            partition: "dt=2026-11-20".to_owned(),
            state: State::Syncing,
            reason: words(&missing),
            missing,
            since_seconds: 725,
        };
        let expected = "dt=2026-11-20: 3 files still changing, marker file missing, since 12 min";
        assert_eq!(why.to_string(), expected);
        assert_eq!(
            Missing::OldMarker { behind_ms: 40_000 }.to_string(),
            "marker file is 40 s older than the newest file"
        );
    }
}
