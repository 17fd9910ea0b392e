//! A catalog process of a test, on a port and a data directory of its own. Ended when dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A port that nobody has.
const ANY_PORT: &str = "127.0.0.1:0";

/// No answer takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module text.
pub(crate) struct Served {
    root: TempDir,
    process: Child,
    url: String,
    /// Arguments of the server besides the usual ones.
    more: Vec<String>,
    /// What commands send; None: the token's file.
    token: Option<String>,
    environment: Vec<(String, String)>,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// One that is started with these options.
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::prepared(|_| options.iter().map(ToString::to_string).collect())
    }

    /// A server with more arguments, made in the directory of the test.
    pub(crate) fn prepared(more: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let more = more(root.path());
        let (process, url) = spawn(&root, ANY_PORT, &more);
        Self {
            root,
            process,
            url,
            more,
            token: None,
            environment: Vec::new(),
        }
    }

    /// Sets a variable of the environment of every command from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Its address, `http://host:port` or `https://host:port`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("log")).unwrap()
    }

    /// A path for the test's own files, removed with the catalog.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.root.path().join("data/token")
    }

    /// Ends the process as a crash does.
    pub(crate) fn kill(&self) {
        let pid = i32::try_from(self.process.id()).unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// Starts it again over the same data, at the same address.
    pub(crate) fn restart(&mut self) {
        self.process.wait().unwrap();
        let (_, address) = self.url.split_once("://").unwrap();
        (self.process, self.url) = spawn(&self.root, address, &self.more);
    }

    /// Commands send this token from now on; none when it is empty.
    pub(crate) fn use_token(&mut self, token: &str) {
        self.token = Some(token.to_owned());
    }

    pub(crate) fn use_token_file(&mut self) {
        self.token = None;
    }

    /// Runs `terrace ...` against this catalog; what it printed.
    pub(crate) fn succeed(&self, words: &[&str]) -> String {
        let (status, out, err) = self.run(words);
        assert_eq!(status, 0, "terrace {words:?}: {err}");
        out
    }

    /// Runs `terrace ...` that must fail; status and what it said.
    pub(crate) fn fail(&self, words: &[&str]) -> (i32, String) {
        let (status, out, err) = self.run(words);
        assert_ne!(status, 0, "terrace {words:?} succeeded: {out}");
        (status, err)
    }

    /// Runs `terrace ...`, whatever comes of it; its status.
    pub(crate) fn try_run(&self, words: &[&str]) -> i32 {
        self.run(words).0
    }

    /// The same catalog, asked with another token.
    pub(crate) fn with_token(&mut self, token: &str) -> &Self {
        self.use_token(token);
        self
    }

    /// Ends the server; what it kept stays until the directory that is returned is dropped.
    pub(crate) fn stop(mut self) -> TempDir {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let empty = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::mem::replace(&mut self.root, empty)
    }

    /// Runs `terrace ...`; status, what it printed, and what it said when it failed.
    pub(crate) fn run(&self, words: &[&str]) -> (i32, String, String) {
        let output = self.command(words).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    /// `terrace ...` against this catalog.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrace"));
        command.args(["--log", "warn"]).args(words);
        command.env("TERRACE_CATALOG", &self.url);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        match &self.token {
            Some(token) => command.env("TERRACE_TOKEN", token),
            None => command.env_remove("TERRACE_TOKEN"),
        };
        if self.token.is_none() {
            command.arg("--token-file").arg(self.token_file());
        }
        command.stdin(Stdio::null());
        command
    }

    /// Registers a dataset over HTTP as admin; the status of a success, or none when
    /// the process is gone. Panics with what it said when it was refused.
    pub(crate) fn put(&self, name: &str, body: &str) -> Option<u16> {
        let token = std::fs::read_to_string(self.token_file()).unwrap();
        let request = format!(
            "PUT /api/v1/datasets/{name} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            token.trim(),
            body.len()
        );
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://")?).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        // A connection that is cut after the answer's first line has answered all the same.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (status, rest) = answer.split_once("\r\n")?;
        let status: u16 = status.split(' ').nth(1)?.parse().ok()?;
        assert!(status < 300, "{name}: {status}: {rest}");
        Some(status)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a catalog and reads its address from what it prints.
fn spawn(root: &TempDir, listen: &str, more: &[String]) -> (Child, String) {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(root.path().join("log"))
        .unwrap();
    let own = more.iter().any(|word| word == "--listen");
    let listen: &[&str] = if own { &[] } else { &["--listen", listen] };
    let mut process = Command::new(env!("CARGO_BIN_EXE_terrace"))
        .args(["catalog", "serve", "--data"])
        .arg(root.path().join("data"))
        .args(listen)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    // The second line says where the token is: the server writes both before anybody may leave.
    output.read_line(&mut String::new()).unwrap();
    let Some((_, url)) = line.trim().split_once("  ") else {
        let log = std::fs::read_to_string(root.path().join("log")).unwrap();
        let _ = process.kill();
        let _ = process.wait();
        panic!("the catalog did not start: {log}");
    };
    (process, url.to_owned())
}
