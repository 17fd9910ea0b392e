//! The POSIX suite on a volume.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, umount2};

use crate::Volume;
use crate::spaces::Space;
use crate::world::{World, need_mount};

/// Tests that pass on ext4, less one.
const PASSED: u32 = 382;

const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
utime_now = {}
utimensat = {}
rename_ctime = {}
[settings]
naptime = 0.01
allow_remount = false
expected_failures = []
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// The mount, bound to a short path that everybody can enter.
pub(crate) struct Bound(tempfile::TempDir);

impl Bound {
    /// That short path.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn new(mount: &Path) -> Self {
        let place = tempfile::Builder::new()
            .prefix("posix")
            .tempdir_in("/tmp")
            .unwrap();
        let none = None::<&str>;
        nix::mount::mount(Some(mount), place.path(), none, MsFlags::MS_BIND, none).unwrap();
        Self(place)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).ok();
    }
}

/// The number before a word, at its last place.
fn number_before(text: &str, word: &str) -> Option<u32> {
    let at = text.rfind(word)?;
    let digits = |c: char| c.is_ascii_digit();
    let before = text[..at].trim_end_matches(|c: char| !c.is_ascii_digit() && c != '\n');
    let start = before.rfind(|c: char| !digits(c)).map_or(0, |at| at + 1);
    before[start..].parse().ok()
}

fn run(program: &str, configuration: &Path, place: &Path) -> (bool, String) {
    fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    let done = Command::new(program)
        .arg("-c")
        .arg(configuration)
        .arg("-p")
        .arg(place)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The suite; `None`, with a line that says so, where there is none.
pub(crate) fn suite(test: &str) -> Option<String> {
    let program = std::env::var("TERRACE_TEST_PJDFSTEST").ok();
    if program.is_none() {
        println!("SKIP {test}: no pjdfstest; run tests/servers/servers.py exec");
    }
    program
}

// SEMANTICS S40: without it a program that relies on POSIX breaks on a volume and works beside it.
#[test]
fn the_posix_suite_passes() {
    need_mount!("the_posix_suite_passes");
    if let Some(program) = suite("the_posix_suite_passes") {
        let volume = Volume::new(&["-o", "suid"]);
        passes(&program, &volume.world, &volume.mount);
    }
}

// SEMANTICS S111: without it a limit would change what a program meets that keeps within it. The limit is
// above the longest file that the suite asks for.
#[test]
fn the_posix_suite_passes_within_a_limit() {
    need_mount!("the_posix_suite_passes_within_a_limit");
    if let Some(program) = suite("the_posix_suite_passes_within_a_limit") {
        let space = Space::counting("4000TiB", "1M", &["-o", "suid"]);
        passes(&program, &space.world, &space.mount);
        space.sum_is_right();
    }
}

/// What the suite says about a directory.
pub(crate) struct Verdict {
    good: bool,
    /// Lines about tests that failed, by their names.
    pub(crate) failed: BTreeMap<String, String>,
    pub(crate) passed: u32,
    pub(crate) said: String,
}

/// Runs the suite on a directory.
pub(crate) fn judge(program: &str, world: &World, directory: &Path) -> Verdict {
    // The suite acts as other users, who must be able to come here, and trips over some lengths of
    // the path it works on (`capacity overflow`).
    let place = Bound::new(directory);
    let configuration = world.scratch("suite").join("pjdfstest.toml");
    fs::write(&configuration, CONFIGURATION).unwrap();
    let (good, said) = run(program, &configuration, place.0.path());
    let failed = said.lines().filter(|line| line.contains("FAILED"));
    let named = |line: &str| Some((line.split_whitespace().next()?.to_owned(), line.to_owned()));
    Verdict {
        good,
        failed: failed.filter_map(named).collect(),
        passed: number_before(&said, "passed").unwrap(),
        said,
    }
}

fn passes(program: &str, world: &World, mount: &Path) {
    passes_but(program, world, mount, &[]);
}

/// The suite passes; tests whose names contain one of `but` may fail.
pub(crate) fn passes_but(program: &str, world: &World, mount: &Path, but: &[&str]) {
    let verdict = judge(program, world, mount);
    let (passed, said) = (verdict.passed, verdict.said);
    let all = verdict.failed.into_values();
    let (excused, failed): (Vec<String>, Vec<String>) =
        all.partition(|line| but.iter().any(|part| line.contains(part)));
    let well = failed.is_empty() && (verdict.good || !excused.is_empty());
    assert!(well, "failed:\n{}\n{said}", failed.join("\n"));
    println!("pjdfstest: {passed} passed, {} excused", excused.len());
    let counted = passed + u32::try_from(excused.len()).unwrap();
    assert!(counted >= PASSED, "only {passed} passed:\n{said}");
}
