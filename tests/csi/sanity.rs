//! `csi-sanity`, the judge of CSI drivers, with nothing skipped by request.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{need_mount, skip};
use crate::world::{World, text};

/// Tests that a driver of versions cannot have, by the first words of their names: it attaches nothing,
/// its volumes do not grow, are no copies and have no snapshots, and there is no room to speak of.
const SKIPPED: [&str; 13] = [
    "GroupController Service [GroupController",
    "DeleteSnapshot [Controller Server]",
    "CreateSnapshot [Controller Server]",
    "ListSnapshots [Controller Server]",
    "GetSnapshot [Controller Server]",
    "ExpandVolume [Controller Server]",
    "Controller Service [Controller Server] GetCapacity",
    "Controller Service [Controller Server] ControllerPublishVolume",
    "Controller Service [Controller Server] ControllerUnpublishVolume",
    // Of publishing and unpublishing by the controller.
    "Controller Service [Controller Server] volume lifecycle",
    "Controller Service [Controller Server] CreateVolume should create volume from an existing source",
    "Controller Service [Controller Server] CreateVolume should fail when the volume source",
    "Node Service NodeExpandVolume",
];

/// A test that the judge itself has put aside.
const PENDING: &str = "pagination should detect volumes added between pages";

/// Runs it and judges its report.
fn judge(test: &str, world: &World, controller: &str, node: &str) {
    let Some(programs) = std::env::var_os("TERRACE_TEST_CSI") else {
        skip(test, "TERRACE_TEST_CSI is not set");
        return;
    };
    let files = world.node.scratch("sanity");
    let (parameters, mutable) = (files.join("parameters.yaml"), files.join("mutable.yaml"));
    fs::write(&parameters, "dataset: ads.clicks\n").unwrap();
    fs::write(&mutable, "warm: metadata\n").unwrap();
    let report = files.join("junit.xml");
    let mut command = Command::new(Path::new(&programs).join("csi-sanity"));
    for (name, value) in [
        (
            "csi.endpoint",
            format!("unix://{}", text(&world.socket(node))),
        ),
        (
            "csi.controllerendpoint",
            format!("unix://{}", text(&world.socket(controller))),
        ),
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
    assert_eq!(world.mounts(), Vec::<String>::new(), "mounts are left");
}

/// Names and results of the report's cases, without the set-up that the judge counts too.
fn cases(report: &str) -> Vec<(String, String)> {
    let attribute = |element: &str, name: &str| {
        let (_, rest) = element.split_once(&format!(" {name}=\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let elements = report.split("<testcase").skip(1);
    elements
        .filter_map(|element| {
            let name = attribute(element, "name")?;
            let name = name.strip_prefix("[It] ")?.to_owned();
            Some((name, attribute(element, "status")?))
        })
        .map(|(name, status)| {
            let name = name.strip_prefix("CSI Driver ").unwrap_or(&name);
            (name.replace("&#34;", "\""), status)
        })
        .collect()
}

// What every orchestrator relies on, on one socket for everything.
#[test]
fn sanity_on_one_socket() {
    need_mount!("sanity_on_one_socket");
    let world = World::new();
    judge("sanity_on_one_socket", &world, "all", "all");
}

// In a cluster controller and node are two processes; each answers for itself.
#[test]
fn sanity_on_two_sockets() {
    need_mount!("sanity_on_two_sockets");
    let world = World::with(&["controller", "node"], &[]);
    judge("sanity_on_two_sockets", &world, "controller", "node");
}
