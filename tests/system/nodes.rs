//! Two nodes and a real catalog: versions are warmed through reports, over the death of a worker and of
//! the catalog, and nobody says "complete" before it is.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::served::Served;
use crate::support::data::noise;
use crate::support::need_mount;
use crate::support::node::Node;

const MIB: usize = 1 << 20;
/// Files of a table, each of this length and a little more.
const FILES: u64 = 20;
/// Bytes a second that a node fetches: so slow that it is killed in the middle of it also where a
/// command takes seconds.
const SLOW: &str = "1MiB";
/// No limit.
const FAST: &str = "0B";
/// Longest time for anything, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(100);

struct World {
    served: Served,
    nodes: Vec<Node>,
    mounts: Vec<PathBuf>,
    place: PathBuf,
}

impl World {
    /// A catalog that watches a directory, and nodes that mount everything under names of their own.
    /// They fetch `bandwidth` a second; with `warm` they share a directory as their warm tier.
    fn new(names: &[&str], bandwidth: &str, warm: bool) -> Self {
        let served = Served::start();
        let place = served.scratch("lake");
        fs::create_dir(&place).unwrap();
        let mut world = Self {
            served,
            nodes: Vec::new(),
            mounts: Vec::new(),
            place,
        };
        for name in names {
            let node = Node::patient(3 * PATIENCE);
            let config = node.scratch("settings").join("config.toml");
            let text = format!(
                "[cache.store]\nbandwidth = \"{bandwidth}\"\n\
                 [node]\nname = \"{name}\"\nreport_every = \"200ms\"\n"
            );
            fs::write(&config, text).unwrap();
            let (url, token) = (world.served.url().to_owned(), world.served.token_file());
            let options = ["--catalog", &url, "--token-file", token.to_str().unwrap()];
            let config = ["--config", config.to_str().unwrap()];
            let shared = world.served.scratch("shared");
            let mut options = [options.as_slice(), &config].concat();
            if warm {
                fs::create_dir_all(&shared).unwrap();
                options.extend(["--warm", shared.to_str().unwrap()]);
            }
            let mount = node.mount("catalog:", &options);
            world.mounts.push(mount);
            world.nodes.push(node);
        }
        let url = format!("file://{}", world.place.display());
        world.served.succeed(&["sync", "add", &url]);
        world
    }

    /// Writes a table and waits until it is a version.
    fn publish(&self, table: &str) -> u64 {
        let directory = self.place.join(format!("ads.db/{table}"));
        fs::create_dir_all(&directory).unwrap();
        let mut bytes = 0;
        for number in 0..FILES {
            let length = MIB + 1000 * number as usize;
            fs::write(directory.join(file(number)), noise(number, length)).unwrap();
            bytes += length as u64;
        }
        self.complete(table, 1);
        bytes
    }

