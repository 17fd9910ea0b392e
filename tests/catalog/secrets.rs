//! No secret in any log, of the server, of the worker that it mounts with, and of the commands that send
//! secrets, at the most talkative level there is. The canaries are looked for in everything that a run of
//! `terrace up` has written beside its data.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::certs::Root;
use crate::signer::Signer;
use crate::skip;

/// Stands for the password of the stores.
const STORE_SECRET: &str = "canary-of-the-stores-b7c1f0";

/// Stands for the password of the database.
const DATABASE_SECRET: &str = "canary-of-the-database-55e2d9";

struct Up {
    process: Child,
    directory: tempfile::TempDir,
    url: String,
    root: Root,
    mounted: bool,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.end();
    }
}

impl Up {
    /// None: this machine has no `openssl`.
    fn start(format: &str, signer: &Signer) -> Option<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let root = Root::new(&directory.path().join("tls"))?;
        let (certificate, key) = root.issue("up", "server");
        let keys = directory.path().join("keys.json");
        fs::write(&keys, json!({"keys": [signer.jwk("k")]}).to_string()).unwrap();
        let config = directory.path().join("config.toml");
        let text = format!(
            "[[catalog.identity.issuers]]\nissuer = \"https://login.test\"\naudience = \"t\"\n\
             keys_file = {keys:?}\n[[catalog.identity.issuers.grants]]\nclaim = \"sub\"\n\
             value = \"ann\"\ngrants = [\"admin:*\"]\n"
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(directory.path().join("up.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrace"));
        command
            .args(["--log", "trace", "--log-format", format, "--run-dir"])
            .arg(directory.path().join("run"))
            .arg("--config")
            .arg(&config)
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory.path().join("data"))
            .arg("--tls-cert")
            .arg(&certificate)
            .arg("--tls-key")
            .arg(&key)
            .arg("--ca-file")
            .arg(root.file());
        let mounted = Path::new("/dev/fuse").exists() && nix::unistd::geteuid().is_root();
        if mounted {
            let mountpoint = directory.path().join("mnt");
            fs::create_dir(&mountpoint).unwrap();
            command.arg("--mount").arg(mountpoint);
            command.args(["--hot-size", "64MiB"]);
        }
        let mut process = command
            .env("AWS_SECRET_ACCESS_KEY", STORE_SECRET)
            .env("AWS_ACCESS_KEY_ID", "nobody")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut greeting = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        greeting.read_line(&mut line).unwrap();
        let url = line.split_whitespace().nth(1).map(str::to_owned);
        let up = Self {
            process,
            directory,
            url: url.unwrap_or_default(),
            root,
            mounted,
        };
        assert!(up.url.starts_with("https://"), "{}", up.logs());
        // Until the last line, so that nothing of the start is missed.
        for line in greeting.lines() {
            if line.unwrap().starts_with("end") {
                break;
            }
        }
        Some(up)
    }

    /// A command that says everything it knows; what it wrote.
    fn terrace(&self, token: &str, words: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_terrace"))
            .args(["--log", "trace"])
            .args(words)
            .env("TERRACE_CATALOG", &self.url)
            .env("TERRACE_CA_FILE", self.root.file())
            .env("TERRACE_TOKEN", token)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.process.id()).unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }

    /// Everything that was written outside the data directory, which is for secrets.
    fn logs(&self) -> String {
        let mut text = fs::read_to_string(self.directory.path().join("up.log")).unwrap();
        collect(&self.directory.path().join("run"), &mut text);
        text
    }
}

fn collect(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), text);
        } else if kind.is_file() && entry.path().extension().is_some_and(|end| end == "log") {
            text.push_str(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap()));
        }
    }
}

/// Half of a secret is as bad as all of it.
fn absent(text: &str, secrets: &[String]) {
    for secret in secrets {
        let part = &secret[secret.len() / 4..secret.len() / 4 * 3];
        assert!(!text.contains(part), "a secret is in the log");
    }
}

// A log is read by more people, and kept for longer, than any secret should be.
#[test]
fn no_secret_reaches_a_log() {
    let signer = Signer::p256();
    let claims = |subject: &str| {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        json!({"iss": "https://login.test", "aud": "t", "sub": subject, "exp": now + 600})
    };
    let header = json!({"alg": "ES256", "kid": "k"});
    for format in ["text", "json"] {
        let Some(mut up) = Up::start(format, &signer) else {
            return skip("no_secret_reaches_a_log", "no openssl");
        };
        let admin = fs::read_to_string(up.directory.path().join("data/token")).unwrap();
        let admin = admin.trim().to_owned();
        let person = signer.token(&header, &claims("ann"));
        let stranger = signer.token(&header, &claims("eve"));
        let forged = Signer::p256().token(&header, &claims("ann"));
        let mut said = String::new();
        for token in [&admin, &person, &stranger, &forged] {
            said += &up.terrace(token, &["dataset", "list"]);
            said += &up.terrace(token, &["catalog", "token", "revoke", "0123456789ab"]);
            said += &up.terrace(token, &["dataset", "show", "ads.nothing"]);
        }
        let made = up.terrace(
            &person,
            &["catalog", "token", "create", "x", "--grant", "read:x"],
        );
        let made = made
            .lines()
            .find(|line| line.starts_with("trc_"))
            .unwrap()
            .to_owned();
        if up.mounted {
            fs::read_dir(up.directory.path().join("mnt"))
                .unwrap()
                .count();
        }
        up.end();
        let key = fs::read_to_string(up.directory.path().join("tls/up.key")).unwrap();
        let key = key.lines().nth(1).unwrap().to_owned();
        let secrets = [
            admin,
            person,
            stranger,
            forged,
            made,
            key,
            STORE_SECRET.to_owned(),
        ];
        let logs = up.logs();
        for known in [
            "https://login.test#ann",
            "https://login.test#eve",
            "its signature",
        ] {
            let place = if known.starts_with("its") {
                &said
            } else {
                &logs
            };
            assert!(
                place.contains(known),
                "no {known:?}, so nothing was tested:\n{place}"
            );
        }
        assert!(said.contains("TRACE") || said.contains("DEBUG"), "{said}");
        absent(&logs, &secrets);
        absent(&said, &secrets);
    }
}

// The address of a database has its password in it, and is in every error about the database.
#[test]
fn the_password_of_the_database_reaches_no_log() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut addresses = vec![
        format!("postgres://terrace:{DATABASE_SECRET}@127.0.0.1:1/x"),
        format!("host=127.0.0.1 port=1 user=x password={DATABASE_SECRET} sslmode=verify-full"),
        format!("host=127.0.0.1 port=1 user=x password={DATABASE_SECRET} nonsense=1"),
        format!("postgres://{DATABASE_SECRET}"),
    ];
    match std::env::var("TERRACE_TEST_POSTGRES") {
        Ok(server) => addresses.push(format!(
            "{server} password={DATABASE_SECRET} dbname=nothing"
        )),
        Err(_) => skip(
            "the_password_of_the_database_reaches_no_log",
            "no PostgreSQL, a part",
        ),
    }
    for (at, address) in addresses.iter().enumerate() {
        let output = Command::new(env!("CARGO_BIN_EXE_terrace"))
            .args([
                "--log",
                "trace",
                "catalog",
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(directory.path().join(at.to_string()))
            .env("TERRACE_DATABASE", address)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{at}: {said}");
        assert!(said.contains("open the database"), "{at}: {said}");
        absent(&said, &[DATABASE_SECRET.to_owned()]);
    }
}
