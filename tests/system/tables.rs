//! Tables of a catalog through a real mount: by name, by version, over the death of the worker and
//! the absence of the catalog, and as Hugging Face's own library reads them.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;

use crate::support::catalog::{Catalog, TOKEN};
use crate::support::data::{assert_same, noise, read_tree, sample_tree, write_tree};
use crate::support::need_mount;
use crate::support::node::Node;

/// A mount of everything, with the scripted catalog behind it.
struct World {
    catalog: Catalog,
    node: Node,
}

impl World {
    fn new() -> Self {
        let node = Node::new().with("TERRACE_TOKEN", TOKEN);
        let catalog = Catalog::new();
        Self { catalog, node }
    }

    fn mount(&self) -> PathBuf {
        self.node.mount(
            "catalog:",
            &["--catalog", &self.catalog.url(), "--ttl", "200ms"],
        )
    }

    /// A directory of files with bytes that depend on `seed`.
    fn files(&self, name: &str, seed: u64) -> PathBuf {
        let directory = self.node.scratch(name);
        for number in 0..8_u64 {
            let day = directory.join(format!("dt={}", number % 2));
            fs::create_dir_all(&day).unwrap();
            fs::write(day.join(format!("part-{number}")), bytes(seed, number)).unwrap();
        }
        directory
    }
}

fn bytes(seed: u64, number: u64) -> Vec<u8> {
    noise(seed * 100 + number, 300_000 + 1000 * number as usize)
}

fn part(number: u64) -> String {
    format!("dt={}/part-{number}", number % 2)
}

/// Which version the table at a path is: every file of it, or nothing.
fn version_at(table: &Path) -> Option<u64> {
    let first = fs::read(table.join(part(0))).ok()?;
    let seed = (1..9).find(|seed| bytes(*seed, 0) == first)?;
    Some(seed)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 30 seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn attribute(path: &Path, name: &str) -> String {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let name = CString::new(name).unwrap();
    let mut value = vec![0_u8; 4096];
    // SAFETY: both texts end with NUL, and the buffer is as long as it is said to be.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(length).unwrap());
    String::from_utf8(value).unwrap()
}

// SEMANTICS S30, S31: a table is read by its name; when it moves on, jobs see one version or the other.
#[test]
fn a_table_is_read_by_name_and_moves_on_whole() {
    need_mount!("a_table_is_read_by_name_and_moves_on_whole");
    let world = World::new();
    let sample = sample_tree();
    let origin = world.node.scratch("sample");
    write_tree(&origin, &sample);
    world.catalog.commit("web.pages", 1, &origin);
    world.catalog.commit("ads.clicks", 1, &world.files("v1", 1));
    let mount = world.mount();
    assert_same(&read_tree(&mount.join("web/pages")), &sample);
    let table = mount.join("ads/clicks");
    assert_eq!(version_at(&table), Some(1));
    for (name, expected) in [("ads", vec!["clicks"]), ("", vec!["ads", "web"])] {
        let listed = fs::read_dir(mount.join(name)).unwrap();
        let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, expected, "{name:?}");
    }
    let file = table.join(part(3));
    assert_eq!(attribute(&file, "user.terrace.version"), "v1");
    assert_eq!(attribute(&file, "user.terrace.digest").len(), 64);
    assert!(["hot", "partial", "cold"].contains(&&*attribute(&file, "user.terrace.tier")));
    let about = fs::read(table.join(".terrace/version.json")).unwrap();
    let about: serde_json::Value = serde_json::from_slice(&about).unwrap();
    assert_eq!(
        (&about["selector"], &about["files"]),
        (&"ads.clicks@v1".into(), &8.into())
    );
    let list = fs::read_to_string(table.join(".terrace/manifest")).unwrap();
    assert_eq!(list.lines().count(), 8);
    assert!(list.starts_with("dt=0/part-0\t300000\t"), "{list}");
    let usage = fs::read_to_string(table.join(".terrace/usage")).unwrap();
    assert!(usage.contains("files 8\n"), "{usage}");

    let mut open = File::open(table.join(part(5))).unwrap();
    let mut scan = fs::read_dir(table.join("dt=1")).unwrap();
    scan.next().unwrap().unwrap();
    world.catalog.commit("ads.clicks", 2, &world.files("v2", 2));
    eventually("the next version", || version_at(&table) == Some(2));
    for number in 0..8 {
        assert!(
            fs::read(table.join(part(number))).unwrap() == bytes(2, number),
            "{number}"
        );
    }
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == bytes(1, 5), "an open file stays in its version");
    assert_eq!(scan.map(Result::unwrap).count(), 3);
    assert_eq!(version_at(&mount.join("ads/clicks@v1")), Some(1));
    for absent in [
        "ads/clicks@v9",
        "ads/none",
        "none",
        "ads/clicks/none",
        ".hf/x",
    ] {
        let error = fs::metadata(mount.join(absent)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{absent}: {error}");
    }
}

