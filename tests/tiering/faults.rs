//! The store, the worker and programs go away while contents are moved.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::data::{Numbers, noise};
use crate::support::node::Node;
use crate::support::proxy::Proxy;
use crate::support::{need_mount, need_s3};
use crate::{Volume, bytes_of};

/// Files that are moved while workers die.
const FILES: u64 = 24;

/// Commands that have to be cut off by the death of a worker.
const INTERRUPTED: u32 = 4;

/// Workers that die at most.
const KILLS: u64 = 60;

/// A node whose stores give up soon.
pub(crate) fn hasty(deadline: &str) -> (Node, String) {
    let node = Node::new();
    let path = node.scratch("settings").join("config.toml");
    let text = format!("[cache.store]\ndeadline = \"{deadline}\"\nattempt_timeout = \"2s\"\n");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (node, path)
}

// SEMANTICS S88: without it a store that is gone hangs programs, or makes a file of zeros or of nothing.
#[test]
fn a_store_that_is_gone_is_an_error_until_it_is_back() {
    need_mount!("a_store_that_is_gone_is_an_error_until_it_is_back");
    let server = need_s3!("a_store_that_is_gone_is_an_error_until_it_is_back");
    let bucket = server.bucket("tiering-gone");
    let proxy = Proxy::to(&std::env::var("TERRACE_TEST_S3").unwrap());
    let (node, config) = hasty("4s");
    let node = node.with("AWS_ENDPOINT_URL", proxy.address());
    let volume = Volume::with(node, &bucket.url("cold"), &["--config", &config]);
    let bytes = noise(1, 6 << 20);
    let path = volume.write("file", &bytes);
    assert_eq!(volume.demote(&[&path]), 1);
    proxy.cut();
    let began = Instant::now();
    let error = fs::read(&path).unwrap_err();
    assert!(
        matches!(
            error.raw_os_error(),
            Some(nix::libc::ETIMEDOUT | nix::libc::EIO)
        ),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64);
    assert_eq!(volume.length_below("file"), 0);
    // What is here works as ever; what would move stays.
    let other = volume.write("other", b"still writable");
    let refused = volume
        .node
        .terrace(&["volume", "demote", other.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(fs::read(&other).unwrap(), b"still writable");
    assert!(volume.cold("recalls_failed") > 0, "the fault was met");
    proxy.mend();
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(volume.demote(&[&other]), 1);
}

// SEMANTICS S88: without it a program that is killed while it waits stays for as long as the store is silent.
#[test]
fn a_killed_program_does_not_wait_for_the_store() {
    need_mount!("a_killed_program_does_not_wait_for_the_store");
    let server = need_s3!("a_killed_program_does_not_wait_for_the_store");
    let bucket = server.bucket("tiering-killed");
    let proxy = Proxy::to(&std::env::var("TERRACE_TEST_S3").unwrap());
    let (node, config) = hasty("10m");
    let node = node.with("AWS_ENDPOINT_URL", proxy.address());
    let volume = Volume::with(node, &bucket.url("cold"), &["--config", &config]);
    let path = volume.write("file", b"contents");
    assert_eq!(volume.demote(&[&path]), 1);
    proxy.cut();
    let mut program = Command::new("cat")
        .arg(&path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while volume.cold("waited") == 0 {
        assert!(Instant::now() < deadline, "the program does not wait");
    }
    program.kill().unwrap();
    let began = Instant::now();
    program.wait().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(volume.cold("recalls_failed"), 0, "the recall had not ended");
    proxy.mend();
    assert_eq!(fs::read(&path).unwrap(), b"contents");
}

// SEMANTICS S83: without it a worker that dies while it moves contents loses or mixes them.
#[test]
fn workers_are_killed_while_contents_move() {
    need_mount!("workers_are_killed_while_contents_move");
    let (volume, _) = Volume::with_directory(&[]);
    let paths: Vec<_> = (0..FILES)
        .map(|number| volume.write(&format!("f{number}"), &bytes_of(number)))
        .collect();
    let mut numbers = Numbers::new(80);
    let mut interrupted = 0;
    let mut kills = 0;
    while interrupted < INTERRUPTED && kills < KILLS {
        kills += 1;
        let word = if kills % 2 == 0 { "demote" } else { "recall" };
        let mount = volume.mount.to_str().unwrap();
        let mut moving = volume
            .node
            .command(&["volume", word, mount])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pause = Duration::from_millis(numbers.below(60));
        let until = Instant::now() + pause;
        // A program reads meanwhile; it sees nothing of all this.
        let number = numbers.below(FILES);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        volume.node.kill_worker();
        interrupted += u32::from(!moving.wait().unwrap().success());
        let read = fs::read(&paths[number as usize]).unwrap();
        assert!(
            read == bytes_of(number),
            "f{number} after {word} was killed"
        );
    }
    println!("{interrupted} of {kills} commands were cut off by the death of the worker");
    assert_eq!(
        interrupted, INTERRUPTED,
        "workers that died while contents moved"
    );
    for (number, path) in paths.iter().enumerate() {
        let read = fs::read(path).unwrap();
        assert!(read == bytes_of(number as u64), "f{number} at the end");
    }
    assert_eq!(volume.demote(&[&volume.mount]), FILES);
}
