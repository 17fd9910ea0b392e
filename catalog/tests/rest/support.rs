//! A catalog of a test: database, manifests, server, tokens, and a client that writes bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use terrace_catalog::access::{Access, Grants, TokenRequest};
use terrace_catalog::blobs::{Blobs, DirectoryBlobs};
use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::kv::{Kv, rocks::RocksKv};
use terrace_catalog::ledger::{Commit, Ledger, LedgerConfig};
use terrace_catalog::manifest::{FileEntry, Header, ManifestEdit};
use terrace_catalog::nodes::Nodes;
use terrace_catalog::rest::{self, Parts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No answer takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A catalog that serves until it is dropped.
pub(crate) struct Catalog {
    pub(crate) address: SocketAddr,
    pub(crate) ledger: Ledger,
    pub(crate) access: Access,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) nodes: Nodes,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) shutdown: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    _directory: TempDir,
}

impl Drop for Catalog {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.server.abort();
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The kind of the error that the answer must be.
    pub(crate) fn error(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        for part in ["code", "message", "hint"] {
            assert!(
                error[part].as_str().is_some_and(|text| !text.is_empty()),
                "{self:?}"
            );
        }
        error["code"].as_str().unwrap().to_owned()
    }
}

impl Catalog {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kv: Arc<dyn Kv> = Arc::new(RocksKv::open(&directory.path().join("kv")).unwrap());
        let blobs = DirectoryBlobs::open(&directory.path().join("blobs")).unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(blobs);
        let config = LedgerConfig::default();
        let ledger = Ledger::open(Arc::clone(&kv), Arc::clone(&blobs), config);
        let ledger = ledger.await.unwrap();
        let access = Access::new(Arc::clone(&kv));
        let nodes = Nodes::new(ledger.clone(), Arc::clone(&kv));
        let shutdown = CancellationToken::new();
        let router = rest::router(parts(&ledger, &access, &nodes, &shutdown));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(rest::serve(listener, router, shutdown.clone()));
        Self {
            address,
            ledger,
            access,
            blobs,
            nodes,
            kv,
            shutdown,
            server,
            _directory: directory,
        }
    }

    /// The OpenAPI document, as the server serves it.
    pub(crate) async fn document(&self) -> Value {
        self.ask("GET", "/api/openapi.json", None, b"").await.json()
    }

    /// A token with these grants, as text.
    pub(crate) async fn token(&self, grants: &[&str]) -> String {
        let request = TokenRequest {
            name: grants.join(" "),
            grants: Grants::parse(grants).unwrap(),
            expires_ms: None,
        };
        let (token, _) = self.access.issue(request, 1).await.unwrap();
        token.reveal()
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &[u8],
    ) -> Answer {
        let token = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: c\r\n{token}Content-Length: {length}");
        self.raw(&[head.as_bytes(), b"\r\nConnection: close\r\n\r\n", body].concat())
            .await
    }

    /// Bytes, and what is answered until the server closes the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let talk = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // A server that refuses early closes while the rest is still being written.
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answer
        };
        let answer = tokio::time::timeout(PATIENCE, talk).await.unwrap();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Answer {
            status: status.unwrap_or(0),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// Registers a dataset and commits one version for each list of (partition, file, size).
    pub(crate) async fn publish(&self, name: &str, versions: &[&[(&str, &str, u64)]]) {
        let source = "file:///data/x";
        let descriptor = Descriptor::new(Kind::Dataset, name.parse().unwrap(), source);
        self.ledger.create(descriptor).await.unwrap();
        for (at, files) in versions.iter().enumerate() {
            self.commit(name, at as u64, files).await;
        }
    }

    /// Commits a version with these files (partition, file, size) behind version `head`; 0 for none.
    pub(crate) async fn commit(&self, name: &str, head: u64, files: &[(&str, &str, u64)]) {
        let header = Header {
            location: "file:///data/x".into(),
            format: "parquet".into(),
            ..Header::default()
        };
        let mut edit = ManifestEdit::new(&self.blobs, header);
        let mut partitions: BTreeMap<&str, Vec<FileEntry>> = BTreeMap::new();
        for (partition, file, size) in files {
            let path = match *partition {
                "" => (*file).to_owned(),
                partition => format!("{partition}/{file}"),
            };
            partitions.entry(partition).or_default().push(FileEntry {
                path: path.into(),
                size: *size,
                mtime_ms: 1,
                token: "t".into(),
                rows: None,
                checksum: None,
            });
        }
        for (partition, mut files) in partitions {
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let stored = edit.store_files(partition, files).await.unwrap();
            edit.set_partition(partition, Vec::new(), BTreeMap::new(), stored)
                .unwrap();
        }
        let manifest = edit.finish().await.unwrap();
        let commit = Commit {
            dataset: name.parse().unwrap(),
            expected_head: (head > 0).then_some(head),
            manifest,
            batch: None,
            source_seq: Vec::new(),
            cause: "test".to_owned(),
            summary: BTreeMap::new(),
        };
        self.ledger.commit(commit).await.unwrap();
    }
}

fn parts(ledger: &Ledger, access: &Access, nodes: &Nodes, shutdown: &CancellationToken) -> Parts {
    Parts {
        ledger: ledger.clone(),
        access: access.clone(),
        roots: None,
        mount: Some("/mnt/terrace".to_owned()),
        saves: None,
        collector: None,
        scrubber: None,
        nodes: nodes.clone(),
        shutdown: shutdown.clone(),
    }
}
