//! Spaces of users and projects: what is made is whose it should be, killed at every step, limited by
//! the file system where that can, and removed without following anything.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;
use terrace_csi::spaces::{
    Enforcer, NewSpace, SpaceError, SpaceLimits, SpaceName, SpaceRecord, Spaces,
};

use crate::limits::fill;
use crate::world::MIB;

/// What the child is to do: operation, step, base directory.
const ORDER: &str = "TERRACE_TEST_SPACES_ORDER";

/// A time that has come, and one that has not.
const NOW: u64 = 1_000_000;
const LATER: u64 = 2_000_000;

/// Operations and the steps that each has, on a file system without project quotas.
const STEPS: [(&str, &[&str]); 4] = [
    (
        "create",
        &[
            "create: directory",
            "create: limited",
            "create: recorded",
            "create: renamed",
            "create: ready",
        ],
    ),
    ("delete", &["delete: recorded", "delete: in the trash"]),
    ("restore", &["restore: renamed"]),
    ("purge", &["purge: files"]),
];

fn name(text: &str) -> SpaceName {
    text.parse().unwrap()
}

fn asked(text: &str, bytes: u64) -> NewSpace {
    NewSpace {
        name: name(text),
        uid: 4242,
        gid: 4343,
        limits: SpaceLimits {
            bytes: Some(bytes),
            files: Some(100),
        },
        tenant: None,
        now: NOW,
    }
}

fn made(spaces: &Spaces, text: &str) -> SpaceRecord {
    spaces.create(&asked(text, 16 * MIB)).unwrap()
}

/// Nothing is left of any space but the marker, the lock and empty directories.
fn assert_nothing_left(base: &Path) {
    let inner = base.join(".terrace");
    for place in ["making", "trash", "ids"] {
        let left: Vec<_> = fs::read_dir(inner.join(place)).unwrap().collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
    let spaces = Spaces::open(base).unwrap();
    assert!(spaces.list().unwrap().is_empty());
}

fn needs_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIP {test}: needs root");
    }
    !root
}

// SEMANTICS S110: without it a home would be open to others, or a project's files not be its group's.
#[test]
fn a_space_is_whose_it_should_be() {
    if needs_root("a_space_is_whose_it_should_be") {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    assert!(matches!(
        Spaces::open(base.path()),
        Err(SpaceError::Base { .. })
    ));
    let spaces = Spaces::adopt(base.path()).unwrap();
    let home = made(&spaces, "home/alice");
    let project = made(&spaces, "project/vision");
    for (record, mode) in [(&home, 0o700), (&project, 0o2770)] {
        let at = spaces.directory(&record.name).unwrap();
        let found = fs::metadata(&at).unwrap();
        assert_eq!((found.uid(), found.gid()), (4242, 4343));
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{at:?}");
    }
    let mode = |path: &str| {
        fs::metadata(base.path().join(path))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("home") & 0o777, 0o711, "others may pass and not list");
    assert_eq!(mode(".terrace") & 0o777, 0o700);
    // Again is the same one, otherwise is refused.
    assert_eq!(made(&spaces, "home/alice"), home);
    let other = spaces.create(&asked("home/alice", MIB));
    assert!(matches!(other, Err(SpaceError::Exists { .. })), "{other:?}");
    fs::create_dir(base.path().join("home/taken")).unwrap();
    let taken = spaces.create(&asked("home/taken", MIB));
    assert!(matches!(taken, Err(SpaceError::Exists { .. })), "{taken:?}");
    symlink("/", base.path().join("home/link")).unwrap();
    let linked = spaces.create(&asked("home/link", MIB));
    assert!(
        matches!(linked, Err(SpaceError::Exists { .. })),
        "{linked:?}"
    );
    // What somebody puts into its place is not it.
    let (at, aside) = (
        base.path().join("home/alice"),
        base.path().join("home/aside"),
    );
    fs::rename(&at, &aside).unwrap();
    symlink("/etc", &at).unwrap();
    for refused in [
        spaces.directory(&home.name).map(drop),
        spaces.delete(&home.name, NOW).map(drop),
    ] {
        assert!(
            matches!(refused, Err(SpaceError::Exchanged { .. })),
            "{refused:?}"
        );
    }
}

// Without it a deletion could not be taken back, or would reach what a user's link points to.
#[test]
fn the_trash_gives_back_and_follows_nothing() {
    if needs_root("the_trash_gives_back_and_follows_nothing") {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "untouched").unwrap();
    let spaces = Spaces::adopt(base.path()).unwrap();
    let record = made(&spaces, "home/alice");
    let at = spaces.directory(&record.name).unwrap();
    fs::create_dir(at.join("inner")).unwrap();
    fs::write(at.join("inner/file"), "mine").unwrap();
    symlink(outside.path(), at.join("link")).unwrap();
    symlink(outside.path().join("kept"), at.join("inner/link")).unwrap();
    assert_eq!(spaces.locate(&record.name).unwrap().1, at);
    spaces.delete(&record.name, LATER).unwrap();
    assert!(!at.exists());
    // Who has it mounted finds it where it is now.
    let (_, trash) = spaces.locate(&record.name).unwrap();
    assert_eq!(fs::read(trash.join("inner/file")).unwrap(), b"mine");
    assert!(matches!(
        spaces.space(&record.name),
        Err(SpaceError::NotFound(_))
    ));
    let again = spaces.create(&asked("home/alice", 16 * MIB));
    assert!(matches!(again, Err(SpaceError::Exists { .. })), "{again:?}");
    assert!(
        spaces.purge(LATER - 1, false).unwrap().due.is_empty(),
        "too early"
    );
    spaces.restore(&record.name).unwrap();
    assert_eq!(fs::read(at.join("inner/file")).unwrap(), b"mine");
    assert!(matches!(
        spaces.restore(&record.name),
        Err(SpaceError::NotFound(_))
    ));
    spaces.delete(&record.name, LATER).unwrap();
    let dry = spaces.purge(LATER, true).unwrap();
    assert_eq!(dry.due.len(), 1);
    let gone = spaces.purge(LATER, false).unwrap();
    assert!(gone.failed.is_empty(), "{gone:?}");
    assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"untouched");
    assert_nothing_left(base.path());
}

