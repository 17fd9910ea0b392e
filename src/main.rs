//! The `terrace` binary: parses the command line, sets up logging and runs one command.

use std::process::ExitCode;

mod bench;
mod catalog;
mod cli;
mod control;
mod csi;
mod doctor;
mod metrics;
mod node;
mod telemetry;

fn main() -> ExitCode {
    cli::main()
}
