//! A volume of a directory that is itself a volume: a file system in user space below, on any machine.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use crate::Volume;
use crate::exerciser::exercise;
use crate::soak::under_kills;
use crate::world::{World, need_mount};

const OPERATIONS: u32 = 4000;
const KILLS: u64 = 5;

/// The lower volume, which is dropped last, and the one above it.
fn stacked(options: &[&str]) -> (Volume, Volume) {
    let lower = Volume::new(&["--ttl", "0s"]);
    let place: PathBuf = lower.mount.clone();
    let upper = Volume::fresh_below(&place, options);
    (lower, upper)
}

// SEMANTICS S96: without it a volume of a file system in user space would lose files with its worker, or
// take one for another.
#[test]
fn workers_are_killed_above_a_file_system_in_user_space() {
    need_mount!("workers_are_killed_above_a_file_system_in_user_space");
    let (_lower, upper) = stacked(&[]);
    under_kills(&upper.world, &upper.mount, &upper.below, KILLS);
}

// SEMANTICS S41, S96: without it the ways to a file would differ above a file system in user space.
#[test]
fn every_way_to_write_agrees_above_a_file_system_in_user_space() {
    need_mount!("every_way_to_write_agrees_above_a_file_system_in_user_space");
    let (_lower, upper) = stacked(&[]);
    exercise(&upper, "file", &[9], OPERATIONS, true);
}

// SEMANTICS S50: without it who opens a file after another node has closed it could see the old length.
#[test]
fn an_open_sees_what_was_closed_before_it() {
    need_mount!("an_open_sees_what_was_closed_before_it");
    // Attributes would be believed for an hour; the lower volume is what others change.
    let (lower, upper) = stacked(&["--ttl", "1h"]);
    let beside = lower.mount.join(upper.below.file_name().unwrap());
    let (here, there) = (upper.mount.join("file"), beside.join("file"));
    let mut text = String::from("x");
    fs::write(&there, &text).unwrap();
    for round in 0..50 {
        assert_eq!(fs::read_to_string(&here).unwrap(), text, "round {round}");
        text.push_str("another line\n");
        fs::write(&there, &text).unwrap();
        let file = fs::File::open(&here).unwrap();
        assert_eq!(
            file.metadata().unwrap().len(),
            text.len() as u64,
            "round {round}"
        );
    }
}

// SEMANTICS S97: without it who opens a file after another node has renamed a new one over it could be
// given the old one, because somebody here has it open.
#[test]
fn an_open_sees_what_was_renamed_over_an_open_file() {
    need_mount!("an_open_sees_what_was_renamed_over_an_open_file");
    let (lower, upper) = stacked(&["--ttl", "1h"]);
    let beside = lower.mount.join(upper.below.file_name().unwrap());
    // And with handles that last, where only copies ask for the version.
    let local = Volume::new(&["--ttl", "1h", "--ssd-cache", "on"]);
    for (mount, beside) in [(&upper.mount, &beside), (&local.mount, &local.below)] {
        let (here, there) = (mount.join("file"), beside.join("file"));
        fs::write(&there, "0").unwrap();
        for round in 1..20 {
            let mut held = fs::File::open(&here).unwrap();
            fs::write(beside.join("next"), round.to_string()).unwrap();
            fs::rename(beside.join("next"), &there).unwrap();
            assert_eq!(fs::read_to_string(&here).unwrap(), round.to_string());
            let mut old = String::new();
            held.read_to_string(&mut old).unwrap();
            assert_eq!(old, (round - 1).to_string(), "who has it open keeps it");
        }
    }
    // What lost its name through the volume is opened by whoever has it.
    let (path, link) = (upper.mount.join("gone"), |file: &fs::File| {
        format!("/proc/self/fd/{}", file.as_raw_fd())
    });
    fs::write(&path, "still here").unwrap();
    let held = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read_to_string(link(&held)).unwrap(), "still here");
}

// SEMANTICS S47: without it what is staged, in a cold store or counted here could be taken for another
// file's, once the file system in user space has forgotten that file.
#[test]
fn what_needs_lasting_handles_is_refused_above_a_file_system_in_user_space() {
    need_mount!("what_needs_lasting_handles_is_refused_above_a_file_system_in_user_space");
    // Another keeper: none serves what it would have to wait for.
    let (lower, world) = (Volume::new(&[]), World::start());
    let (source, base) = (
        format!("file://{}", lower.mount.display()),
        lower.mount.to_str().unwrap(),
    );
    let cold = format!("file://{}", world.scratch("cold").display());
    let made = Command::new(env!("CARGO_BIN_EXE_terrace"))
        .args(["volume", "create", "home/root", "--base", base])
        .args(["--quota", "1MiB"])
        .status();
    assert!(made.unwrap().success());
    let staged = ["--rw", "--durability", "fsync=local"];
    for (source, options, why) in [
        (source.as_str(), &staged[..], "cannot be staged"),
        (
            source.as_str(),
            &["--rw", "--cold", &cold],
            "cannot be moved to a cold store",
        ),
        (
            "volume:home/root",
            &["--base", base],
            "cannot be counted against limits",
        ),
    ] {
        let above = world.scratch("above");
        let (status, said) = world.try_mount(source, &above, options);
        let lines = said.lines().filter(|line| line.contains(why)).count();
        assert!(status != 0 && lines == 1, "{options:?}: {status}: {said}");
    }
}
