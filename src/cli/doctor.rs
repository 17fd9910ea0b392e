//! `terrace doctor`: prints the checks; fails when a mount could not work.

use std::path::PathBuf;

use clap::Args;
use terrace_cache::store::Credentials;

use super::{Failure, Global};
use crate::doctor::{self, Outcome, Subject};

/// Say what this machine can do for Terrace, what is wrong and what to try.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Sources to reach, for example s3://bucket/prefix
    sources: Vec<String>,
    /// The hot directory to look at
    #[arg(long, value_name = "DIR", default_value = super::DEFAULT_HOT)]
    hot: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DoctorArgs, _global: &Global) -> Result<(), Failure> {
    let checks = doctor::examine(&Subject {
        hot: args.hot.clone(),
        sources: args.sources.clone(),
        credentials: Credentials::new(super::credential_environment()),
    });
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "checks": checks }))?
        );
    } else {
        for check in &checks {
            let mark = match check.outcome {
                Outcome::Ok => "ok  ",
                Outcome::Warn => "warn",
                Outcome::Fail => "FAIL",
            };
            println!("{mark}  {:<16} {}", check.name, check.found);
            if !check.hint.is_empty() {
                println!("      {:<16} try: {}", "", check.hint);
            }
        }
    }
    let failed = checks
        .iter()
        .filter(|check| check.outcome == Outcome::Fail)
        .count();
    if failed > 0 {
        return Err(Failure(format!(
            "{failed} of {} checks failed; see above",
            checks.len()
        )));
    }
    Ok(())
}
