//! Models and managed tables through a real catalog, a real mount and real stores: what was saved, and
//! what was published once, is read byte for byte whatever happens upstream.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::served::Served;
use crate::support::data::{assert_same, noise, read_tree};
use crate::support::node::Node;
use crate::support::s3::Bucket;
use crate::support::{need_mount, need_s3};

/// A mount of everything in a catalog.
fn mount(node: &Node, served: &Served) -> PathBuf {
    let token = served.token_file();
    let token = token.to_str().unwrap();
    let url = served.url();
    node.mount(
        "catalog:",
        &["--catalog", url, "--token-file", token, "--ttl", "200ms"],
    )
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 60 seconds");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn checkpoint(served: &Served) -> PathBuf {
    let directory = served.scratch("checkpoint");
    fs::create_dir_all(directory.join("weights")).unwrap();
    fs::write(directory.join("config.json"), b"{\"layers\": 3}").unwrap();
    fs::write(directory.join("weights/a.bin"), noise(7, 17_000_000)).unwrap();
    fs::write(directory.join("weights/empty"), b"").unwrap();
    directory
}

/// Saves a model, and reads it by name, by version and as Hugging Face's library finds it.
fn is_saved_and_read(served: &Served) {
    let directory = checkpoint(served);
    served.succeed(&[
        "dataset",
        "save",
        directory.to_str().unwrap(),
        "team/churn",
        "--tag",
        "prod",
    ]);
    let node = Node::new();
    let mount = mount(&node, served);
    let expected = read_tree(&directory);
    for name in ["team/churn", "team/churn@v1", "team/churn@prod"] {
        assert_same(&read_tree(&mount.join(name)), &expected);
    }
    let hub = mount.join(".hf/models--team--churn");
    let commit = fs::read_to_string(hub.join("refs/v1")).unwrap();
    assert_same(
        &read_tree(&hub.join("snapshots").join(commit.trim())),
        &expected,
    );
    let file = mount.join("team/churn@v1/config.json");
    for refused in [
        fs::write(&file, b"other").unwrap_err(),
        fs::remove_file(&file).unwrap_err(),
        fs::rename(&file, mount.join("x")).unwrap_err(),
    ] {
        let read_only = Some(nix::errno::Errno::EROFS as i32);
        assert_eq!(refused.raw_os_error(), read_only, "{refused}");
    }
    let (_, error) = served.fail(&["dataset", "delete", "team.churn"]);
    assert!(error.contains("no ordinary call removes it"), "{error}");
    let (_, error) = served.fail(&["dataset", "delete", "team.churn@v1", "--model"]);
    assert!(error.contains("is latest"), "{error}");
    served.succeed(&["catalog", "gc", "--grace", "1h"]);
    served.succeed(&["catalog", "scrub", "--rate", "0B"]);
}

// SEMANTICS S33: a saved model is read by its name, and cannot be changed or deleted.
#[test]
fn a_saved_model_is_read_through_the_mount() {
    need_mount!("a_saved_model_is_read_through_the_mount");
    is_saved_and_read(&Served::start());
}

// SEMANTICS S33: the same with a cold store on S3, where a large file is several requests.
#[test]
fn a_model_saved_to_s3_is_read_through_the_mount() {
    need_mount!("a_model_saved_to_s3_is_read_through_the_mount");
    let server = need_s3!("a_model_saved_to_s3_is_read_through_the_mount");
    let bucket = server.bucket("models");
    bucket.put("made", b"");
    is_saved_and_read(&Served::with(&["--cold", &bucket.url("cold")]));
}

fn part(seed: u64, at: u64) -> Vec<u8> {
    let mut text = b"id,name\n".to_vec();
    for row in 0..2000 {
        text.extend_from_slice(format!("{row},{}-{at}\n", seed * 7919 + row).as_bytes());
    }
    text
}