// SEMANTICS S31: the worker dies, and every number, name and handle means what it meant.
#[test]
fn numbers_of_tables_survive_the_worker() {
    need_mount!("numbers_of_tables_survive_the_worker");
    let world = World::new();
    world.catalog.commit("ads.clicks", 1, &world.files("v1", 1));
    world.catalog.commit("ads.clicks", 2, &world.files("v2", 2));
    let mount = world.mount();
    let paths = [
        "",
        "ads",
        "ads/clicks@v1",
        "ads/clicks@v1/dt=1",
        "ads/clicks@v1/dt=1/part-3",
        "ads/clicks/dt=0/part-2",
    ];
    let numbers = || paths.map(|path| fs::metadata(mount.join(path)).unwrap().ino());
    let before = numbers();
    let mut open = File::open(mount.join("ads/clicks@v1").join(part(1))).unwrap();
    for _ in 0..3 {
        world.node.kill_worker();
        assert_eq!(numbers(), before);
        assert_eq!(version_at(&mount.join("ads/clicks")), Some(2));
    }
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == bytes(1, 1));
}

// SEMANTICS S32: the catalog is down; training goes on, and nothing "disappears".
#[test]
fn tables_stay_while_the_catalog_is_down() {
    need_mount!("tables_stay_while_the_catalog_is_down");
    let world = World::new();
    world.catalog.commit("ads.clicks", 1, &world.files("v1", 1));
    world
        .catalog
        .commit("ads.views", 1, &world.files("other", 3));
    let mount = world.mount();
    let table = mount.join("ads/clicks");
    assert_eq!(version_at(&table), Some(1));
    world.catalog.set_down(true);
    let answered = world.catalog.requests();
    eventually("the mount to notice", || {
        assert_eq!(version_at(&table), Some(1));
        world.node.status()["mounts"][0]["catalog"]["answers"] == false
    });
    for _ in 0..2 {
        for number in 0..8 {
            assert!(
                fs::read(table.join(part(number))).unwrap() == bytes(1, number),
                "{number}"
            );
        }
        // Never looked at: not there to be had, and not absent.
        let error = fs::metadata(mount.join("ads/views")).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::NotFound, "{error}");
        // Also for the next worker.
        world.node.kill_worker();
    }
    assert_eq!(world.catalog.requests(), answered, "it was down");
    world.catalog.set_down(false);
    world.catalog.commit("ads.clicks", 2, &world.files("v2", 2));
    eventually("the next version", || version_at(&table) == Some(2));
    assert_eq!(version_at(&mount.join("ads/views")), Some(3));
}

