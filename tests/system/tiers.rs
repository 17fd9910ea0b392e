//! Where bytes come from: how often the store is asked, what stays local, what is dropped.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::support::data::{Numbers, Tree, assert_same, noise, read_tree, sample_tree};
use crate::support::http;
use crate::support::namespace::Namespace;
use crate::support::node::Node;
use crate::support::{need_mount, need_s3, skip};

/// Bytes of all files of a tree.
fn size(tree: &Tree) -> u64 {
    tree.values().map(|bytes| bytes.len() as u64).sum()
}

/// Files of up to several blocks, about 60 MB.
fn large_tree() -> Tree {
    let lengths = |number: u64| 100_000 + (number as usize * 7_919) % 2_900_000;
    (0..40)
        .map(|number| (format!("part-{number:02}"), noise(number, lengths(number))))
        .collect()
}

// SEMANTICS S1: eight readers of one cold file must not cost eight downloads, nor a second epoch another one.
#[test]
fn the_store_sends_each_byte_once() {
    need_mount!("the_store_sends_each_byte_once");
    let server = need_s3!("the_store_sends_each_byte_once");
    let bucket = server.bucket("once");
    let tree = large_tree();
    bucket.put_tree("set", &tree);
    let node = Node::new();
    let mount = node.mount(&bucket.url("set"), &[]);
    for _ in 0..2 {
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| assert_same(&read_tree(&mount), &tree));
            }
        });
    }
    let (sent, whole) = (bucket.sent_bytes(), size(&tree));
    assert!(
        sent <= whole + whole / 50,
        "the store sent {sent} bytes for {whole}"
    );
    assert!(
        sent >= whole,
        "the counter proves nothing: {sent} of {whole} bytes"
    );
}

// Two nodes, one cold download: without it, a cluster reads the store once per node.
#[test]
fn two_nodes_share_one_copy() {
    const NAME: &str = "two_nodes_share_one_copy";
    need_mount!("two_nodes_share_one_copy");
    let server = need_s3!("two_nodes_share_one_copy");
    let Some(shared) = std::env::var_os("TERRACE_TEST_SHARED_FS") else {
        return skip(
            NAME,
            "no shared file system (TERRACE_TEST_SHARED_FS is not set)",
        );
    };
    let warm = tempfile::tempdir_in(PathBuf::from(shared)).unwrap();
    let bucket = server.bucket("shared");
    let tree = large_tree();
    bucket.put_tree("set", &tree);
    let endpoint = std::env::var("TERRACE_TEST_S3").unwrap();
    let [mut left, mut right] = ["left", "right"].map(Namespace::new);
    for namespace in [&mut left, &mut right] {
        namespace.forward(&endpoint);
    }
    let nodes = [&left, &right].map(|namespace| Node::inside(&namespace.enter()));
    let options = ["--warm", warm.path().to_str().unwrap()];
    let mounts = [0, 1].map(|number: usize| nodes[number].mount(&bucket.url("set"), &options));
    std::thread::scope(|threads| {
        for mount in &mounts {
            threads.spawn(|| assert_same(&read_tree(mount), &tree));
        }
    });
    let (sent, whole) = (bucket.sent_bytes(), size(&tree));
    let share = sent as f64 / whole as f64;
    println!("the store sent {share:.3} times the data to two nodes");
    // Some bytes may come twice: those of a node whose wait for the other came to its limit.
    let warm = || {
        nodes
            .each_ref()
            .map(|node| node.status()["warm_tiers"].to_string())
    };
    assert!(
        share <= 1.02,
        "the store sent {sent} bytes for {whole}: {:?}",
        warm()
    );
    assert!(
        sent >= whole,
        "the counter proves nothing: {sent} of {whole} bytes"
    );
}

