//! What is below `deploy/`, judged by the tools that will use it: Helm, the schemas of Kubernetes, kubectl,
//! promtool, hadolint, systemd, and this workspace's own binary.
//!
//! Each test runs one script of this directory with the Python of `tests/servers/packaging.py`
//! (`TERRACE_TEST_PACKAGING`). A script ends with 0, or with 1 and everything that is wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit status of a script for which this machine lacks something.
const LACKING: i32 = 77;

/// Runs one script; its failure is the test's.
fn judge(test: &str, script: &str) {
    let Some(tools) = std::env::var_os("TERRACE_TEST_PACKAGING").map(PathBuf::from) else {
        println!("SKIP {test}: no packaging tools (tests/servers/packaging.py)");
        return;
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy");
    let done = Command::new(tools.join("python"))
        .arg(here.join(script))
        .env("TERRACE_BINARY", env!("CARGO_BIN_EXE_terrace"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let wrong = String::from_utf8_lossy(&done.stderr);
    if done.status.code() == Some(LACKING) {
        println!("SKIP {test}: {}", wrong.trim());
        return;
    }
    assert!(done.status.success(), "{script}:\n{said}{wrong}");
    println!("{}", said.trim());
}

// Without it a chart could be published that some release of Kubernetes, or Helm itself, refuses.
#[test]
fn kubernetes_takes_the_chart() {
    judge("kubernetes_takes_the_chart", "chart.py");
}

// Without it a typing error in somebody's values would be a default that nobody notices.
#[test]
fn wrong_values_are_refused() {
    judge("wrong_values_are_refused", "refused.py");
}

// Without it a value could be documented that is not there, or with another default.
#[test]
fn the_readme_lists_the_values() {
    judge("the_readme_lists_the_values", "values.py");
}

// Without it a container or an account could get more rights than it needs, one line at a time.
#[test]
fn the_chart_keeps_its_rights_small() {
    judge("the_chart_keeps_its_rights_small", "rights.py");
}

// Without it pods and services could start a command line, or a configuration, that the binary refuses.
#[test]
fn the_binary_takes_its_commands() {
    judge("the_binary_takes_its_commands", "commands.py");
}

// Without it people who use kustomize would install something else than people who use Helm.
#[test]
fn kustomize_equals_the_chart() {
    judge("kustomize_equals_the_chart", "kustomize.py");
}

// Without it the first thing that a user copies could be refused by the API server.
#[test]
fn kubernetes_takes_the_examples() {
    judge("kubernetes_takes_the_examples", "examples.py");
}

// Without it a dashboard could stay empty, and an alert silent, because a metric has another name.
#[test]
fn dashboard_and_alerts_know_the_metrics() {
    judge("dashboard_and_alerts_know_the_metrics", "monitoring.py");
}

// Without it a bare host could get units that systemd does not load.
#[test]
fn systemd_takes_the_units() {
    judge("systemd_takes_the_units", "units.py");
}

// Without it the image could lack a library, differ from build to build, or have a shell in it.
#[test]
fn the_image_is_whole_and_small() {
    judge("the_image_is_whole_and_small", "image.py");
}

// Without it an upgrade of a keeper's pod or unit could end the mounts that jobs read.
#[test]
fn upgrades_keep_mounts() {
    judge("upgrades_keep_mounts", "handover.py");
}

// Without it a pod could fail on its first start: by a right, a certificate, or its configuration.
#[test]
fn programs_start_as_in_their_pods() {
    judge("programs_start_as_in_their_pods", "pod.py");
}
