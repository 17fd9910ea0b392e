//! `terrace bench`: the read suites of a directory, paired with a native directory.
//!
//! What is claimed about speed is a ratio taken inside one run: each round runs a suite on the native
//! directory and on ours, in alternating order, and the ratio of that pair is kept. The report is the
//! median of the ratios with their range. Absolute numbers on a shared machine mean little.
//!
//! States: *hot* (in the page cache), *warm* (on the disk, page cache dropped before each run).
//! Dropping the page cache needs root; without it the warm suites are skipped and say so.

mod data;
mod report;
mod suites;

pub(crate) use data::Sample;
pub(crate) use report::{Report, SuiteResult};
pub(crate) use suites::{SUITES, Suite};

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The directory under test.
    pub(crate) dir: PathBuf,
    /// The same files on a native file system.
    pub(crate) against: Option<PathBuf>,
    /// Pairs of runs for each suite.
    pub(crate) rounds: u32,
    /// Names of suites to run; empty: all that the files allow.
    pub(crate) only: Vec<String>,
}

/// Runs `plan`, telling `progress` (suite name, round) before each pair.
///
/// Errors: the directories cannot be read, or do not hold the same files.
pub(crate) fn run(plan: &Plan, mut progress: impl FnMut(&str, u32)) -> Result<Report> {
    let ours = Sample::collect(&plan.dir)?;
    let native = match &plan.against {
        Some(dir) => {
            let native = Sample::collect(dir)?;
            ours.same_files(&native).with_context(|| {
                format!("compare {} with {}", plan.dir.display(), dir.display())
            })?;
            Some(native)
        }
        None => None,
    };
    let mut report = Report::new(plan, &ours);
    for suite in SUITES
        .iter()
        .filter(|s| plan.only.is_empty() || plan.only.contains(&s.name()))
    {
        match suite.applies(&ours) {
            Ok(()) => {
                let result = run_suite(*suite, plan, &ours, native.as_ref(), &mut progress)?;
                report.suites.push(result);
            }
            Err(why) => report.skipped.push((suite.name(), why)),
        }
    }
    Ok(report)
}

fn run_suite(
    suite: Suite,
    plan: &Plan,
    ours: &Sample,
    native: Option<&Sample>,
    progress: &mut impl FnMut(&str, u32),
) -> Result<SuiteResult> {
    let name = suite.name();
    // One run of each side that is not counted: fills caches and settles the open modes.
    suite
        .run(ours)
        .with_context(|| format!("run {name} on {}", plan.dir.display()))?;
    if let Some(native) = native {
        suite.run(native)?;
    }
    let mut result = SuiteResult::new(name.clone(), suite.unit());
    for round in 0..plan.rounds {
        progress(&name, round);
        let Some(native) = native else {
            result.ours.push(suite.run(ours)?);
            continue;
        };
        // Alternate who goes first, so that neither side always meets a warmer machine.
        let (a, b) = if round % 2 == 0 {
            let b = suite.run(native)?;
            (suite.run(ours)?, b)
        } else {
            (suite.run(ours)?, suite.run(native)?)
        };
        result.ours.push(a);
        result.native.push(b);
    }
    Ok(result)
}

/// Drops the page cache, dentries and inodes of the whole machine.
pub(crate) fn drop_caches() -> Result<()> {
    nix::unistd::sync();
    std::fs::write(Path::new("/proc/sys/vm/drop_caches"), "3")
        .context("drop the page cache (needs root)")
}
