//! What nobody registers: a sync system writes a table, and it is a dataset and a directory of the mount.
//!
//! A writer that nobody here wrote (pyarrow, `synced.py`) writes a table step by step while somebody else
//! reads the mount all the time. Whatever that reader ever saw must be one of the versions, whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use sha2::{Digest, Sha256};

use crate::support::data::try_read_tree;
use crate::support::node::Node;
use crate::support::up::Up;
use crate::support::{need_mount, need_s3, skip};

/// Longest time from a marker to the version in the mount, on the busiest machine.
const VISIBLE: Duration = Duration::from_secs(30);

/// A test of this file goes through a whole life of a table.
const LIFE: Duration = Duration::from_secs(300);

/// Path below the table -> SHA-256 of the bytes.
type Contents = BTreeMap<String, String>;

/// The writer, one process for all of its steps.
struct Writer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Writer {
    fn start(python: &str, place: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/synced.py");
        let mut process = Command::new(python)
            .args([script, place])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    fn line(&mut self, said: &str) -> String {
        writeln!(self.input, "{said}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "the writer has ended at {said:?}");
        answer
    }

    /// Writes everything of a step but the marker; what the table has then.
    fn write(&mut self, step: &str) -> Contents {
        serde_json::from_str(&self.line(step)).unwrap()
    }

    /// Writes the marker; when it was there.
    fn mark(&mut self) -> Instant {
        assert_eq!(self.line("go").trim(), "marked");
        Instant::now()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a reader of the mount has seen, one entry for each change.
#[derive(Default)]
struct Seen {
    versions: Mutex<Vec<(Contents, Instant)>>,
    trouble: Mutex<Option<String>>,
    /// Whole readings of the table.
    readings: AtomicU64,
    ended: AtomicBool,
}

/// Reads the table all the time, until dropped.
struct Reader {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(table: PathBuf) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            while !shared.ended.load(Ordering::Relaxed) {
                shared.look(&table);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let thread = Some(thread);
        Self { seen, thread }
    }

    /// Waits for the version of this number, which must be `expected`; when it was first seen whole.
    fn wait_for(&self, number: usize, expected: &Contents) -> Instant {
        let deadline = Instant::now() + VISIBLE;
        loop {
            self.seen.check();
            if let Some((found, at)) = self.seen.versions.lock().unwrap().get(number - 1) {
                assert_eq!(found, expected, "v{number} is not what was written");
                return *at;
            }
            assert!(Instant::now() < deadline, "v{number} is not in the mount");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the table be read some more times; nothing may change meanwhile.
    fn reads_on(&self, times: u64) {
        let versions = self.seen.versions.lock().unwrap().len();
        let goal = self.seen.readings.load(Ordering::Relaxed) + times;
        let deadline = Instant::now() + VISIBLE;
        while self.seen.readings.load(Ordering::Relaxed) < goal {
            self.seen.check();
            assert!(Instant::now() < deadline, "nothing can be read");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.seen.versions.lock().unwrap().len(), versions);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.seen.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Seen {
    fn look(&self, table: &Path) {
        let found = read_version(table);
        let mut versions = self.versions.lock().unwrap();
        match found {
            Ok(contents) => {
                if versions.last().is_none_or(|(last, _)| *last != contents) {
                    versions.push((contents, Instant::now()));
                }
                self.readings.fetch_add(1, Ordering::Relaxed);
            }
            // Not there yet.
            Err(error) if error.kind() == ErrorKind::NotFound && versions.is_empty() => {
                self.readings.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let mut trouble = self.trouble.lock().unwrap();
                trouble.get_or_insert(error.to_string());
            }
        }
    }

    fn check(&self) {
        let trouble = self.trouble.lock().unwrap();
        assert!(trouble.is_none(), "a reader failed: {trouble:?}");
    }
}

/// The version that a table's path names now: every file of it. An open directory stays in its version.
fn read_version(table: &Path) -> std::io::Result<Contents> {
    let directory = File::open(table)?;
    let here = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let tree = try_read_tree(&here)?;
    let digests = tree.into_iter().map(|(path, bytes)| {
        let digest = Sha256::digest(&bytes);
        let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        (path, hex)
    });
    Ok(digests.collect())
}

/// A table's life, in a place that `terrace up` watches.
struct Life<'a> {
    node: &'a Node,
    up: Up<'a>,
    writer: Writer,
    reader: Reader,
}

impl Life<'_> {
    /// What `terrace dataset list` says of the table: its newest version.
    fn listed(&self) -> Option<u64> {
        let said = self.node.succeed(&["dataset", "list", "--json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let items = said.as_array().unwrap().iter();
        let mut own = items.filter(|item| item["name"] == "shop.orders");
        own.next()?["latest"].as_u64()
    }

    /// Waits until discovery has seen that all files are there and only the marker is missing.
    fn held_back(&self) {
        let deadline = Instant::now() + VISIBLE;
        loop {
            let output = self.node.terrace(&["sync", "why", "shop.orders", "--json"]);
            let why = String::from_utf8_lossy(&output.stdout).into_owned();
            let marker = ["marker file missing", "older than"];
            let staging = why.contains("staging") || why.contains("changing");
            if marker.iter().any(|text| why.contains(text)) && !staging {
                return;
            }
            assert!(Instant::now() < deadline, "not held back: {why}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// One step of the writer with its marker; seconds until the mount showed it, and what it is.
    fn step(&mut self, name: &str, number: usize) -> (f64, Contents) {
        let contents = self.writer.write(name);
        self.held_back();
        let before = u64::try_from(number - 1).unwrap();
        assert_eq!(
            self.listed().unwrap_or(0),
            before,
            "listed without a marker"
        );
        self.reader.reads_on(3);
        let marked = self.writer.mark();
        let seen = self.reader.wait_for(number, &contents);
        assert_eq!(self.listed(), Some(before + 1));
        ((seen - marked).as_secs_f64(), contents)
    }
}

/// The whole life of a table below `place`, which is already watched. `delete` says the deletion of a
/// partition where the place does not show it soon by itself.
fn live(
    node: &Node,
    test: &str,
    place: &str,
    add: impl FnOnce(&Up<'_>),
    delete: impl FnOnce(&Up<'_>),
) {
    let Ok(python) = std::env::var("TERRACE_TEST_WRITERS") else {
        return skip(test, "no pyarrow (TERRACE_TEST_WRITERS is not set)");
    };
    let up = Up::start(node);
    add(&up);
    let table = up.mountpoint().join("shop/orders");
    let mut life = Life {
        writer: Writer::start(&python, place),
        reader: Reader::start(table.clone()),
        node,
        up,
    };
    let (first, v1) = life.step("first", 1);
    let path = v1.keys().next().unwrap().clone();
    let mut open = File::open(table.join(&path)).unwrap();

    // The worker dies while the next partition is written.
    node.kill_worker();
    let (late, v2) = life.step("late", 2);
    node.kill_worker();
    life.reader.reads_on(3);

    // The catalog is gone while a partition is replaced: readers notice nothing, and it is made up for.
    life.up.kill();
    life.reader.reads_on(10);
    let v3 = life.writer.write("replace");
    life.writer.mark();
    life.reader.reads_on(10);
    life.up.restart();
    let restarted = Instant::now();
    let replaced = life.reader.wait_for(3, &v3).duration_since(restarted);

    let v4 = life.writer.write("delete");
    let gone = Instant::now();
    delete(&life.up);
    let deleted = life.reader.wait_for(4, &v4).duration_since(gone);
    assert_eq!(life.listed(), Some(4));

    // Replaced and deleted in the store, and still what they were.
    for (number, contents) in [(1, &v1), (2, &v2), (3, &v3), (4, &v4)] {
        let pinned = table.with_file_name(format!("orders@v{number}"));
        assert_eq!(read_version(&pinned).unwrap(), *contents, "v{number}");
    }
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    let digest = Sha256::digest(&bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, v1[&path], "an open file left its version");
    drop(open);
    let Life { up, reader, .. } = life;
    let versions = reader.seen.versions.lock().unwrap().len();
    let readings = reader.seen.readings.load(Ordering::Relaxed);
    assert_eq!(versions, 4, "more was seen than was written");
    drop(reader);
    up.end();
    println!(
        "{test}: in the mount after the marker: new table {first:.1} s, late partition {late:.1} s; \
         replaced partition {:.1} s after the catalog's restart, deleted {:.1} s; {readings} readings of \
         the whole table saw 4 versions and nothing else",
        replaced.as_secs_f64(),
        deleted.as_secs_f64()
    );
}

// SEMANTICS S30, S31, S32: the promise of the whole system; any part of it that is broken shows here.
#[test]
fn a_synced_table_appears_in_a_directory() {
    need_mount!("a_synced_table_appears_in_a_directory");
    let node = Node::patient(LIFE);
    let place = node.scratch("warehouse");
    let url = format!("file://{}", place.display());
    let table = place.join("orders");
    // Deletions that nobody announces are believed sooner than a minute later.
    let root = serde_json::json!({
        "url": url, "spec": {"namespace": "shop", "settle_seconds": 2},
    });
    live(
        &node,
        "a_synced_table_appears_in_a_directory",
        table.to_str().unwrap(),
        |up| drop(up.ask("POST", "roots", &root)),
        |_| {},
    );
}

// SEMANTICS S30, S31, S32: the same on an object store, whose times are whole seconds and whose
// directories are names; a deletion is announced by the sync system's call.
#[test]
fn a_synced_table_appears_on_s3() {
    need_mount!("a_synced_table_appears_on_s3");
    let server = need_s3!("a_synced_table_appears_on_s3");
    let bucket = server.bucket("synced");
    // The first object makes the bucket.
    bucket.put("other/README", b"nothing to see");
    let node = Node::patient(LIFE);
    let url = bucket.url("lake");
    let batch = serde_json::json!({
        "mode": "delete_partitions", "scope": {"partitions": ["dt=2026-11-19"]},
    });
    live(
        &node,
        "a_synced_table_appears_on_s3",
        &format!("{url}/orders"),
        |_| drop(node.succeed(&["sync", "add", &url, "--namespace", "shop"])),
        |up| drop(up.ask("PUT", "datasets/shop.orders/batches/nightly-7", &batch)),
    );
}

// SEMANTICS S1, S31: a file that was overwritten after its version was made is an error to who reads
// that version, and the version says so; it is never the other bytes.
#[test]
fn a_file_overwritten_after_the_commit_is_stale() {
    need_mount!("a_file_overwritten_after_the_commit_is_stale");
    let node = Node::new();
    let place = node.scratch("warehouse");
    let up = Up::start(&node);
    let url = format!("file://{}", place.display());
    node.succeed(&["sync", "add", &url, "--namespace", "shop"]);
    let table = place.join("prices");
    fs::create_dir(&table).unwrap();
    for name in ["kept.csv", "overwritten.csv", "_SUCCESS"] {
        fs::write(table.join(name), b"id,price\n1,2\n2,3\n").unwrap();
    }
    let version = up.mountpoint().join("shop/prices@v1");
    let deadline = Instant::now() + VISIBLE;
    while !version.is_dir() {
        assert!(Instant::now() < deadline, "v1 is not in the mount");
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::write(table.join("overwritten.csv"), b"id,price\n1,9\n2,9\n").unwrap();
    let error = fs::read(version.join("overwritten.csv")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    assert_eq!(
        fs::read(version.join("kept.csv")).unwrap(),
        b"id,price\n1,2\n2,3\n"
    );
    loop {
        let said = node.succeed(&["dataset", "show", "shop.prices@v1"]);
        if said.contains("degraded") {
            break;
        }
        assert!(Instant::now() < deadline + VISIBLE, "{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
    up.end();
}
