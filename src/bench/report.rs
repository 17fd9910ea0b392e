//! The report of a benchmark: medians and ranges, as a table or JSON.

use std::fmt;

use serde::Serialize;

use super::Plan;
use super::data::Sample;

/// Everything one run of `terrace bench` found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Directory under test.
    pub(crate) dir: String,
    /// Native directory, when paired.
    pub(crate) against: Option<String>,
    /// Pairs of runs for each suite.
    pub(crate) rounds: u32,
    /// Entries in the tree.
    pub(crate) entries: u64,
    /// Results.
    pub(crate) suites: Vec<SuiteResult>,
    /// Suites that could not run here, and why.
    pub(crate) skipped: Vec<(String, String)>,
}

/// Rates of one suite, one for each round.
#[derive(Debug, Serialize)]
pub(crate) struct SuiteResult {
    /// Name of the suite.
    pub(crate) name: String,
    /// Unit of the rates.
    pub(crate) unit: &'static str,
    /// Rates of the directory under test.
    pub(crate) ours: Vec<f64>,
    /// Rates of the native directory, in the same rounds.
    pub(crate) native: Vec<f64>,
}

impl SuiteResult {
    pub(crate) fn new(name: String, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            ours: Vec::new(),
            native: Vec::new(),
        }
    }

    /// Ratio of each round, ours to native.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.ours
            .iter()
            .zip(&self.native)
            .map(|(ours, native)| ours / native)
            .collect()
    }
}

impl Report {
    pub(crate) fn new(plan: &Plan, sample: &Sample) -> Self {
        Self {
            dir: plan.dir.display().to_string(),
            against: plan.against.as_ref().map(|dir| dir.display().to_string()),
            rounds: plan.rounds,
            entries: sample.entries,
            suites: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// The report as one JSON document, with medians and ratios worked out.
    pub(crate) fn json(&self) -> serde_json::Value {
        let suites: Vec<_> = self
            .suites
            .iter()
            .map(|suite| {
                serde_json::json!({
                    "name": suite.name, "unit": suite.unit,
                    "ours": median(&suite.ours), "native": median(&suite.native),
                    "ratio": median(&suite.ratios()),
                    "ours_rounds": suite.ours, "native_rounds": suite.native,
                })
            })
            .collect();
        let skipped: Vec<_> = self
            .skipped
            .iter()
            .map(|(name, why)| serde_json::json!({"name": name, "reason": why}))
            .collect();
        serde_json::json!({
            "dir": self.dir, "against": self.against, "rounds": self.rounds,
            "entries": self.entries, "suites": suites, "skipped": skipped,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["suite", "unit", "this", "native", "ratio", "min", "max"];
        writeln!(
            f,
            "{:<12} {:<10} {:>12} {:>12} {:>7} {:>7} {:>7}",
            head[0], head[1], head[2], head[3], head[4], head[5], head[6]
        )?;
        for suite in &self.suites {
            let number = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            };
            let ratios = suite.ratios();
            writeln!(
                f,
                "{:<12} {:<10} {:>12} {:>12} {:>7} {:>7} {:>7}",
                suite.name,
                suite.unit,
                number(median(&suite.ours), 0),
                number(median(&suite.native), 0),
                number(median(&ratios), 3),
                number(ratios.iter().copied().reduce(f64::min), 3),
                number(ratios.iter().copied().reduce(f64::max), 3),
            )?;
        }
        for (name, why) in &self.skipped {
            writeln!(f, "{name:<12} skipped: {why}")?;
        }
        Ok(())
    }
}

/// Middle value; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}
