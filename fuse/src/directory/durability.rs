//! How durable a file is to be when close(2) and fsync(2) return, by path.
//!
//! ```text
//! rules  = rule *              the first whose pattern matches a file's path decides
//! rule   = [pattern ":"] level-of ("," level-of)*
//! level-of = ("fsync" | "close") "=" ("accepted" | "local" | "shared" | "cold")
//! ```
//! A pattern is a glob over the path below the volume's root: `*` and `?` stay within one component,
//! `**` is any number of them. A rule that names only one of the two calls has the usual level for the
//! other: `fsync=shared`, `close=local`. A file that no rule matches has `fsync=shared,close=accepted`,
//! which is what a volume without rules does.
//!
//! | level      | has happened before the call returns                              | survives            |
//! | ---------- | ----------------------------------------------------------------- | ------------------- |
//! | `accepted` | what write(2) does                                                | the worker's death  |
//! | `local`    | the bytes are on this node's SSD, with all that finds them again  | power loss          |
//! | `shared`   | the bytes are in the directory, synced there                      | loss of the node    |
//! | `cold`     | a checked copy is in the cold store                               | loss of the others  |
//!
//! O_SYNC and O_DSYNC do after each write what fsync does. Rules outlive the worker as their text.

use std::fmt;

use glob::{MatchOptions, Pattern};

/// How safe bytes are; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Written, and no more.
    Accepted,
    /// On this node's SSD.
    Local,
    /// In the directory.
    Shared,
    /// In the cold store.
    Cold,
}

impl Level {
    /// Its word in rules, commands and attributes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Local => "local",
            Self::Shared => "shared",
            Self::Cold => "cold",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Level {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let all = [Self::Accepted, Self::Local, Self::Shared, Self::Cold];
        let found = all.into_iter().find(|level| level.name() == text);
        found.ok_or_else(|| RuleError::Level(text.to_owned()))
    }
}

/// What a rule says that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No such level.
    #[error("`{0}` is not a level; levels are accepted, local, shared and cold")]
    Level(String),
    /// Neither of the two calls.
    #[error("`{0}` is not a rule; try fsync=local,close=local or 'ckpt/**:fsync=local'")]
    Rule(String),
    /// The pattern.
    #[error("`{0}` is not a pattern: {1}")]
    Pattern(String, String),
    /// Nothing below `local` is worth a system call.
    #[error("fsync=accepted would promise nothing; the least is fsync=local")]
    NothingPromised,
    /// There is no cold store behind the volume.
    #[error(
        "the level cold needs a cold store behind the volume; mount with --cold URL, or use shared"
    )]
    NoCold,
}

/// What is promised for one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// When fsync(2) returns, and each write with O_SYNC.
    pub fsync: Level,
    /// When close(2) returns.
    pub close: Level,
}

impl Levels {
    /// Where no rule matches: what the directory does by itself.
    pub const UNRULED: Self = Self {
        fsync: Level::Shared,
        close: Level::Accepted,
    };

    /// A rule's, where it does not say.
    const USUAL: Self = Self {
        fsync: Level::Shared,
        close: Level::Local,
    };

    /// Whether this node's SSD is enough for all that is promised.
    pub fn may_stage(self) -> bool {
        self.fsync == Level::Local && self.close <= Level::Local
    }

    /// Whether one of the calls promises a copy in the cold store.
    pub(super) fn names_cold(self) -> bool {
        self.fsync.max(self.close) == Level::Cold
    }

    /// What satisfies both.
    #[must_use]
    pub fn stronger(self, other: Self) -> Self {
        Self {
            fsync: self.fsync.max(other.fsync),
            close: self.close.max(other.close),
        }
    }
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Option<Pattern>,
    levels: Levels,
}

/// The rules of a volume.
#[derive(Clone, Debug, Default)]
pub struct Durability {
    rules: Vec<Rule>,
}