/// Publishes a managed table twice, the second time over the first one's files, and reads both.
fn old_versions_stay(served: &Served, url: &str, put: &dyn Fn(&str, &[u8])) {
    let write = |seed: u64| {
        for at in 0..3 {
            put(&format!("clicks/dt=1/part-{at}.csv"), &part(seed, at));
        }
        // Times of a store may be whole seconds: the marker must be newer than the files.
        std::thread::sleep(Duration::from_millis(1100));
        put("clicks/dt=1/_SUCCESS", b"");
    };
    write(1);
    let descriptor = served.scratch("clicks.yaml");
    let text = format!(
        "apiVersion: terrace.io/v1\nkind: Dataset\nmetadata: {{name: ads.clicks}}\n\
         spec: {{source: \"{url}/clicks\", storage: managed}}\n"
    );
    fs::write(&descriptor, text).unwrap();
    served.succeed(&["dataset", "register", "-f", descriptor.to_str().unwrap()]);
    served.succeed(&["sync", "add", url, "--namespace", "ads"]);
    let latest = || {
        let list = served.succeed(&["dataset", "list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list[0]["latest"].as_u64().unwrap_or(0)
    };
    eventually("the first version", || latest() == 1);
    write(2);
    eventually("the second version", || latest() == 2);
    // A node that has nothing of the first version yet.
    let node = Node::new();
    let mount = mount(&node, served);
    for (seed, name) in [
        (1, "ads/clicks@v1"),
        (2, "ads/clicks@v2"),
        (2, "ads/clicks"),
    ] {
        for at in 0..3 {
            let path = mount.join(name).join(format!("dt=1/part-{at}.csv"));
            let read =
                fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(read == part(seed, at), "{name} part {at}");
        }
    }
    let versions = served.succeed(&["dataset", "versions", "ads.clicks"]);
    assert!(!versions.contains("degraded"), "{versions}");
}

// SEMANTICS S34: a managed table in a directory: what was published stays readable.
#[test]
fn old_versions_of_a_managed_directory_are_read() {
    need_mount!("old_versions_of_a_managed_directory_are_read");
    let served = Served::start();
    let lake = served.scratch("lake");
    let put = |path: &str, bytes: &[u8]| {
        let path = lake.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    old_versions_stay(&served, &format!("file://{}", lake.display()), &put);
}

// SEMANTICS S34: the same on S3, copied.
#[test]
fn old_versions_of_a_managed_bucket_are_read() {
    need_mount!("old_versions_of_a_managed_bucket_are_read");
    let server = need_s3!("old_versions_of_a_managed_bucket_are_read");
    let (lake, cold) = (server.bucket("lake"), server.bucket("cold"));
    cold.put("made", b"");
    let served = Served::with(&["--cold", &cold.url("managed")]);
    let put = |path: &str, bytes: &[u8]| lake.put(&format!("w/{path}"), bytes);
    old_versions_stay(&served, &lake.url("w"), &put);
    let shown = served.succeed(&["dataset", "show", "ads.clicks@v1"]);
    assert!(shown.contains(&cold.url("managed")), "{shown}");
}

/// Asks the S3 interface itself, which knows versions; the other helpers go past it.
fn ask_s3(program: &str, words: &[&str], input: &Path) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
    let program = format!(
        "import os, sys\nfrom s3client import S3Client\nc = S3Client(os.environ)\n{program}"
    );
    let output = Command::new("python3")
        .args(["-B", "-c", &program])
        .args(words)
        .stdin(fs::File::open(input).unwrap())
        .env("PYTHONPATH", place)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn put_versioned(bucket: &Bucket<'_>, scratch: &Path, key: &str, bytes: &[u8]) {
    fs::write(scratch, bytes).unwrap();
    let url = bucket.url(key);
    let (bucket, key) = url.strip_prefix("s3://").unwrap().split_once('/').unwrap();
    let program = "c.put(sys.argv[1], sys.argv[2], sys.stdin.buffer.read())";
    ask_s3(program, &[bucket, key], scratch);
}

// SEMANTICS S34: a bucket that keeps old versions: nothing is copied.
#[test]
fn old_versions_of_a_versioned_bucket_are_read() {
    need_mount!("old_versions_of_a_versioned_bucket_are_read");
    let server = need_s3!("old_versions_of_a_versioned_bucket_are_read");
    let lake = server.bucket("versioned");
    lake.put("made", b"");
    let served = Served::start();
    let scratch = served.scratch("body");
    fs::write(&scratch, b"").unwrap();
    let url = lake.url("");
    let name = url.strip_prefix("s3://").unwrap().trim_end_matches('/');
    ask_s3("c.keep_versions(sys.argv[1])", &[name], &scratch);
    let put =
        |path: &str, bytes: &[u8]| put_versioned(&lake, &scratch, &format!("w/{path}"), bytes);
    old_versions_stay(&served, &lake.url("w"), &put);
    let shown = served.succeed(&["dataset", "show", "ads.clicks@v1"]);
    assert!(shown.contains(&lake.url("w/clicks")), "{shown}");
    let files = served.succeed(&["dataset", "files", "ads.clicks@v1", "--json"]);
    assert!(
        files.lines().all(|line| line.contains("etag+id:")),
        "{files}"
    );
}
