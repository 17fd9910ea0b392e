//! Snapshots and copies of directory volumes, on file systems that share blocks between files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use terrace_csi::wire::controller_service_capability::{Type, rpc};
use terrace_csi::wire::volume_capability::access_mode::Mode;
use terrace_csi::wire::volume_content_source::{SnapshotSource, Type as Source, VolumeSource};
use terrace_csi::wire::{
    CapacityRange, ControllerGetCapabilitiesRequest, CreateSnapshotRequest, CreateVolumeRequest,
    DeleteSnapshotRequest, ListSnapshotsRequest, Snapshot, Volume, VolumeContentSource,
};
use tonic::{Code, Status};

use crate::directories::{CLASS, assert_empty, delete, request, writer};
use crate::disk::Disk;
use crate::support::data::noise;
use crate::support::{need_mount, need_s3, skip};
use crate::world::{World, eventually, stage_request};

/// Credentials of a request.
type Secrets = HashMap<String, String>;

/// Size of the disk; sparse.
const DISK: u64 = 2 << 30;

/// A world with a class on a disk of its own; dropped in this order.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) class: PathBuf,
    _disk: Disk,
}

impl Shared {
    /// `None`, with a line that says why, where this machine has no such disk.
    pub(crate) fn new(test: &str, roles: &[&'static str], extra: &[&str]) -> Option<Self> {
        let disk = match Disk::xfs(DISK) {
            Ok(disk) => disk,
            Err(why) => {
                skip(test, &format!("no XFS on a loop device here: {why}"));
                return None;
            }
        };
        let class = disk.path().canonicalize().unwrap().join(CLASS);
        fs::create_dir(&class).unwrap();
        let below = class.parent().unwrap().to_str().unwrap().to_owned();
        let extra = [&["--directories", &below], extra].concat();
        Some(Self {
            world: World::with(roles, &extra),
            class,
            _disk: disk,
        })
    }

    /// What the class's parameter says.
    pub(crate) fn directory(&self) -> String {
        format!("file://{}", self.class.display())
    }

    fn request(&self, name: &str, bytes: i64, more: &[(&str, &str)]) -> CreateVolumeRequest {
        let directory = self.directory();
        let all = [("directory", directory.as_str())];
        let all = all.iter().chain(more);
        CreateVolumeRequest {
            parameters: all
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            capacity_range: (bytes > 0).then_some(CapacityRange {
                required_bytes: bytes,
                limit_bytes: 0,
            }),
            ..request(name)
        }
    }

    fn create(&self, request: CreateVolumeRequest) -> Result<Volume, Status> {
        let mut controller = self.world.controller();
        let made = controller.create_volume(request);
        Ok(self
            .world
            .runtime
            .block_on(made)?
            .into_inner()
            .volume
            .unwrap())
    }

    fn copy(&self, request: CreateVolumeRequest, of: Source) -> Result<Volume, Status> {
        self.create(CreateVolumeRequest {
            volume_content_source: Some(VolumeContentSource { r#type: Some(of) }),
            ..request
        })
    }

    fn snapshot(&self, name: &str, volume: &str) -> Result<Snapshot, Status> {
        let request = CreateSnapshotRequest {
            source_volume_id: volume.to_owned(),
            name: name.to_owned(),
            secrets: HashMap::new(),
            parameters: HashMap::new(),
        };
        let mut controller = self.world.controller();
        let taken = controller.create_snapshot(request);
        Ok(self
            .world
            .runtime
            .block_on(taken)?
            .into_inner()
            .snapshot
            .unwrap())
    }

    fn delete_snapshot(&self, id: &str) {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            secrets: HashMap::new(),
        };
        let mut controller = self.world.controller();
        let deleted = controller.delete_snapshot(request);
        self.world.runtime.block_on(deleted).unwrap();
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let mut controller = self.world.controller();
        let listed = controller.list_snapshots(ListSnapshotsRequest::default());
        let listed = self.world.runtime.block_on(listed).unwrap().into_inner();
        listed
            .entries
            .into_iter()
            .filter_map(|entry| entry.snapshot)
            .collect()
    }

    /// Shows a volume to one pod, does something there, and takes it away.
    fn used<T>(&self, volume: &Volume, secrets: &Secrets, work: impl FnOnce(&Path) -> T) -> T {
        let name = &volume.volume_id;
        let (staging, target) = (self.world.staging(name), self.world.target(name));
        let mut stage = stage_request(volume, &staging, Mode::MultiNodeMultiWriter);
        stage.secrets.clone_from(secrets);
        self.world.stage(&stage).unwrap();
        self.world.publish(&writer(&stage, &target)).unwrap();
        let done = work(&target);
        self.world.unpublish(name, &target).unwrap();
        self.world.unstage(name, &staging).unwrap();
        done
    }

    /// The directory of a volume, as the shared file system has it.
    fn below(&self, volume: &Volume) -> PathBuf {
        let path = &volume.volume_context["directory"];
        PathBuf::from(path.strip_prefix("file://").unwrap())
    }

    /// Nothing of any volume or snapshot is left.
    fn assert_empty(&self) {
        assert_empty(&self.class);
        let own = self.class.join("terrace-volumes");
        eventually("no snapshot is left", || {
            fs::read_dir(own.join("snapshots")).is_ok_and(|left| left.count() == 0)
        });
        self.no_lists();
    }

    fn no_lists(&self) {
        let held = self.class.join("terrace-volumes/.terrace/held");
        eventually("no list of objects is left", || {
            let mut left = fs::read_dir(&held).unwrap();
            left.all(|entry| entry.unwrap().file_name() == "LOCK")
        });
    }
}

fn snapshot_source(snapshot: &Snapshot) -> Source {
    Source::Snapshot(SnapshotSource {
        snapshot_id: snapshot.snapshot_id.clone(),
    })
}

fn volume_source(volume: &Volume) -> Source {
    Source::Volume(VolumeSource {
        volume_id: volume.volume_id.clone(),
    })
}

// What pods wrote must be in a snapshot and in what is made from it, and what they write later in neither.
#[test]
fn snapshots_and_copies_have_one_state_of_their_volume() {
    let test = "snapshots_and_copies_have_one_state_of_their_volume";
    need_mount!("snapshots_and_copies_have_one_state_of_their_volume");
    let Some(shared) = Shared::new(test, &["all"], &[]) else {
        return;
    };
    let (size, none) = (64 << 20, Secrets::new());
    let volume = shared.create(shared.request("pvc-origin", size, &[]));
    let volume = volume.unwrap();
    let bytes = noise(1, 3 << 20);
    let (snapshot, clone) = shared.used(&volume, &none, |target| {
        fs::create_dir(target.join("runs")).unwrap();
        fs::write(target.join("runs/one"), &bytes).unwrap();
        fs::hard_link(target.join("runs/one"), target.join("two")).unwrap();
        let snapshot = shared.snapshot("monday", &volume.volume_id).unwrap();
        fs::write(target.join("two"), "changed").unwrap();
        let clone = shared.request("pvc-clone", 2 * size, &[]);
        (
            snapshot,
            shared.copy(clone, volume_source(&volume)).unwrap(),
        )
    });
    assert!(snapshot.ready_to_use && snapshot.size_bytes == size);
    assert_eq!(clone.capacity_bytes, 2 * size);
    refusals(&shared, &volume, &snapshot);
    // A snapshot outlives its volume.
    delete(&shared.world, &volume.volume_id).unwrap();
    let restored = shared.request("pvc-back", 0, &[]);
    let restored = shared.copy(restored, snapshot_source(&snapshot)).unwrap();
    assert_eq!(restored.capacity_bytes, size);
    assert!(restored.content_source.is_some(), "{restored:?}");
    let again = shared.create(shared.request("pvc-back", 0, &[]));
    assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);
    for (volume, expected) in [(&clone, &b"changed"[..]), (&restored, &bytes)] {
        shared.used(volume, &none, |target| {
            let read = || fs::read(target.join("runs/one")).unwrap();
            assert!(read() == expected, "other bytes");
            let file = File::options().write(true).open(target.join("two"));
            file.unwrap().write_all_at(b"!", 0).unwrap();
            assert_eq!(read()[0], b'!', "no longer one file");
        });
    }
    assert_eq!(shared.snapshots(), std::slice::from_ref(&snapshot));
    for volume in [&clone, &restored] {
        delete(&shared.world, &volume.volume_id).unwrap();
    }
    for _ in 0..2 {
        shared.delete_snapshot(&snapshot.snapshot_id);
    }
    shared.assert_empty();
}

/// What contradicts a snapshot that is there is told so, and the same call again answers it.
fn refusals(shared: &Shared, volume: &Volume, snapshot: &Snapshot) {
    let again = shared.snapshot("monday", &volume.volume_id).unwrap();
    assert_eq!(again, *snapshot);
    let small = shared.request("pvc-small", snapshot.size_bytes / 2, &[]);
    let small = shared.copy(small, snapshot_source(snapshot));
    assert_eq!(small.unwrap_err().code(), Code::OutOfRange);
    let other = shared.create(shared.request("pvc-other", 0, &[])).unwrap();
    let refused = shared.snapshot("monday", &other.volume_id).unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    delete(&shared.world, &other.volume_id).unwrap();
}

// A driver that is killed in the middle of a copy must leave a snapshot, or nothing: never half of one.
#[test]
fn a_snapshot_is_whole_or_not_there_wherever_the_driver_dies() {
    let test = "a_snapshot_is_whole_or_not_there_wherever_the_driver_dies";
    need_mount!("a_snapshot_is_whole_or_not_there_wherever_the_driver_dies");
    let Some(mut shared) = Shared::new(test, &["all"], &[]) else {
        return;
    };
    const FILES: usize = 2000;
    let volume = shared.create(shared.request("pvc-cut", 0, &[])).unwrap();
    let below = shared.below(&volume);
    for number in 0..FILES {
        fs::write(below.join(number.to_string()), number.to_string()).unwrap();
    }
    let taken = shared.class.join("terrace-volumes/snapshots");
    let mut cut = 0;
    for (round, milliseconds) in [1, 5, 20, 60, 120].into_iter().enumerate() {
        let name = format!("cut-{round}");
        let request = CreateSnapshotRequest {
            source_volume_id: volume.volume_id.clone(),
            name: name.clone(),
            ..CreateSnapshotRequest::default()
        };
        let mut controller = shared.world.controller();
        let runtime = &shared.world.runtime;
        let call =
            runtime.spawn(async move { controller.create_snapshot(request).await.map(drop) });
        std::thread::sleep(Duration::from_millis(milliseconds));
        shared.world.kill();
        cut += u32::from(shared.world.runtime.block_on(call).unwrap().is_err());
        // What has its name is whole, whatever the driver has said.
        for found in fs::read_dir(&taken).into_iter().flatten() {
            assert_eq!(fs::read_dir(found.unwrap().path()).unwrap().count(), FILES);
        }
        shared.world.start("all");
        let mut snapshot = None;
        eventually("the snapshot is taken", || {
            snapshot = shared.snapshot(&name, &volume.volume_id).ok();
            snapshot.is_some()
        });
        let snapshot = snapshot.unwrap();
        let [found] = fs::read_dir(&taken)
            .unwrap()
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let found: std::io::Result<fs::DirEntry> = found;
        assert_eq!(fs::read_dir(found.unwrap().path()).unwrap().count(), FILES);
        shared.delete_snapshot(&snapshot.snapshot_id);
        eventually("it is gone", || fs::read_dir(&taken).unwrap().count() == 0);
    }
    assert!(cut > 0, "no call was cut off: the test has shown nothing");
    delete(&shared.world, &volume.volume_id).unwrap();
    shared.assert_empty();
}

// Where nothing can share blocks a snapshot must be a refusal that says so, and not a promise.
#[test]
fn what_cannot_be_copied_is_refused() {
    need_mount!("what_cannot_be_copied_is_refused");
    let disk = match Disk::tmpfs(64 << 20) {
        Ok(disk) => disk,
        Err(why) => return skip("what_cannot_be_copied_is_refused", &why),
    };
    let place = disk.path().canonicalize().unwrap();
    fs::create_dir(place.join(CLASS)).unwrap();
    let world = World::with(&["all"], &["--directories", place.to_str().unwrap()]);
    let shared = Shared {
        world,
        class: place.join(CLASS),
        _disk: disk,
    };
    let mut controller = shared.world.controller();
    let offered = controller.controller_get_capabilities(ControllerGetCapabilitiesRequest {});
    let offered = shared.world.runtime.block_on(offered).unwrap().into_inner();
    let copies = [rpc::Type::CreateDeleteSnapshot, rpc::Type::CloneVolume];
    let is_copy = |is: &Type| matches!(is, Type::Rpc(rpc) if copies.contains(&rpc.r#type()));
    let offers = offered
        .capabilities
        .iter()
        .filter_map(|one| one.r#type.as_ref());
    // What the test's own shared directory lies on is the machine's.
    println!(
        "snapshots are offered: {}",
        offers.filter(|is| is_copy(is)).count() > 0
    );
    let volume = shared.create(shared.request("pvc-plain", 0, &[])).unwrap();
    let refused = shared.snapshot("never", &volume.volume_id).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let why = refused.message();
    assert!(why.contains("FICLONE") && !why.contains('\n'), "{why}");
    let staged = shared.create(shared.request("pvc-staged", 0, &[("durability", "local")]));
    let refused = shared
        .snapshot("never", &staged.unwrap().volume_id)
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let version = shared.world.create("version", &[]).unwrap();
    let refused = shared.snapshot("never", &version.volume_id).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let nobody = shared.snapshot("never", "data-nobody").unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound, "{nobody}");
    assert!(shared.snapshots().is_empty());
}

// A file that is staged is empty in the directory: a snapshot without a word would be a loss.
#[test]
fn what_is_only_on_a_node_is_not_left_out_in_silence() {
    let test = "what_is_only_on_a_node_is_not_left_out_in_silence";
    need_mount!("what_is_only_on_a_node_is_not_left_out_in_silence");
    let Some(shared) = Shared::new(test, &["all"], &[]) else {
        return;
    };
    let request = shared.request("pvc-local", 0, &[("durability", "local")]);
    let volume = shared.create(request).unwrap();
    let refused = shared.snapshot("never", &volume.volume_id).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("SSD only"), "{refused}");
    let copied = shared.copy(shared.request("pvc-copy", 0, &[]), volume_source(&volume));
    assert_eq!(copied.unwrap_err().code(), Code::FailedPrecondition);
    delete(&shared.world, &volume.volume_id).unwrap();
    assert_empty(&shared.class);
}

/// Asks the daemon for something about a volume that is mounted.
fn tell(shared: &Shared, words: &[&str], of: &Volume) -> String {
    let at = shared.world.staging(&of.volume_id);
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrace"));
    let run = shared.world.node.scratch("run");
    command
        .arg("--run-dir")
        .arg(run)
        .arg("volume")
        .args(words)
        .arg(at);
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

/// Files of the test below.
const COLD: [&str; 3] = ["final/model", "old", "kept"];

/// A policy that moves nothing by itself.
const POLICY: &str = "older_than: 3650d\nevery: 0s\n";

/// What a class with a cold store cannot say.
fn refused_stores(shared: &Shared, url: &str) {
    for (name, bad) in [
        (
            "outside",
            [("cold", "s3://elsewhere/x"), ("durability", "cold")],
        ),
        ("policy", [("cold", url), ("tierPolicy", "older: 3\n")]),
        (
            "nothing",
            [("tierPolicy", POLICY), ("durability", "shared")],
        ),
    ] {
        let refused = shared.create(shared.request(name, 0, &bad)).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused}");
        assert!(!refused.message().contains('\n'), "{refused}");
    }
}

/// The credentials of this run's store.
fn credentials() -> Secrets {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let found = names.map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    found.into_iter().flatten().collect()
}

/// A volume whose contents are in the store, its snapshot, and a copy of that. With the directory that is the
/// store, its objects become old enough to be collected.
fn copy_of_stubs(shared: &Shared, url: &str, secrets: &Secrets, aged: Option<&Path>) {
    let rules = "final/**:close=cold;fsync=shared";
    let class = [("cold", url), ("tierPolicy", POLICY), ("durability", rules)];
    let volume = shared
        .create(shared.request("pvc-cold", 0, &class))
        .unwrap();
    let bytes = noise(5, 2 << 20);
    let (snapshot, clone) = shared.used(&volume, secrets, |target| {
        fs::create_dir(target.join("final")).unwrap();
        for name in COLD {
            fs::write(target.join(name), &bytes).unwrap();
        }
        let all = ["demote", "--older-than", "0s", "--larger-than", "1KiB"];
        tell(shared, &all, &volume);
        let away = shared.below(&volume).join("old");
        assert_eq!(fs::metadata(away).unwrap().len(), 0, "it is not away");
        let snapshot = shared.snapshot("cold", &volume.volume_id).unwrap();
        let plain = shared.request("pvc-plain", 0, &[]);
        let refused = shared.copy(plain, snapshot_source(&snapshot)).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let clone = shared.request("pvc-clone", 0, &class);
        let clone = shared.copy(clone, snapshot_source(&snapshot)).unwrap();
        // Nobody but the copies names the objects now.
        for name in COLD {
            fs::remove_file(target.join(name)).unwrap();
        }
        (snapshot, clone)
    });
    let collected = |expected: usize| {
        let Some(store) = aged else {
            return;
        };
        age(store);
        let collect = ["collect", "--grace", "2h", "--json"];
        let said = shared.used(&volume, secrets, |_| tell(shared, &collect, &volume));
        let taken = said.split("\"taken\":").nth(1).unwrap().trim_start();
        assert!(taken.starts_with(&expected.to_string()), "{said}");
    };
    collected(0);
    shared.used(&clone, secrets, |target| {
        for name in COLD {
            assert!(fs::read(target.join(name)).unwrap() == bytes, "{name}");
        }
    });
    // Once no copy names them any more they are orphans like others.
    delete(&shared.world, &clone.volume_id).unwrap();
    shared.delete_snapshot(&snapshot.snapshot_id);
    shared.no_lists();
    collected(COLD.len());
    delete(&shared.world, &volume.volume_id).unwrap();
    shared.assert_empty();
}

/// Makes every object of a store that is a directory older than any grace period.
fn age(store: &Path) {
    let ago = SystemTime::now() - Duration::from_secs(24 * 3600);
    for entry in fs::read_dir(store).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path);
        } else {
            File::open(&path).unwrap().set_modified(ago).unwrap();
        }
    }
}