    /// Says that a table is written, until it has this version.
    fn complete(&self, table: &str, version: u64) {
        let name = format!("ads.{table}");
        self.eventually("the version", || {
            // Newer than the files, also on a file system whose clock is coarse.
            let marker = self.place.join(format!("ads.db/{table}/_SUCCESS"));
            fs::write(marker, b"").unwrap();
            let list = self.json(&["dataset", "list", "--json"]);
            let mut all = list.as_array().unwrap().iter();
            all.any(|one| one["name"] == name.as_str() && one["latest"] == version)
        });
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.served.succeed(words)).unwrap()
    }

    fn fresh_nodes(&self) -> usize {
        let nodes = self.json(&["catalog", "nodes", "--json"]);
        let fresh = nodes.as_array().unwrap().iter();
        fresh.filter(|node| node["fresh"] == true).count()
    }

    fn job(&self, id: &str) -> Value {
        let path = ["catalog", "jobs", id, "--json"];
        let (_, out, _) = self.served.run(&path);
        serde_json::from_str(&out).unwrap()
    }

    /// Looks at something until it is so.
    fn eventually(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn file(number: u64) -> String {
    format!("part-{number:02}.bin")
}

/// Bytes of a version that the node itself counts as hot.
fn hot_bytes(mount: &std::path::Path, version: &str) -> u64 {
    let usage = fs::read_to_string(mount.join(version).join(".terrace/usage")).unwrap();
    let line = usage
        .lines()
        .find_map(|line| line.strip_prefix("hot_bytes "));
    line.unwrap().parse().unwrap()
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

// SEMANTICS S35: a job is complete when every byte is there, also when a worker and the catalog die in
// the middle of it.
#[test]
fn a_version_is_warmed_on_every_node_through_kills() {
    need_mount!("a_version_is_warmed_on_every_node_through_kills");
    let mut world = World::new(&["n1", "n2"], SLOW, false);
    let bytes = world.publish("clicks");
    world.eventually("both nodes to report", || world.fresh_nodes() == 2);
    let said = world
        .served
        .succeed(&["warm", "ads.clicks", "--nodes", "all"]);
    let id = said.split([' ', ':']).nth(1).unwrap().to_owned();
    let (mut worker_killed, mut catalog_killed) = (false, false);
    let began = Instant::now();
    let job = loop {
        assert!(began.elapsed() < PATIENCE, "not warm: {}", world.job(&id));
        let job = world.job(&id);
        assert_eq!(number(&job["total_bytes"]), 2 * bytes);
        let (state, percent) = (
            job["state"].as_str().unwrap(),
            job["percent"].as_f64().unwrap(),
        );
        if state == "done" {
            break job;
        }
        assert!(
            percent < 100.0 && ["waiting", "running"].contains(&state),
            "{job}"
        );
        let first = number(&job["nodes"][0]["done_bytes"]);
        if !worker_killed && first > bytes / 10 {
            assert!(first < bytes, "too late to kill: {job}");
            world.nodes[0].kill_worker();
            worker_killed = true;
        } else if worker_killed && !catalog_killed && percent > 40.0 {
            world.served.kill();
            world.served.restart();
            catalog_killed = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(worker_killed && catalog_killed, "a fault never came: {job}");
    assert_eq!(job["percent"], 100.0);
    for mount in &world.mounts {
        assert_eq!(
            hot_bytes(mount, "ads/clicks@v1"),
            bytes,
            "{}",
            mount.display()
        );
        let read = fs::read(mount.join("ads/clicks@v1").join(file(3))).unwrap();
        assert!(read == noise(3, MIB + 3000));
    }
    world.eventually("the heat of both nodes", || {
        let heat = world.json(&["dataset", "heat", "ads.clicks", "--json"]);
        let items = heat["items"].as_array().unwrap();
        let hot = items.iter().filter(|item| item["tiers"]["hot"] == bytes);
        hot.count() == 2
    });
    let heat = fs::read(world.mounts[1].join("ads/clicks/.terrace/heat.json")).unwrap();
    let heat: Value = serde_json::from_slice(&heat).unwrap();
    assert_eq!(heat["dataset"], "ads.clicks");
    let table = world.served.succeed(&["dataset", "heat", "ads.clicks"]);
    assert!(table.contains("n1") && table.contains("(100%)"), "{table}");
    let status = world.nodes[0].status();
    assert_eq!(status["reporting"][0]["node"], "n1", "{status}");
}

// A version that a job reads must not be removed under it, and one that nobody reads must not stay for
// ever.
#[test]
fn what_is_open_on_a_node_is_held() {
    need_mount!("what_is_open_on_a_node_is_held");
    let world = World::new(&["n1"], FAST, false);
    world.publish("views");
    let holds = || {
        let heat = world.json(&["dataset", "heat", "ads.views", "--json"]);
        heat["holds"].as_array().unwrap().clone()
    };
    let open = fs::File::open(world.mounts[0].join("ads/views@v1").join(file(0))).unwrap();
    world.eventually("the hold", || {
        holds()
            .iter()
            .any(|hold| hold["holder"] == "mount:n1" && hold["version"] == 1)
    });
    drop(open);
    world.eventually("the end of the hold", || holds().is_empty());
}

// Copies that everybody shares are made by one node, and said to be there when they are.
#[test]
fn the_shared_copy_is_made_once() {
    need_mount!("the_shared_copy_is_made_once");
    let world = World::new(&["n1", "n2"], FAST, true);
    let bytes = world.publish("shared");
    world.eventually("both nodes to report", || world.fresh_nodes() == 2);
    let words = [
        "warm",
        "ads.shared",
        "--nodes",
        "all",
        "--tier",
        "warm",
        "--json",
    ];
    let job = world.json(&words);
    assert_eq!(
        (&job["state"], job["nodes"].as_array().unwrap().len()),
        (&"done".into(), 1)
    );
    let copies = world.served.scratch("shared/objects");
    let shards = fs::read_dir(copies).unwrap().flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten());
    let data = files.filter(|file| file.file_name().len() == 64);
    let there: u64 = data.map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(there, bytes);
    world.eventually("the count of the copies", || {
        let heat = world.json(&["dataset", "heat", "ads.shared", "--json"]);
        let items = heat["items"].as_array().unwrap().clone();
        items
            .iter()
            .any(|item| item["tiers"]["warm"] == bytes && item["tiers"]["hot"] == 0)
    });
}

// Without it a descriptor's wish would be a wish, or each of its versions would stay pinned for ever.
#[test]
fn new_versions_are_warmed_and_pinned_as_the_descriptor_says() {
    need_mount!("new_versions_are_warmed_and_pinned_as_the_descriptor_says");
    let world = World::new(&["n1"], FAST, false);
    world.publish("daily");
    let shown = world.json(&["dataset", "show", "ads.daily", "--json"]);
    let mut descriptor = shown["dataset"]["descriptor"].clone();
    descriptor["spec"]["warm"] = serde_json::json!({"tier": "full", "pin": true});
    let path = world.served.scratch("daily.json");
    fs::write(&path, descriptor.to_string()).unwrap();
    world
        .served
        .succeed(&["dataset", "register", "-f", path.to_str().unwrap()]);
    world.eventually("the node to report", || world.fresh_nodes() == 1);
    let warmed = |version: u64| {
        world.complete("daily", version);
        world.eventually("the job of the version", || {
            let jobs = world.json(&["catalog", "jobs", "--dataset", "ads.daily", "--json"]);
            let mut jobs = jobs.as_array().unwrap().iter();
            jobs.any(|job| job["version"] == version && job["state"] == "done")
        });
    };
    let table = world.place.join("ads.db/daily");
    fs::write(table.join(file(90)), noise(90, MIB)).unwrap();
    warmed(2);
    let kept = world.nodes[0].succeed(&["evict", "ads.daily@v2"]);
    assert!(kept.contains("kept 21 pinned"), "{kept}");
    fs::write(table.join(file(90)), noise(91, MIB)).unwrap();
    warmed(3);
    let kept = world.nodes[0].succeed(&["evict", "ads.daily@v2"]);
    assert!(
        kept.contains("dropped 1 file,") && kept.contains("kept 20 pinned"),
        "{kept}"
    );
    let kept = world.nodes[0].succeed(&["evict", "ads.daily@v3"]);
    assert!(kept.contains("kept 21 pinned"), "{kept}");
}

// A byte that cannot be had must be said with its reason, not counted as warm.
#[test]
fn a_file_that_is_gone_fails_the_job() {
    need_mount!("a_file_that_is_gone_fails_the_job");
    let world = World::new(&["n1"], FAST, false);
    world.publish("lost");
    fs::remove_file(world.place.join("ads.db/lost").join(file(7))).unwrap();
    let warm = ["warm", "ads.lost@v1", "--nodes", "n1", "--wait"];
    let (status, error) = world.served.fail(&warm);
    assert_eq!(status, 1);
    assert!(
        error.contains("n1") && error.contains("1 of 20 files"),
        "{error}"
    );
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    let jobs = world.json(&["catalog", "jobs", "--dataset", "ads.lost", "--json"]);
    assert_eq!(jobs[0]["state"], "failed");
    assert!(jobs[0]["percent"].as_f64().unwrap() < 100.0);
    // A node that is not there keeps a job waiting; it can be cancelled.
    let said = world.served.succeed(&["warm", "ads.lost", "--nodes", "n9"]);
    let id = said.split([' ', ':']).nth(1).unwrap().to_owned();
    world.served.succeed(&["catalog", "jobs", &id, "--cancel"]);
    assert_eq!(world.job(&id)["state"], "cancelled");
}