// SEMANTICS S19: a tier smaller than the data must hold its budget and still serve every byte.
#[test]
fn a_small_hot_tier_holds_its_budget() {
    need_mount!("a_small_hot_tier_holds_its_budget");
    let server = need_s3!("a_small_hot_tier_holds_its_budget");
    let bucket = server.bucket("budget");
    let tree = large_tree();
    bucket.put_tree("set", &tree);
    let node = Node::new();
    let mount = node.mount(&bucket.url("set"), &["--hot-size", "32MiB"]);
    let held = fs::File::open(mount.join("part-39")).unwrap();
    for _ in 0..3 {
        assert_same(&read_tree(&mount), &tree);
        let hot = tier(&node, "hot");
        let [used, limit] = ["used_bytes", "limit_bytes"].map(|field| hot[field].as_u64().unwrap());
        assert_eq!(limit, 32 << 20);
        assert!(used <= limit, "{used} bytes in a tier of {limit}");
    }
    let mut bytes = vec![0; tree["part-39"].len()];
    held.read_exact_at(&mut bytes, 0).unwrap();
    assert!(
        bytes == tree["part-39"],
        "an open file changed while others were evicted"
    );
    drop(held);
    let on_disk = allocated(&node.hot());
    assert!(
        on_disk <= 48 << 20,
        "{on_disk} bytes on the disk for a tier of 32 MiB"
    );
}

// SEMANTICS S19: pinned files stay, dropped files come back from the store.
#[test]
fn pinned_files_stay_and_evicted_ones_come_back() {
    need_mount!("pinned_files_stay_and_evicted_ones_come_back");
    let server = need_s3!("pinned_files_stay_and_evicted_ones_come_back");
    let bucket = server.bucket("pins");
    bucket.put_tree("set", &sample_tree());
    let node = Node::new();
    let mount = node.mount(&bucket.url("set"), &[]);
    let whole = size(&sample_tree());
    node.succeed(&["warm", mount.to_str().unwrap(), "--wait"]);
    assert_eq!(bucket.sent_bytes(), whole);
    let pinned = mount.join("a/b").to_str().unwrap().to_owned();
    node.succeed(&["pin", &pinned]);
    node.succeed(&["evict", mount.to_str().unwrap()]);
    assert_same(&read_tree(&mount), &sample_tree());
    let kept: u64 = sample_tree()
        .iter()
        .filter(|(path, _)| path.starts_with("a/b/"))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    assert_eq!(bucket.sent_bytes(), 2 * whole - kept);
}

// Without it nobody can say why training is slow.
#[test]
fn status_tells_where_bytes_came_from() {
    need_mount!("status_tells_where_bytes_came_from");
    let server = need_s3!("status_tells_where_bytes_came_from");
    let bucket = server.bucket("status");
    bucket.put_tree("set", &sample_tree());
    let node = Node::new();
    let source = bucket.url("set");
    let mount = node.mount(&source, &[]);
    assert_same(&read_tree(&mount), &sample_tree());
    let status = node.status();
    assert!(status["keeper"]["pid"].as_i64().unwrap() > 1);
    assert!(status["worker"]["pid"].as_i64().unwrap() > 1);
    assert_eq!(status["mounts"][0]["mountpoint"], mount.to_str().unwrap());
    assert_eq!(status["mounts"][0]["source"], source);
    let hot = tier(&node, "hot");
    for field in ["used_bytes", "limit_bytes", "hit_bytes", "miss_bytes"] {
        assert!(hot[field].is_u64(), "tiers[].{field} is missing: {hot}");
    }
    assert!(hot["used_bytes"].as_u64().unwrap() >= size(&sample_tree()));
}

/// One tier of the status document.
fn tier(node: &Node, name: &str) -> serde_json::Value {
    let status = node.status();
    let tiers = status["tiers"].as_array().unwrap();
    let found = tiers.iter().find(|tier| tier["name"] == name);
    found
        .unwrap_or_else(|| panic!("no tier {name} in {status}"))
        .clone()
}

