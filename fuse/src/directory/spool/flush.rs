//! Bringing everything that is staged to a level, because somebody asks.

use super::super::durability::Level;
use super::Spool;

/// How far a flush has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Files that are at the level.
    pub done: u64,
    /// Files there are.
    pub total: u64,
    /// Bytes of those that are.
    pub bytes: u64,
    /// Files that could not be brought there.
    pub failed: u64,
    /// The first of those, and why.
    pub error: String,
}

/// A handle that nobody has.
const NOBODY: u64 = 0;

impl Spool {
    /// Brings these files, or all, to `level`; `tell` hears of each, and ends it with `false`.
    pub(in super::super) fn flush(
        &self,
        level: Level,
        only: Option<&[u64]>,
        tell: &mut dyn FnMut(&Flushed) -> bool,
    ) -> Flushed {
        let mut stages = self.stages();
        stages.retain(|stage| only.is_none_or(|only| only.contains(&stage.node)));
        stages.sort_by_key(|stage| stage.id);
        let mut flushed = Flushed {
            total: stages.len() as u64,
            ..Flushed::default()
        };
        for stage in stages {
            if !tell(&flushed) {
                break;
            }
            let bytes = stage.stat().map_or(0, |stat| stat.st_size.unsigned_abs());
            match self.reach(&stage, NOBODY, level, false) {
                Ok(()) => {
                    flushed.done += 1;
                    flushed.bytes += bytes;
                }
                Err(errno) => {
                    flushed.failed += 1;
                    if flushed.error.is_empty() {
                        let problem = stage.lock().problem.clone();
                        let why = problem.map_or_else(|| errno.to_string(), |known| known.why);
                        flushed.error = format!("{}: {why}", stage.name);
                    }
                }
            }
        }
        flushed
    }
}
