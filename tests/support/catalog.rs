//! A catalog that a test writes: the routes that a mount asks, over real HTTP, from directories of this
//! machine. It can move tables on, and be down. (The catalog itself has tests of its own; here a test
//! decides when what happens.)

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a caller has to send.
pub(crate) const TOKEN: &str = "test-token";

/// A version of a table: the files of a directory.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    dataset: String,
    number: u64,
    detail: Value,
    files: Vec<Value>,
}

#[derive(Default)]
struct State {
    /// Selector -> version.
    names: Mutex<BTreeMap<String, Version>>,
    is_down: AtomicBool,
    ended: AtomicBool,
    requests: AtomicU64,
}

/// The server; dropping it ends it.
pub(crate) struct Catalog {
    state: Arc<State>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let served = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if served.ended.load(Ordering::SeqCst) {
                    return;
                }
                // Down: the connection ends without an answer.
                if let Ok(stream) = stream
                    && !served.is_down.load(Ordering::SeqCst)
                {
                    // A client that goes away is its own business.
                    let _ = answer(&served, stream);
                }
            }
        });
        let thread = Some(thread);
        Self {
            state,
            address,
            thread,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Commits the files below `directory` as the newest version of a dataset.
    pub(crate) fn commit(&self, dataset: &str, number: u64, directory: &Path) -> Version {
        let mut files = Vec::new();
        walk(directory, "", &mut files);
        files.sort_by_key(|file| file["path"].as_str().unwrap().to_owned());
        let manifest = Sha256::digest(format!("{dataset} {files:?}"));
        let manifest: String = manifest.iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes: u64 = files
            .iter()
            .map(|file| file["size"].as_u64().unwrap())
            .sum();
        let detail = json!({
            "dataset": dataset, "version": number, "selector": format!("{dataset}@v{number}"),
            "committed_ms": 1_700_000_000_000_u64 + number, "manifest": manifest,
            "location": format!("file://{}", directory.display()), "cause": "test",
            "files": files.len(), "bytes": bytes, "rows": null, "partitions": 0,
        });
        let version = Version {
            dataset: dataset.to_owned(),
            number,
            detail,
            files,
        };
        self.name(&format!("{dataset}@v{number}"), &version);
        self.name(dataset, &version);
        version
    }

    /// Lets a selector mean a version from now on.
    pub(crate) fn name(&self, selector: &str, version: &Version) {
        let mut names = self.state.names.lock().unwrap();
        names.insert(selector.to_owned(), version.clone());
    }

    /// Answers nobody from now on, or again.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.state.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Requests answered so far.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // The listener waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn walk(directory: &Path, above: &str, files: &mut Vec<Value>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{above}{}", entry.file_name().to_str().unwrap());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
            continue;
        }
        let nanoseconds = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        let token = format!("file:{}:{}:{nanoseconds}", metadata.dev(), metadata.ino());
        let mtime_ms = nanoseconds / 1_000_000;
        let size = metadata.len();
        files.push(
            json!({"path": path, "size": size, "mtime_ms": mtime_ms, "token": token, "rows": null}),
        );
    }
}

fn answer(state: &State, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let mut allowed = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let line = line.to_lowercase();
        allowed |= line.trim() == format!("authorization: bearer {TOKEN}");
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match allowed {
        false => (401, error("unauthenticated")),
        true => route(state, target).map_or((404, error("not_found")), |body| (200, body)),
    };
    state.requests.fetch_add(1, Ordering::SeqCst);
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn error(code: &str) -> Value {
    json!({"error": {"code": code, "message": "as the test wants it", "hint": "none"}})
}

fn route(state: &State, target: &str) -> Option<Value> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(known, _)| *known == name);
        found.map(|(_, value)| value.replace("%40", "@"))
    };
    let names = state.names.lock().unwrap();
    let heads = names.iter().filter(|(name, _)| !name.contains('@'));
    let parts: Vec<&str> = path.strip_prefix("/api/v1/")?.split('/').collect();
    match parts[..] {
        ["namespaces"] => {
            let mut all: Vec<&str> = heads
                .map(|(name, _)| name.split('.').next().unwrap())
                .collect();
            all.dedup();
            Some(json!({"items": all, "next": null}))
        }
        ["datasets"] => {
            let namespace = format!("{}.", value("ns")?);
            let items = heads.filter(|(name, _)| name.starts_with(&namespace));
            let items: Vec<Value> = items
                .map(|(name, version)| summary(name, version))
                .collect();
            Some(json!({"items": items, "next": null}))
        }
        ["resolve"] => Some(names.get(&value("selector")?)?.detail.clone()),
        ["datasets", dataset, "versions", version] => {
            Some(names.get(&format!("{dataset}@{version}"))?.detail.clone())
        }
        ["datasets", dataset, "versions", version, "files"] => {
            // Small pages, so that paging is used.
            let found = names.get(&format!("{dataset}@{version}"))?;
            let after = value("after").map(|after| after.replace("%2F", "/").replace("%3D", "="));
            let rest = found.files.iter().filter(|file| {
                after
                    .as_deref()
                    .is_none_or(|after| file["path"].as_str().unwrap() > after)
            });
            let page: Vec<&Value> = rest.take(3).collect();
            let next = page
                .last()
                .filter(|_| page.len() == 3)
                .map(|file| file["path"].clone());
            Some(json!({"version": found.number, "items": page, "next": next}))
        }
        _ => None,
    }
}

fn summary(name: &str, version: &Version) -> Value {
    json!({
        "name": name, "kind": "dataset", "description": version.dataset, "latest": version.number,
        "committed_ms": version.detail["committed_ms"], "files": version.detail["files"],
        "bytes": version.detail["bytes"], "manifest": version.detail["manifest"],
    })
}
