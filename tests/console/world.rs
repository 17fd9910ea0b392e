//! `terrace up` of a test, with tables that discovery finds by itself. Ended when dropped.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// See the module text.
pub(crate) struct World {
    root: TempDir,
    data: PathBuf,
    process: Child,
    /// Kept: a program that greets nobody ends.
    _greeting: Lines<BufReader<ChildStdout>>,
    /// Address of the console, as `terrace up` says it.
    pub(crate) console: String,
}

impl World {
    /// With a mount of the tables, there is a node too.
    pub(crate) fn start(with_mount: bool) -> Self {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = root.path().join("data");
        Self::begin(root, data, with_mount)
    }

    /// Over what another catalog has left in a directory, which stays.
    pub(crate) fn over(data: &Path) -> Self {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self::begin(root, data.to_owned(), false)
    }

    fn begin(root: TempDir, data: PathBuf, with_mount: bool) -> Self {
        let log = std::fs::File::create(root.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrace"));
        command
            .arg("--run-dir")
            .arg(root.path().join("run"))
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data);
        if with_mount {
            let mountpoint = root.path().join("tables");
            std::fs::create_dir(&mountpoint).unwrap();
            command
                .arg("--mount")
                .arg(mountpoint)
                .args(["--hot-size", "1GiB"]);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut greeting = BufReader::new(process.stdout.take().unwrap()).lines();
        let console = greeting.find_map(|line| {
            let line = line.ok()?;
            Some(line.strip_prefix("console")?.trim().to_owned())
        });
        let Some(console) = console else {
            let log = std::fs::read_to_string(root.path().join("log")).unwrap();
            let _ = (process.kill(), process.wait());
            panic!("terrace up did not start: {log}");
        };
        Self {
            root,
            data,
            process,
            _greeting: greeting,
            console,
        }
    }

    /// The place that discovery is told to watch.
    pub(crate) fn warehouse(&self) -> PathBuf {
        self.root.path().join("warehouse")
    }

    /// A directory of the test's own; not made.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn token(&self) -> String {
        let file = self.data.join("token");
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// Runs `terrace ...` against this catalog; what it printed.
    pub(crate) fn terrace(&self, words: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_terrace"))
            .arg("--run-dir")
            .arg(self.root.path().join("run"))
            .args(words)
            .env_remove("TERRACE_CATALOG")
            .env_remove("TERRACE_TOKEN")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "terrace {words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Gives a table a description, as its owner does.
    pub(crate) fn describe(&self, name: &str, directory: &Path, description: &str) {
        let file = self.root.path().join("descriptor.json");
        let source = format!("file://{}", directory.display());
        let descriptor = serde_json::json!({
            "apiVersion": "terrace.io/v1", "kind": "Dataset",
            "metadata": {"name": name, "description": description},
            "spec": {"source": source},
        });
        std::fs::write(&file, descriptor.to_string()).unwrap();
        self.terrace(&["dataset", "register", "-f", file.to_str().unwrap()]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.process.wait();
    }
}

/// Writes a partition of JSON lines as a sync system does: the files, then the table's marker.
pub(crate) fn write_partition(table: &Path, partition: &str, rows: usize, hostile: &str) {
    let directory = table.join(partition);
    std::fs::create_dir_all(&directory).unwrap();
    let line = |id: usize| {
        let mut row = serde_json::json!({"id": id, "user": format!("u{:04}", id % 977), "price": id as f64 / 4.0,
            "tags": ["new", "eu"], "is_bot": id.is_multiple_of(9)});
        if !hostile.is_empty() {
            row[hostile] = hostile.into();
        }
        format!("{row}\n")
    };
    let lines: String = (0..rows).map(line).collect();
    std::fs::write(directory.join("part-0.jsonl"), lines).unwrap();
    std::fs::write(table.join("_SUCCESS"), "").unwrap();
}