fn operate(spaces: &Spaces, operation: &str) {
    let of = name("home/v");
    match operation {
        "create" => drop(made(spaces, "home/v")),
        "delete" => drop(spaces.delete(&of, NOW).unwrap()),
        "restore" => drop(spaces.restore(&of).unwrap()),
        "purge" => assert!(spaces.purge(LATER, false).unwrap().failed.is_empty()),
        other => panic!("{other}"),
    }
}

fn end_here(step: &'static str) {
    let order = std::env::var(ORDER).unwrap_or_default();
    if order.split('|').nth(1) == Some(step) {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), Signal::SIGKILL);
    }
}

// The other half of the test below: the process that is killed. Does nothing without an order.
#[test]
fn child_of_the_kills() {
    let Ok(order) = std::env::var(ORDER) else {
        return;
    };
    let words: Vec<&str> = order.split('|').collect();
    let [operation, _, base] = words[..] else {
        panic!("{order}");
    };
    let spaces = Spaces::adopt(base.as_ref()).unwrap();
    operate(&spaces.with_steps(end_here), operation);
}

fn killed_at(base: &Path, operation: &str, step: &str) -> ExitStatus {
    let order = format!("{operation}|{step}|{}", base.display());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "spaces::child_of_the_kills"])
        .env(ORDER, order);
    child.output().unwrap().status
}

// SEMANTICS S110: without it a killed command would leave a name that can neither be used nor made again, or lose what a
// user has.
#[test]
fn every_step_may_be_the_last() {
    if needs_root("every_step_may_be_the_last") {
        return;
    }
    let mut kills = 0;
    for (operation, steps) in STEPS {
        for step in steps {
            let base = tempfile::tempdir().unwrap();
            let at = base.path().join("home/v");
            let spaces = Spaces::adopt(base.path()).unwrap();
            if operation != "create" {
                made(&spaces, "home/v");
                fs::write(at.join("file"), "mine").unwrap();
            }
            if operation == "restore" || operation == "purge" {
                operate(&spaces, "delete");
            }
            let status = killed_at(base.path(), operation, step);
            assert_eq!(
                status.signal(),
                Some(Signal::SIGKILL as i32),
                "{step} was not reached"
            );
            kills += 1;
            // The same call ends what was begun.
            operate(&spaces, operation);
            match operation {
                "create" | "restore" => {
                    assert_eq!(spaces.list().unwrap().len(), 1);
                    assert_eq!(
                        spaces.directory(&name("home/v")).unwrap(),
                        at.canonicalize().unwrap()
                    );
                    assert_eq!(at.join("file").exists(), operation == "restore");
                }
                "delete" => {
                    assert!(!at.exists());
                    operate(&spaces, "restore");
                    assert_eq!(fs::read(at.join("file")).unwrap(), b"mine");
                }
                _ => assert_nothing_left(base.path()),
            }
        }
    }
    println!("{kills} kills");
}

/// Limits that the file system of `base` keeps: they hold, are shown, are changed and end.
pub(crate) fn projects_limit_spaces(base: &Path) {
    let spaces = Spaces::adopt(base).unwrap();
    let (one, other) = (made(&spaces, "home/one"), made(&spaces, "home/other"));
    let numbers = [one.enforcer, other.enforcer];
    assert!(
        matches!(numbers, [Enforcer::Project(a), Enforcer::Project(b)] if a != b),
        "{numbers:?}"
    );
    let at = spaces.directory(&one.name).unwrap();
    let shown = nix::sys::statvfs::statvfs(&at).unwrap();
    assert_eq!(shown.blocks() * shown.fragment_size(), 16 * MIB, "df");
    let (written, error) = fill(&at, 64 * MIB);
    assert!(
        written <= 16 * MIB && matches!(error, Some(libc::EDQUOT | libc::ENOSPC)),
        "{written} {error:?}"
    );
    assert_eq!(
        fill(&spaces.directory(&other.name).unwrap(), MIB),
        (MIB, None)
    );
    let used = spaces.usage(&one).unwrap();
    assert!(used.at.is_none() && used.bytes > 12 * MIB, "{used:?}");
    let more = SpaceLimits {
        bytes: Some(32 * MIB),
        files: Some(used.files + 2),
    };
    spaces.set_limits(&one.name, more).unwrap();
    assert_eq!(fill(&at, 2 * MIB), (2 * MIB, None));
    let (_, error) = fill(&at, 2 * MIB);
    assert!(
        matches!(error, Some(libc::EDQUOT | libc::ENOSPC)),
        "{error:?}: files"
    );
    for record in [&one, &other] {
        spaces.delete(&record.name, NOW).unwrap();
    }
    let purged = spaces.purge(NOW, false).unwrap();
    assert!(purged.failed.is_empty(), "{purged:?}");
    assert_nothing_left(base);
}