/// Bytes that the files below a directory take on the disk.
fn allocated(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => allocated(&entry.path()),
            Ok(found) => found.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

// SEMANTICS S22: a job that reads the tree must find the bytes without Terrace, and nothing when it is removed.
#[test]
fn a_materialized_tree_is_native_and_removed_cleanly() {
    need_mount!("a_materialized_tree_is_native_and_removed_cleanly");
    let server = need_s3!("a_materialized_tree_is_native_and_removed_cleanly");
    let bucket = server.bucket("tree");
    bucket.put_tree("set", &sample_tree());
    let node = Node::new();
    let mount = node.mount(&bucket.url("set"), &["--snapshot"]);
    let mount = mount.to_str().unwrap();
    let tree = node.hot().with_extension("tree");
    node.succeed(&["materialize", mount, tree.to_str().unwrap()]);
    node.succeed(&["umount", mount]);
    assert_same(&read_tree(&tree), &sample_tree());
    let mode = fs::metadata(&tree).unwrap().permissions();
    assert!(mode.readonly(), "{mode:?}");
    let again = node.mount(&bucket.url("set"), &["--snapshot"]);
    let again = again.to_str().unwrap();
    node.succeed(&["materialize", again, tree.to_str().unwrap(), "--remove"]);
    assert!(!tree.exists());
}

/// Reads every file once in an order of its own, and lets the kernel forget what it cached.
fn epoch(mount: &Path, tree: &Tree, seed: u64) {
    let mut names: Vec<_> = tree.keys().collect();
    let mut numbers = Numbers::new(seed);
    for place in (1..names.len()).rev() {
        names.swap(place, numbers.below(place as u64 + 1) as usize);
    }
    for name in names {
        let file = fs::File::open(mount.join(name)).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &file, &mut bytes).unwrap();
        assert!(bytes == tree[name], "{name} differs");
        // Otherwise memory would answer the next epoch, and the tier would prove nothing.
        let forget = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(&file, 0, 0, forget).unwrap();
    }
}

// Without it a data set twice the size of the tier would be read from the store again in every epoch.
#[test]
fn half_of_a_data_set_twice_the_tier_stays() {
    need_mount!("half_of_a_data_set_twice_the_tier_stays");
    let server = need_s3!("half_of_a_data_set_twice_the_tier_stays");
    let bucket = server.bucket("epochs");
    let tree: Tree = (0..256)
        .map(|number| (format!("part-{number:03}"), noise(number, 256 << 10)))
        .collect();
    bucket.put_tree("set", &tree);
    let node = Node::new();
    let mount = node.mount(&bucket.url("set"), &["--snapshot", "--hot-size", "32MiB"]);
    let whole = size(&tree) as f64;
    let mut before = 0;
    for number in 1..=6 {
        epoch(&mount, &tree, number);
        let sent = bucket.sent_bytes();
        let hits = 1.0 - (sent - before) as f64 / whole;
        before = sent;
        println!("epoch {number}: {hits:.3} of the bytes did not come from the store");
        // The policy learns in the second epoch that what it has is worth keeping.
        assert!(number < 3 || hits >= 0.49, "epoch {number} hit {hits:.3}");
    }
}

// Without it a configured metrics page could be missing and no scraper would say why.
#[test]
fn metrics_are_served_where_the_configuration_says() {
    need_mount!("metrics_are_served_where_the_configuration_says");
    let node = Node::new();
    let data = node.scratch("data");
    fs::write(data.join("file"), noise(1, 5000)).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config = node.scratch("etc").join("terrace.toml");
    fs::write(&config, format!("[node]\nmetrics = \"{address}\"\n")).unwrap();
    let mount = node.mount(
        &format!("file://{}", data.display()),
        &["--config", config.to_str().unwrap()],
    );
    assert_eq!(fs::read(mount.join("file")).unwrap(), noise(1, 5000));
    let url = format!("http://{address}/metrics");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let (status, page) = loop {
        match std::net::TcpStream::connect(address) {
            Ok(_) => break http::request("GET", &url, b""),
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert_eq!(status, 200);
    assert!(
        page.contains("terrace_tier_hit_bytes_total{tier=\"hot\"}"),
        "{page}"
    );
}
