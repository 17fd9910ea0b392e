//! `terrace volume demote|recall|scan|pin|collect`, as people type them.

use std::fs;
use std::time::{Duration, Instant};

use crate::Volume;
use crate::support::need_mount;
use crate::support::node::Node;

fn said(node: &Node, arguments: &[&str]) -> (i32, String) {
    let output = node.terrace(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

// SEMANTICS S90: without it a dry run would say something else than what is done, or a pin would not hold.
#[test]
fn people_see_what_moves_before_it_does() {
    need_mount!("people_see_what_moves_before_it_does");
    let (volume, _) = Volume::with_directory(&[]);
    for number in 0..5 {
        volume.write(&format!("data/f{number}"), &[number; 3000]);
    }
    let kept = volume.write("data/kept", &[9; 3000]);
    let root = volume.mount.to_str().unwrap();
    volume
        .node
        .succeed(&["volume", "pin", kept.to_str().unwrap()]);
    let dry = volume
        .node
        .succeed(&["volume", "demote", root, "--dry-run"]);
    assert!(
        dry.contains("would move 5 of 6 files") && dry.contains("1 pinned"),
        "{dry}"
    );
    assert_eq!(
        dry.lines().filter(|line| line.contains("/data/f")).count(),
        5,
        "{dry}"
    );
    let none = volume.run("demote", &[&volume.mount], &["--larger-than", "1MiB"]);
    assert_eq!(none[0]["moved"], 0);
    let done = volume.node.succeed(&["volume", "demote", root]);
    assert!(done.contains("moved 5 of 6 files"), "{done}");
    let scan = volume.run("scan", &[&volume.mount], &[]);
    assert_eq!(
        (&scan[0]["stubs"], &scan[0]["chosen"]),
        (&5.into(), &0.into())
    );
    let status = volume.node.status();
    assert_eq!(status["mounts"][0]["cold"]["demoted_files"], 5);
    let back = volume.node.succeed(&["volume", "recall", root]);
    assert!(back.contains("brought back 5"), "{back}");
    volume
        .node
        .succeed(&["volume", "unpin", kept.to_str().unwrap()]);
    assert_eq!(volume.demote(&[&kept]), 1);
}

// SEMANTICS S90: without it a policy would wait for somebody to type a command.
#[test]
fn a_policy_moves_by_itself() {
    need_mount!("a_policy_moves_by_itself");
    let node = Node::new();
    let policy = node.scratch("settings").join("policy.yaml");
    let text = "older_than: 0s\nlarger_than: 1KiB\nexclude: ['*.log']\nevery: 10s\n";
    fs::write(&policy, text).unwrap();
    let url = format!("file://{}", node.scratch("cold").display());
    let volume = Volume::with(node, &url, &["--tier-policy", policy.to_str().unwrap()]);
    volume.write("goes", &[1; 5000]);
    volume.write("stays.log", &[2; 5000]);
    volume.write("small", b"small");
    let deadline = Instant::now() + Duration::from_secs(60);
    while volume.length_below("goes") > 0 {
        assert!(Instant::now() < deadline, "the policy was not followed");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(
        (
            volume.length_below("stays.log"),
            volume.length_below("small")
        ),
        (5000, 5)
    );
    assert_eq!(fs::read(volume.mount.join("goes")).unwrap(), [1; 5000]);
}

// SEMANTICS S91: without it what deleted files had would be paid for for ever, or removed while it is needed.
#[test]
fn objects_of_deleted_files_are_collected() {
    need_mount!("objects_of_deleted_files_are_collected");
    let (volume, cold) = Volume::with_directory(&[]);
    let gone = volume.write("gone", &[1; 3000]);
    let here = volume.write("here", &[2; 3000]);
    assert_eq!(volume.demote(&[&gone, &here]), 2);
    fs::remove_file(&gone).unwrap();
    let young = volume.run("collect", &[&volume.mount], &[]);
    assert_eq!(
        (&young[0]["taken"], &young[0]["young"]),
        (&0.into(), &1.into())
    );
    let mut open = vec![cold];
    let mut objects = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path)
            } else {
                objects.push(path)
            }
        }
    }
    assert_eq!(objects.len(), 2);
    for object in &objects {
        // As if it had been moved two days ago.
        let ago = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
        fs::File::options()
            .write(true)
            .open(object)
            .unwrap()
            .set_modified(ago)
            .unwrap();
    }
    let dry = volume.run("collect", &[&volume.mount], &["--dry-run"]);
    assert_eq!(
        (&dry[0]["taken"], &dry[0]["taken_bytes"]),
        (&1.into(), &3000.into())
    );
    let done = volume.run("collect", &[&volume.mount], &["--grace", "2h"]);
    assert_eq!(
        (&done[0]["taken"], &done[0]["records"]),
        (&1.into(), &1.into())
    );
    assert_eq!(objects.iter().filter(|path| path.exists()).count(), 1);
    assert_eq!(fs::read(&here).unwrap(), [2; 3000]);
}

// Without it a mistake would be found when contents are gone, or not at all.
#[test]
fn mistakes_are_refused_in_one_line() {
    need_mount!("mistakes_are_refused_in_one_line");
    let (volume, cold) = Volume::with_directory(&[]);
    let (node, root) = (&volume.node, volume.mount.to_str().unwrap());
    let (code, why) = said(node, &["volume", "collect", root, "--grace", "1m"]);
    assert!(code == 1 && why.contains("at least 3600s"), "{why}");
    let plain = node.mount(&format!("file://{}", cold.display()), &["--rw"]);
    let (code, why) = said(node, &["volume", "demote", plain.to_str().unwrap()]);
    assert!(code == 1 && why.contains("--cold URL"), "{why}");
    let tree = node.mount(&format!("file://{}", cold.display()), &[]);
    let (code, why) = said(node, &["volume", "scan", tree.to_str().unwrap()]);
    assert!(code == 1 && why.contains("no directory volume"), "{why}");
    let other = node.mountpoint();
    let below = format!("file://{}", volume.below.display());
    let mount = |cold: &str, more: &[&str]| {
        let all = [
            &[
                "mount",
                &below,
                other.to_str().unwrap(),
                "--rw",
                "--cold",
                cold,
            ],
            more,
        ];
        said(node, &all.concat())
    };
    let inside = volume.below.join("inside");
    fs::create_dir(&inside).unwrap();
    let (code, why) = mount(&format!("file://{}", inside.display()), &[]);
    assert!(
        code == 1 && why.contains("lies in the volume itself"),
        "{why}"
    );
    let (code, why) = mount("webhdfs://namenode:9870/cold", &[]);
    assert!(code == 1 && why.contains("takes no files"), "{why}");
    let policy = node.scratch("settings").join("policy.yaml");
    fs::write(&policy, "older_then: 3d\n").unwrap();
    let url = format!("file://{}", cold.display());
    let (code, why) = mount(&url, &["--tier-policy", policy.to_str().unwrap()]);
    assert!(
        code == 1 && why.contains("older_then") && why.lines().count() == 1,
        "{why}"
    );
    fs::write(&policy, "high: 40\nlow: 50\n").unwrap();
    let (code, why) = mount(&url, &["--tier-policy", policy.to_str().unwrap()]);
    assert!(code == 1 && why.contains("low < high"), "{why}");
}
