//! TLS between `terrace` and `terrace catalog serve`, both as processes: what is trusted, and a certificate
//! that is renewed while connections are open.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::certs::Root;
use crate::served::Served;
use crate::skip;

/// A change of the files is seen within seconds, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A catalog over TLS; the files are `tls/use.pem` and `tls/use.key`.
struct World {
    served: Served,
    root: Root,
    certificate: PathBuf,
    key: PathBuf,
}

impl World {
    /// None: this machine has no `openssl`.
    fn start(section: &str) -> Option<Self> {
        let mut made = None;
        let served = Served::prepared(|directory| {
            let directory = directory.join("tls");
            let Some(root) = Root::new(&directory) else {
                return Vec::new();
            };
            let (certificate, key) = (directory.join("use.pem"), directory.join("use.key"));
            let first = root.issue("first", section);
            fs::copy(first.0, &certificate).unwrap();
            fs::copy(first.1, &key).unwrap();
            let words = vec![
                "--tls-cert".to_owned(),
                certificate.to_str().unwrap().to_owned(),
                "--tls-key".to_owned(),
                key.to_str().unwrap().to_owned(),
            ];
            made = Some((root, certificate, key));
            words
        });
        let (root, certificate, key) = made?;
        Some(Self {
            served,
            root,
            certificate,
            key,
        })
    }
}

/// A connection of its own that trusts one root.
fn connect(url: &str, root: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(root).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection, stream)
}

/// One request on a connection that stays open.
fn healthy(stream: &mut StreamOwned<ClientConnection, TcpStream>) {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut bytes = [0; 1024];
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "the connection was dropped");
        answer.extend_from_slice(&bytes[..length]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

// A client that believes any certificate, or a server that takes plain HTTP beside it, is no TLS at all.
#[test]
fn only_the_right_server_is_believed() {
    let Some(mut world) = World::start("server") else {
        return skip("only_the_right_server_is_believed", "no openssl");
    };
    let served = &mut world.served;
    assert!(
        served.url().starts_with("https://127.0.0.1:"),
        "{}",
        served.url()
    );
    let root = world.root.file();
    let root = root.to_str().unwrap();
    served.succeed(&["dataset", "list", "--ca-file", root]);
    let (status, said) = served.fail(&["dataset", "list"]);
    assert!(status == 1 && said.contains("--ca-file"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    let (status, said) = served.fail(&["dataset", "list", "--ca-file", "/nowhere/ca.pem"]);
    assert!(status == 1 && said.contains("/nowhere/ca.pem"), "{said}");
    let plain = served.url().replace("https://", "http://");
    let (status, said) = served.fail(&["dataset", "list", "--catalog", &plain]);
    assert!(status == 1 && said.contains(&plain), "{said}");
    served.set("TERRACE_CA_FILE", root);
    served.succeed(&["dataset", "list"]);
    let named = served.url().replace("127.0.0.1", "localhost");
    served.succeed(&["dataset", "list", "--catalog", &named]);

    let Some(mut other) = World::start("elsewhere") else {
        return;
    };
    let root = other.root.file();
    other.served.set("TERRACE_CA_FILE", root.to_str().unwrap());
    let (status, said) = other.served.fail(&["dataset", "list"]);
    assert!(status == 1 && said.contains("name"), "{said}");
}

// A certificate that ends before somebody restarts the catalog takes it from everybody; a restart for each
// renewal takes it from those who use it.
#[test]
fn a_renewed_certificate_counts_and_drops_nobody() {
    let Some(mut world) = World::start("server") else {
        return skip(
            "a_renewed_certificate_counts_and_drops_nobody",
            "no openssl",
        );
    };
    let url = world.served.url().to_owned();
    let mut open = connect(&url, &world.root.file());
    healthy(&mut open);
    let directory = world.certificate.parent().unwrap().join("new");
    let root = Root::new(&directory).unwrap();
    let (certificate, key) = root.issue("second", "server");
    // Half of the change: the pair does not match, and the old one stays.
    fs::copy(&certificate, &world.certificate).unwrap();
    let began = Instant::now();
    while !world.served.log().contains("the certificate in use stays") {
        assert!(began.elapsed() < PATIENCE, "{}", world.served.log());
        std::thread::yield_now();
    }
    healthy(&mut connect(&url, &world.root.file()));
    let secret = fs::read_to_string(&key).unwrap();
    fs::copy(&key, &world.key).unwrap();
    world
        .served
        .set("TERRACE_CA_FILE", root.file().to_str().unwrap());
    let began = Instant::now();
    while world.served.try_run(&["dataset", "list"]) != 0 {
        assert!(began.elapsed() < PATIENCE, "{}", world.served.log());
    }
    healthy(&mut open);
    let log = world.served.log();
    assert!(log.contains("the certificate is renewed"), "{log}");
    let line = secret.lines().nth(1).unwrap();
    assert!(!log.contains(line), "a key is in the log");
}

// Plain HTTP where others can listen in shows them every token; nobody should get that by leaving out a flag.
#[test]
fn plain_http_has_to_be_asked_for() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = directory.path().join("data");
    let serve = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrace"));
        command
            .args(["catalog", "serve", "--data"])
            .arg(&data)
            .args(more);
        command.stdin(Stdio::null());
        command
    };
    let refused = serve(&["--listen", "0.0.0.0:0"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("--tls-cert") && said.contains("--allow-http"),
        "{said}"
    );
    let garbage = directory.path().join("garbage.pem");
    fs::write(
        &garbage,
        "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    let garbage = garbage.to_str().unwrap();
    for (certificate, key) in [("/nowhere.pem", garbage), (garbage, garbage)] {
        let words = [
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            certificate,
            "--tls-key",
            key,
        ];
        let refused = serve(&words).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(
            said.contains(certificate) && !said.contains("canary"),
            "{said}"
        );
    }
    let both = ["--allow-http", "--tls-cert", garbage, "--tls-key", garbage];
    assert_eq!(serve(&both).output().unwrap().status.code(), Some(2));

    let allowed = Served::prepared(|_| {
        let words = ["--listen", "0.0.0.0:0", "--allow-http"];
        words.map(str::to_owned).to_vec()
    });
    allowed.succeed(&["dataset", "list"]);
    assert!(
        allowed
            .log()
            .contains("whoever can listen in can read tokens")
    );
}
