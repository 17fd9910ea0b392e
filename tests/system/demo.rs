//! The demonstration as its user starts it, with a small sample.

use std::process::{Command, Stdio};

use crate::support::{need_mount, need_s3};

// The first thing that anybody runs: without it `make demo` could rot for months.
#[test]
fn the_demonstration_runs_to_its_end() {
    need_mount!("the_demonstration_runs_to_its_end");
    // It brings a server of its own; where this run has none, none can be had.
    let _ = need_s3!("the_demonstration_runs_to_its_end");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/demo/demo.py");
    let output = Command::new("python3")
        .args([script, "--once", "--images", "60", "--rows", "3000"])
        .env("TERRACE_BINARY", env!("CARGO_BIN_EXE_terrace"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    for part in [
        "demo.clicks v1 listed",
        "demo.images v1 listed",
        "of native",
        "every byte compared: 72 files are the same",
        "mean_price",
        "demo.clicks v2 listed",
        "every byte compared: 76 files are the same",
        "killed while 64 MiB were written: every byte is there",
        "moved 1 of 1 files",
        "67,108,864 bytes to whoever looks, 0 on the disk below",
        "back from the store after",
        "http://127.0.0.1:",
    ] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    let published = said.lines().filter(|line| line.contains("listed"));
    published.for_each(|line| println!("{line}"));
}