// SEMANTICS S31: a mount of a selector is one version, whatever the selector names later.
#[test]
fn a_selector_is_resolved_once() {
    need_mount!("a_selector_is_resolved_once");
    let world = World::new();
    let first = world.catalog.commit("ads.clicks", 1, &world.files("v1", 1));
    world.catalog.name("ads.clicks@prod", &first);
    let url = world.catalog.url();
    let mount = world.node.mount("ads.clicks@prod", &["--catalog", &url]);
    assert_eq!(version_at(&mount), Some(1));
    let second = world.catalog.commit("ads.clicks", 2, &world.files("v2", 2));
    world.catalog.name("ads.clicks@prod", &second);
    world.node.kill_worker();
    assert_eq!(version_at(&mount), Some(1));
    assert_eq!(
        attribute(&mount.join(part(0)), "user.terrace.version"),
        "v1"
    );
    let other = world.node.scratch("refused");
    let other = other.to_str().unwrap();
    for (source, said) in [
        ("ads.none", "as the test wants it"),
        ("nonsense", "is no source"),
    ] {
        let output = world
            .node
            .terrace(&["mount", source, other, "--catalog", &url]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(said),
            "{source}: {error}"
        );
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
}

// Without it a job could not make sure beforehand that the version it pins is on the node.
#[test]
fn commands_take_a_version_by_its_name() {
    need_mount!("commands_take_a_version_by_its_name");
    let world = World::new();
    world.catalog.commit("ads.clicks", 1, &world.files("v1", 1));
    world.catalog.commit("ads.clicks", 2, &world.files("v2", 2));
    let selector = "ads.clicks@v1";
    let output = world.node.terrace(&["warm", selector, "--wait"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("terrace mount catalog:"), "{error}");
    let mount = world.mount();
    let warmed = world
        .node
        .succeed(&["warm", selector, "--wait", "--pin", "--json"]);
    let warmed: serde_json::Value = serde_json::from_str(&warmed).unwrap();
    assert_eq!(
        (&warmed["files"], &warmed["failed"]),
        (&8.into(), &0.into())
    );
    let file = mount.join("ads/clicks@v1").join(part(2));
    assert_eq!(attribute(&file, "user.terrace.tier"), "hot");
    let other = mount.join("ads/clicks").join(part(2));
    assert_eq!(attribute(&other, "user.terrace.tier"), "cold");
    let kept = world.node.succeed(&["evict", selector]);
    assert!(kept.contains("kept 8 pinned"), "{kept}");
    let tree = world.node.scratch("trees").join("tree");
    let tree = tree.to_str().unwrap();
    world.node.succeed(&["materialize", selector, tree]);
    assert_eq!(version_at(Path::new(tree)), Some(1));
    world
        .node
        .succeed(&["materialize", selector, tree, "--remove"]);
    let refused = world
        .node
        .terrace(&["materialize", mount.to_str().unwrap(), tree]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && error.contains("name a version"),
        "{error}"
    );
}

// Without it models could not be loaded by name from the mount by the library that everybody uses.
#[test]
fn hugging_face_reads_the_mount_offline() {
    need_mount!("hugging_face_reads_the_mount_offline");
    let Ok(python) = std::env::var("TERRACE_TEST_PYTHON") else {
        let why = "no huggingface_hub (TERRACE_TEST_PYTHON is not set)";
        return crate::support::skip("hugging_face_reads_the_mount_offline", why);
    };
    let world = World::new();
    let origin = world.node.scratch("model");
    fs::write(origin.join("config.json"), b"{\"layers\": 3}").unwrap();
    world.catalog.commit("team.churn", 3, &origin);
    world.catalog.commit("team.churn", 4, &world.files("v4", 4));
    let mount = world.mount();
    let program = "import sys; from huggingface_hub import snapshot_download, try_to_load_from_cache\n\
        path = snapshot_download('team/churn', revision='v3')\n\
        print(path)\n\
        print(open(path + '/config.json').read())\n\
        print(snapshot_download('team/churn', repo_type='dataset'))\n\
        print(try_to_load_from_cache('team/churn', 'config.json', revision='v3'))\n";
    let output = Command::new(python)
        .args(["-c", program])
        .env("HF_HUB_CACHE", mount.join(".hf"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{errors}");
    let lines: Vec<&str> = said.lines().collect();
    let repository = mount.join(".hf/models--team--churn/snapshots");
    assert_eq!(Path::new(lines[0]).parent().unwrap(), repository);
    assert_eq!(lines[1], "{\"layers\": 3}");
    let newest = Path::new(lines[2]);
    assert!(newest.starts_with(mount.join(".hf/datasets--team--churn")));
    assert!(fs::read(newest.join(part(2))).unwrap() == bytes(4, 2));
    assert_eq!(lines[3], format!("{}/config.json", lines[0]));
}