impl Durability {
    /// Understands rules.
    ///
    /// Errors: see [`RuleError`].
    pub fn parse<T: AsRef<str>>(rules: &[T]) -> Result<Self, RuleError> {
        let rules = rules.iter().map(|rule| parse(rule.as_ref()));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// Whether any file may be staged, so that there has to be a spool.
    pub fn stages(&self) -> bool {
        self.rules.iter().any(|rule| rule.levels.may_stage())
    }

    /// Refuses rules that promise the level cold where there is no cold store.
    ///
    /// Errors: [`RuleError::NoCold`].
    pub fn check(&self, has_cold: bool) -> Result<(), RuleError> {
        match self.names_cold() && !has_cold {
            true => Err(RuleError::NoCold),
            false => Ok(()),
        }
    }

    /// Whether a rule promises the level cold.
    pub(super) fn names_cold(&self) -> bool {
        self.rules.iter().any(|rule| rule.levels.names_cold())
    }

    /// Whether no rule was given.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a file's path decides.
    pub(super) fn needs_paths(&self) -> bool {
        self.rules.iter().any(|rule| rule.pattern.is_some())
    }

    /// The levels of a file at `path` below the root; of one whose path nobody knows, what satisfies
    /// every rule.
    pub fn levels(&self, path: Option<&str>) -> Levels {
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        for rule in &self.rules {
            match (&rule.pattern, path) {
                (None, _) if path.is_some() || !self.needs_paths() => return rule.levels,
                (Some(pattern), Some(path)) if pattern.matches_with(path, options) => {
                    return rule.levels;
                }
                _ => {}
            }
        }
        if path.is_some() || !self.needs_paths() {
            return Levels::UNRULED;
        }
        let all = self.rules.iter().map(|rule| rule.levels);
        all.fold(Levels::UNRULED, Levels::stronger)
    }
}

fn parse(text: &str) -> Result<Rule, RuleError> {
    let (pattern, levels) = match text.rsplit_once(':') {
        Some((pattern, levels)) => (Some(pattern), levels),
        None => (None, text),
    };
    let pattern = pattern.map(|text| {
        let bad = |error: glob::PatternError| RuleError::Pattern(text.to_owned(), error.msg.into());
        Pattern::new(text.trim_start_matches('/')).map_err(bad)
    });
    let mut named = Levels::USUAL;
    for part in levels.split(',') {
        let (call, level) = part
            .split_once('=')
            .ok_or_else(|| RuleError::Rule(text.to_owned()))?;
        let level: Level = level.trim().parse()?;
        match (call.trim(), level) {
            ("fsync", Level::Accepted) => return Err(RuleError::NothingPromised),
            ("fsync", level) => named.fsync = level,
            ("close", level) => named.close = level,
            _ => return Err(RuleError::Rule(text.to_owned())),
        }
    }
    Ok(Rule {
        pattern: pattern.transpose()?,
        levels: named,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn levels(rules: &[&str], path: Option<&str>) -> String {
        let levels = Durability::parse(rules).unwrap().levels(path);
        format!("{},{}", levels.fsync, levels.close)
    }

    // Without it a file would be less durable than somebody asked for.
    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = ["ckpt/**:fsync=local", "*.log:fsync=shared,close=accepted"];
        for (path, expected) in [
            ("ckpt/step1/model.pt", "local,local"),
            ("a.log", "shared,accepted"),
            ("deep/a.log", "shared,accepted"),
            ("other", "shared,accepted"),
        ] {
            assert_eq!(levels(&rules, Some(path)), expected, "{path}");
        }
        let all = ["/scratch/*:fsync=local,close=accepted", "fsync=shared"];
        assert_eq!(levels(&all, Some("scratch/x")), "local,accepted");
        assert_eq!(levels(&all, Some("scratch/x/y")), "shared,local");
        assert_eq!(levels(&["fsync=local"], None), "local,local");
        assert_eq!(levels(&[], None), "shared,accepted");
        assert!(!Durability::parse(&["close=shared"]).unwrap().stages());
    }

    // Without it a file that lost its path (an open of a number by a new worker) would be staged
    // although a rule asks for more.
    #[test]
    fn a_file_without_a_path_gets_what_satisfies_every_rule() {
        let rules = ["ckpt/**:fsync=local", "safe/**:fsync=shared,close=shared"];
        assert_eq!(levels(&rules, None), "shared,shared");
    }

    // Without it a volume would promise copies in a store that it does not have.
    #[test]
    fn the_level_cold_needs_a_cold_store() {
        for rules in [["close=cold"], ["safe/**:fsync=cold"]] {
            let rules = Durability::parse(&rules).unwrap();
            assert_eq!(rules.check(false), Err(RuleError::NoCold));
            assert_eq!(rules.check(true), Ok(()));
            assert!(!rules.stages());
        }
        assert_eq!(Durability::default().check(false), Ok(()));
    }

    // Without it a misspelt rule would silently promise less.
    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in [
            "",
            "local",
            "fsync",
            "fsync=",
            "fsync=now",
            "sync=local",
            "fsync=accepted",
            "***:fsync=local",
            "fsync=local,,close=local",
        ] {
            assert!(Durability::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
