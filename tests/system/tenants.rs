//! Tenants of one node: what one reads takes nothing of what is guaranteed to another.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::data::noise;
use crate::support::need_mount;
use crate::support::node::Node;

const MIB: u64 = 1 << 20;

/// Longest wait for a number to become what it should be.
const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[cache.hot]
size = "64MiB"
[tenants.owner]
ssd_share = "24MiB"
[tenants.scanner]
[tenants.small]
ssd_cap = "8MiB"
store_bandwidth = "8MiB"
"#;

/// A node with these tenants.
struct World {
    node: Node,
    config: PathBuf,
}

impl World {
    fn new() -> Self {
        let node = Node::new();
        let config = node.scratch("config").join("terrace.toml");
        fs::write(&config, CONFIG).unwrap();
        Self { node, config }
    }

    /// A directory of so many files of 1 MiB.
    fn files(&self, name: &str, count: u64) -> PathBuf {
        let place = self.node.scratch(name);
        for number in 0..count {
            let seed = number + 1000 * name.len() as u64;
            let bytes = noise(seed, MIB as usize);
            fs::write(place.join(format!("file{number:03}")), bytes).unwrap();
        }
        place
    }

    fn mount(&self, place: &Path, tenant: &str) -> PathBuf {
        let source = format!("file://{}", place.display());
        let config = self.config.to_str().unwrap();
        let options = ["--config", config, "--tenant", tenant];
        self.node.mount(&source, &options)
    }

    /// What a tenant has in the hot tier; nothing while no worker says so.
    fn hot_bytes(&self, tenant: &str) -> u64 {
        let status = self.node.status();
        let tenants = status["tenants"].as_array();
        let found = tenants.and_then(|all| all.iter().find(|one| one["name"] == tenant));
        found.and_then(|one| one["hot_bytes"].as_u64()).unwrap_or(0)
    }

    /// What the store sent for a mount.
    fn store_bytes(&self, mount: &Path) -> u64 {
        let status = self.node.status();
        let mounts = status["mounts"].as_array().unwrap();
        let of = |one: &&Value| one["mountpoint"].as_str() == mount.to_str();
        let found = mounts.iter().find(of).unwrap();
        found["store"]["bytes"].as_u64().unwrap()
    }
}

/// Reads every file and compares it with the one below.
fn read_all(mount: &Path, place: &Path) {
    let mut names: Vec<_> = fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let same = fs::read(mount.join(&name)).unwrap() == fs::read(place.join(&name)).unwrap();
        assert!(same, "{name:?}");
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// SEMANTICS S117: without it one tenant's scan would make another one's training read from the store again.
#[test]
fn a_scan_through_one_mount_leaves_another_ones_data() {
    need_mount!("a_scan_through_one_mount_leaves_another_ones_data");
    let world = World::new();
    let (own, large) = (world.files("own", 16), world.files("large", 150));
    let mount = world.mount(&own, "owner");
    read_all(&mount, &own);
    wait_for("the owner's files in the hot tier", || {
        world.hot_bytes("owner") >= 16 * MIB
    });
    let sent = world.store_bytes(&mount);
    let scan = world.mount(&large, "scanner");
    for _ in 0..2 {
        read_all(&scan, &large);
    }
    let others = world.hot_bytes("scanner");
    assert!(others > 20 * MIB, "the scan met no full tier: {others}");
    let read = world.store_bytes(&scan);
    assert!(read >= 150 * MIB, "more than twice the tier: {read}");
    read_all(&mount, &own);
    assert_eq!(world.store_bytes(&mount), sent, "some of it was evicted");
    // A worker that starts anew knows whose they are.
    world.node.kill_worker();
    wait_for("the next worker", || world.node.pid("worker").is_some());
    wait_for("the owner's files", || world.hot_bytes("owner") >= 16 * MIB);
}

// SEMANTICS S118: without it one tenant could fill the disk, or the line to the store, that all share.
#[test]
fn a_tenant_has_no_more_than_its_caps() {
    need_mount!("a_tenant_has_no_more_than_its_caps");
    let world = World::new();
    let place = world.files("files", 32);
    let begun = Instant::now();
    let mount = world.mount(&place, "small");
    read_all(&mount, &place);
    // A second's worth may come at once.
    let least = Duration::from_secs(3);
    assert!(
        begun.elapsed() >= least - Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    read_all(&mount, &place);
    let bytes = world.hot_bytes("small");
    assert!((MIB..=9 * MIB).contains(&bytes), "{bytes} of 8 MiB");
}

// Without it a mistyped name would silently be nobody's, with nobody's budget.
#[test]
fn an_unknown_tenant_is_refused() {
    need_mount!("an_unknown_tenant_is_refused");
    let world = World::new();
    let place = world.files("files", 1);
    let source = format!("file://{}", place.display());
    let target = world.node.mountpoint();
    let (hot, config) = (world.node.hot(), world.config.to_str().unwrap());
    for (tenant, why) in [
        ("nobody-knows", "is not in the configuration"),
        ("Owner", "is not the name of a tenant"),
    ] {
        let tried = world.node.terrace(&[
            "mount",
            &source,
            target.to_str().unwrap(),
            "--hot",
            hot.to_str().unwrap(),
            "--config",
            config,
            "--tenant",
            tenant,
        ]);
        let said = String::from_utf8_lossy(&tried.stderr);
        assert!(!tried.status.success() && said.contains(why), "{said}");
    }
}
