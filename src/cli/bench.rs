//! `terrace bench`: how fast a directory reads, paired with a native one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, Global};
use crate::bench::{self, Plan, SUITES};

/// Run the read suites on DIR; with --against, paired with the same files on a native file system.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  \
    cp -a /data/images/. /ssd/native/ && terrace bench /data/images --against /ssd/native\n\n\
    Put both on the same disk; on noisy disks use a loop device on memory for both.\n\
    The ratio is the median over the rounds of (this / native) in the same round.")]
pub(crate) struct BenchArgs {
    /// Directory to measure, usually below a mount
    dir: PathBuf,
    /// The same files in a native directory
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Pairs of runs for each suite
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Run only these suites (comma separated)
    #[arg(long, value_delimiter = ',', value_name = "SUITE",
          value_parser = clap::builder::PossibleValuesParser::new(
              ["seq-hot", "seq-warm", "mmap-warm", "direct-4k", "rand-4k-hot", "small-hot",
               "small-warm", "list-hot"]))]
    only: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &BenchArgs, _global: &Global) -> Result<(), Failure> {
    let plan = Plan {
        dir: args.dir.clone(),
        against: args.against.clone(),
        rounds: args.rounds,
        only: args.only.clone(),
    };
    let suites = if args.only.is_empty() {
        SUITES.len()
    } else {
        args.only.len()
    };
    let bar = ProgressBar::new(suites as u64 * u64::from(args.rounds));
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}")
            .expect("the template is a constant"),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    let report = bench::run(&plan, |suite, _| {
        bar.set_message(suite.to_owned());
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{report}");
    }
    Ok(())
}
