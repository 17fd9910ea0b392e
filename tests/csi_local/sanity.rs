//! `csi-sanity`, the judge of CSI drivers, with nothing skipped by request.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{World, text};

/// Tests of what a local directory cannot have: it is attached to nothing, and there are no groups.
const SKIPPED: [&str; 4] = [
    "GroupController Service [GroupController",
    "Controller Service [Controller Server] ControllerPublishVolume",
    "Controller Service [Controller Server] ControllerUnpublishVolume",
    "Controller Service [Controller Server] volume lifecycle",
];

/// A test that the judge itself has put aside.
const PENDING: &str = "pagination should detect volumes added between pages";

/// Runs it against the sockets of these roles and judges its report.
fn judge(test: &str, roles: &[&str], controller: &str, node: &str) {
    let Some(programs) = std::env::var_os("TERRACE_TEST_CSI") else {
        println!("SKIP {test}: no csi-sanity (TERRACE_TEST_CSI is not set)");
        return;
    };
    let Some(world) = World::new(test, roles) else {
        return;
    };
    let (parameters, mutable) = (world.file("parameters.yaml"), world.file("mutable.yaml"));
    fs::write(&parameters, "scratch: \"true\"\n").unwrap();
    // The one cap that every node can keep.
    fs::write(&mutable, "writeBytesPerSecond: max\n").unwrap();
    let report = world.file("junit.xml");
    let socket = |role: &str| format!("unix://{}", text(&world.socket(role)));
    let mut command = Command::new(Path::new(&programs).join("csi-sanity"));
    for (name, value) in [
        ("csi.endpoint", socket(node)),
        ("csi.controllerendpoint", socket(controller)),
        ("csi.mountdir", text(&world.kubelet().join("pods/sanity"))),
        (
            "csi.stagingdir",
            text(&world.kubelet().join("pods/staging")),
        ),
        ("csi.testvolumeparameters", text(&parameters)),
        ("csi.testvolumemutableparameters", text(&mutable)),
        ("csi.testvolumesize", (64 << 20).to_string()),
        ("csi.testvolumeexpandsize", (128 << 20).to_string()),
        ("csi.testnodevolumeattachlimit", "true".to_owned()),
        ("ginkgo.junit-report", text(&report)),
        ("ginkgo.seed", "7".to_owned()),
        ("ginkgo.no-color", "true".to_owned()),
    ] {
        command.arg(format!("--{name}={value}"));
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let cases = cases(&fs::read_to_string(&report).unwrap());
    let count = |status: &str| cases.iter().filter(|(_, is)| is == status).count();
    println!(
        "csi-sanity: {} passed, {} failed, {} skipped, {} pending",
        count("passed"),
        count("failed"),
        count("skipped"),
        count("pending")
    );
    let expected = |name: &str| SKIPPED.iter().any(|prefix| name.starts_with(prefix));
    for (name, status) in &cases {
        let right = match status.as_str() {
            "skipped" => expected(name),
            "pending" => name.contains(PENDING),
            status => status == "passed" && !expected(name),
        };
        assert!(right, "{status}: {name}");
    }
    assert!(cases.len() > 90, "only {} cases ran", cases.len());
    assert!(world.mounts().is_empty(), "mounts are left");
    world.eventually("files of deleted volumes are gone", || {
        ["volumes", "snapshots", "making", "trash", "ids"]
            .iter()
            .all(|b| world.names(b).is_empty())
    });
}

/// Names and results of the report's cases, without the set-up that the judge counts too.
fn cases(report: &str) -> Vec<(String, String)> {
    let attribute = |element: &str, name: &str| {
        let (_, rest) = element.split_once(&format!(" {name}=\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let elements = report.split("<testcase").skip(1);
    let found = elements.filter_map(|element| {
        let name = attribute(element, "name")?;
        Some((
            name.strip_prefix("[It] ")?.to_owned(),
            attribute(element, "status")?,
        ))
    });
    found
        .map(|(name, status)| (name.trim_start_matches("CSI Driver ").to_owned(), status))
        .collect()
}

// What every orchestrator relies on, on one socket for everything.
#[test]
fn sanity_on_one_socket() {
    judge("sanity_on_one_socket", &["all"], "all", "all");
}

// Controller and node as two processes share nothing but the base directory.
#[test]
fn sanity_on_two_sockets() {
    judge(
        "sanity_on_two_sockets",
        &["controller", "node"],
        "controller",
        "node",
    );
}
