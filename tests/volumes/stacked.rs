//! A volume of a directory that is itself a volume: a file system in user space below, on any machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Volume;
use crate::exerciser::exercise;
use crate::soak::under_kills;
use crate::world::{World, need_mount};

const OPERATIONS: u32 = 4000;
const KILLS: u64 = 5;

/// The upper volume, and the lower one, which has to outlive it.
fn stacked(options: &[&str]) -> (Volume, Volume) {
    let lower = Volume::new(&["--ttl", "0s"]);
    let place: PathBuf = lower.mount.clone();
    (Volume::fresh_below(&place, options), lower)
}

// SEMANTICS S96: without it a volume of a file system in user space would lose files with its worker, or
// take one for another.
#[test]
fn workers_are_killed_above_a_file_system_in_user_space() {
    need_mount!("workers_are_killed_above_a_file_system_in_user_space");
    let (upper, _lower) = stacked(&[]);
    under_kills(&upper.world, &upper.mount, &upper.below, KILLS);
}

// SEMANTICS S41, S96: without it the ways to a file would differ above a file system in user space.
#[test]
fn every_way_to_write_agrees_above_a_file_system_in_user_space() {
    need_mount!("every_way_to_write_agrees_above_a_file_system_in_user_space");
    let (upper, _lower) = stacked(&[]);
    exercise(&upper, "file", &[9], OPERATIONS, true);
}

// SEMANTICS S50: without it who opens a file after another node has closed it could see the old length.
#[test]
fn an_open_sees_what_was_closed_before_it() {
    need_mount!("an_open_sees_what_was_closed_before_it");
    // Attributes would be believed for an hour; the lower volume is what others change.
    let (upper, lower) = stacked(&["--ttl", "1h"]);
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