// A class may have a cold store: the levels of its volumes, what moves there, and what copies of them need must
// work as in a mount, with credentials that no log shows.
#[test]
fn contents_in_the_cold_store_come_back_in_copies() {
    let test = "contents_in_the_cold_store_come_back_in_copies";
    need_mount!("contents_in_the_cold_store_come_back_in_copies");
    let server = need_s3!("contents_in_the_cold_store_come_back_in_copies");
    let bucket = server.bucket("csi-cold");
    let (url, above) = (bucket.url("runs/team"), bucket.url("runs"));
    let Some(shared) = Shared::new(test, &["all"], &["--cold", &above]) else {
        return;
    };
    let secrets = credentials();
    copy_of_stubs(&shared, &url, &secrets, None);
    let log = fs::read_to_string(shared.world.log("all")).unwrap();
    for secret in secrets.values().filter(|secret| secret.len() > 7) {
        assert!(!log.contains(secret), "a log shows a secret");
    }
}

// Objects that only a snapshot or a copy names look like orphans of their volume; taking them loses the copy.
#[test]
fn a_collection_leaves_what_copies_name() {
    let test = "a_collection_leaves_what_copies_name";
    need_mount!("a_collection_leaves_what_copies_name");
    let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let url = format!("file://{}", store.path().display());
    let Some(shared) = Shared::new(test, &["all"], &["--cold", &url]) else {
        return;
    };
    refused_stores(&shared, &url);
    copy_of_stubs(&shared, &url, &Secrets::new(), Some(store.path()));
}
