//! Volumes that are written: directories of a shared file system, from their making to their removal.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use terrace_csi::wire::volume_capability::AccessType;
use terrace_csi::wire::volume_capability::access_mode::Mode;
use terrace_csi::wire::{
    CreateVolumeRequest, DeleteVolumeRequest, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodeStageVolumeRequest, Volume,
};
use tonic::{Code, Status};

use crate::support::need_mount;
use crate::world::{World, capability, eventually, publish_request, stage_request, text};

/// The directory of a class below the shared file system, as its parameter names it.
pub(crate) const CLASS: &str = "checkpoints";

/// A world with the directory of a class.
pub(crate) fn world() -> (World, PathBuf) {
    let world = World::new();
    let class = world.shared().join(CLASS);
    fs::create_dir(&class).unwrap();
    (world, class)
}

pub(crate) fn request(name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter)],
        parameters: HashMap::from([("directory".to_owned(), CLASS.to_owned())]),
        ..CreateVolumeRequest::default()
    }
}

pub(crate) fn create(world: &World, name: &str) -> Result<Volume, Status> {
    let mut controller = world.controller();
    let made = world
        .runtime
        .block_on(controller.create_volume(request(name)));
    Ok(made?.into_inner().volume.unwrap())
}

pub(crate) fn delete(world: &World, volume: &str) -> Result<(), Status> {
    let mut controller = world.controller();
    let request = DeleteVolumeRequest {
        volume_id: volume.to_owned(),
        ..DeleteVolumeRequest::default()
    };
    let deleted = world.runtime.block_on(controller.delete_volume(request));
    deleted.map(drop)
}

pub(crate) fn stats(
    world: &World,
    volume: &str,
    at: &Path,
) -> Result<NodeGetVolumeStatsResponse, Status> {
    let request = NodeGetVolumeStatsRequest {
        volume_id: volume.to_owned(),
        volume_path: text(at),
        staging_target_path: String::new(),
    };
    let mut client = world.client();
    let asked = world
        .runtime
        .block_on(client.node_get_volume_stats(request));
    Ok(asked?.into_inner())
}

/// A pod's wish to write the volume.
pub(crate) fn writer(stage: &NodeStageVolumeRequest, target: &Path) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        readonly: false,
        ..publish_request(stage, target)
    }
}

/// The directories of a class's volumes.
pub(crate) fn volumes(class: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(class.join("terrace-volumes/volumes")).unwrap();
    listed.map(|entry| entry.unwrap().path()).collect()
}

/// Waits until nothing of any volume is left below the directory of a class.
pub(crate) fn assert_empty(class: &Path) {
    for part in ["volumes", ".terrace/making", ".terrace/trash"] {
        let directory = class.join("terrace-volumes").join(part);
        eventually(&format!("{part} is empty"), || {
            fs::read_dir(&directory).unwrap().count() == 0
        });
    }
}

// Two pods write one directory, and the worker dies under them: neither loses a byte or hears an error.
#[test]
fn two_pods_write_one_directory_over_the_death_of_the_worker() {
    need_mount!("two_pods_write_one_directory_over_the_death_of_the_worker");
    let (world, class) = world();
    let volume = create(&world, "pvc-write").unwrap();
    let staging = world.staging("write");
    let stage = stage_request(&volume, &staging, Mode::MultiNodeMultiWriter);
    world.stage(&stage).unwrap();
    let pods = ["one", "two"];
    let [one, two] = pods.map(|pod| world.target(pod));
    let reader = world.target("reader");
    for target in [&one, &two] {
        world.publish(&writer(&stage, target)).unwrap();
    }
    world.publish(&publish_request(&stage, &reader)).unwrap();
    let killed = world.node.pid("worker").unwrap();
    let again = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (pod, target) in pods.into_iter().zip([&one, &two]) {
            let again = &again;
            scope.spawn(move || write_until(pod, target, again));
        }
        let grown = |pod| fs::metadata(one.join(pod)).is_ok_and(|log| log.len() > 0);
        eventually("something is written", || pods.into_iter().all(grown));
        world.node.kill_worker();
        eventually("another worker serves", || {
            world.node.pid("worker").is_some_and(|pid| pid != killed)
        });
        again.store(true, Ordering::Relaxed);
    });
    // Each pod sees what the other one wrote, and so does the shared file system.
    let [below] = volumes(&class).try_into().unwrap();
    for directory in [&one, &two, &reader, &below] {
        for pod in pods {
            let log = fs::read_to_string(directory.join(pod)).unwrap();
            assert_eq!(log, LINE.repeat(LINES), "{pod} in {}", directory.display());
        }
        assert_eq!(
            fs::read_dir(directory.join("steps")).unwrap().count(),
            2 * LINES
        );
    }
    let refused = fs::write(reader.join("one"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let usage = stats(&world, &volume.volume_id, &one).unwrap().usage;
    assert!(
        usage.len() == 2 && usage.iter().all(|usage| usage.total > 0 && usage.used > 0),
        "{usage:?}"
    );
    for target in [&one, &two, &reader] {
        world.unpublish(&volume.volume_id, target).unwrap();
    }
    world.unstage(&volume.volume_id, &staging).unwrap();
    assert_eq!(world.mounts(), Vec::<String>::new());
    delete(&world, &volume.volume_id).unwrap();
    assert_empty(&class);
}

/// Lines that each pod writes, before the worker dies and after.
const LINES: usize = 25;

/// What is written again and again.
const LINE: &str = "a line of a pod\n";

/// Appends lines to a pod's file and makes files beside it: half of them, then the rest when told.
fn write_until(pod: &str, target: &Path, again: &AtomicBool) {
    let mut options = File::options();
    let mut log = options
        .create(true)
        .append(true)
        .open(target.join(pod))
        .unwrap();
    fs::create_dir_all(target.join("steps")).unwrap();
    for step in 0..LINES {
        while step == LINES / 2 && !again.load(Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        log.write_all(LINE.as_bytes()).unwrap();
        log.sync_all().unwrap();
        let new = target.join("steps").join(format!("{pod}-{step}.new"));
        fs::write(&new, LINE).unwrap();
        fs::rename(&new, new.with_extension("")).unwrap();
    }
}

// A driver that is killed anywhere must neither lose a volume that was promised nor leave one that was not.
#[test]
fn a_directory_bears_the_death_of_the_driver_at_every_step() {
    need_mount!("a_directory_bears_the_death_of_the_driver_at_every_step");
    let (mut world, class) = world();
    let volume = create(&world, "pvc-kill").unwrap();
    let (staging, target) = (world.staging("kill"), world.target("kill"));
    let stage = stage_request(&volume, &staging, Mode::SingleNodeWriter);
    let publish = writer(&stage, &target);
    world.restart();
    assert_eq!(create(&world, "pvc-kill").unwrap(), volume);
    for _ in 0..2 {
        world.stage(&stage).unwrap();
        world.restart();
    }
    for round in 0..2 {
        world.publish(&publish).unwrap();
        world.restart();
        fs::write(target.join(format!("file-{round}")), "kept").unwrap();
    }
    for _ in 0..2 {
        world.unpublish(&volume.volume_id, &target).unwrap();
        world.restart();
    }
    for _ in 0..2 {
        world.unstage(&volume.volume_id, &staging).unwrap();
        world.restart();
    }
    let [below] = volumes(&class).try_into().unwrap();
    for round in 0..2 {
        assert_eq!(
            fs::read(below.join(format!("file-{round}"))).unwrap(),
            b"kept"
        );
    }
    for _ in 0..2 {
        delete(&world, &volume.volume_id).unwrap();
        world.restart();
    }
    assert_empty(&class);
}

// Calls that are cut off in their middle come again until they hear yes; each volume is there once, or gone.
#[test]
fn making_and_deleting_may_be_cut_off_anywhere() {
    need_mount!("making_and_deleting_may_be_cut_off_anywhere");
    let (mut world, class) = world();
    let mut cut = 0;
    for (round, milliseconds) in [0, 1, 2, 4, 8, 16].into_iter().enumerate() {
        let name = format!("pvc-cut-{round}");
        let (mut controller, wanted) = (world.controller(), request(&name));
        let call = world
            .runtime
            .spawn(async move { controller.create_volume(wanted).await.map(drop) });
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        world.kill();
        cut += u32::from(world.runtime.block_on(call).unwrap().is_err());
        world.start("all");
        let mut made = None;
        eventually("the volume is made", || {
            made = create(&world, &name).ok();
            made.is_some()
        });
        let id = made.unwrap().volume_id;
        let [below] = volumes(&class).try_into().unwrap();
        for number in 0..50 {
            fs::write(below.join(number.to_string()), "x").unwrap();
        }
        let mut controller = world.controller();
        let wanted = DeleteVolumeRequest {
            volume_id: id.clone(),
            ..DeleteVolumeRequest::default()
        };
        let call = world
            .runtime
            .spawn(async move { controller.delete_volume(wanted).await.map(drop) });
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        world.kill();
        cut += u32::from(world.runtime.block_on(call).unwrap().is_err());
        world.start("all");
        eventually("the volume is deleted", || delete(&world, &id).is_ok());
        assert_empty(&class);
    }
    assert!(cut > 0, "no call was cut off: the test has shown nothing");
}

// A volume that a person wrote shows a directory that is there, as it is; the driver neither makes nor removes
// it, and no path leads out of what it may serve.
#[test]
fn a_directory_that_is_there_is_used_as_it_is() {
    need_mount!("a_directory_that_is_there_is_used_as_it_is");
    let (world, _) = world();
    let home = world.shared().join("home/alice");
    fs::create_dir_all(&home).unwrap();
    fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(home.join("notes"), "hers").unwrap();
    let outside = world.node.scratch("outside");
    symlink(&outside, world.shared().join("home/link")).unwrap();
    let staging = world.staging("home");
    let stage = |directory: &str| {
        let volume = Volume {
            volume_id: "home-alice".to_owned(),
            volume_context: HashMap::from([("directory".to_owned(), directory.to_owned())]),
            ..Volume::default()
        };
        let mut stage = stage_request(&volume, &staging, Mode::MultiNodeMultiWriter);
        let mounted = stage.volume_capability.as_mut().unwrap();
        if let Some(AccessType::Mount(mount)) = &mut mounted.access_type {
            mount.volume_mount_group = "4321".to_owned();
        }
        stage
    };
    for (bad, code) in [
        ("home/link", Code::FailedPrecondition),
        ("home/none", Code::FailedPrecondition),
        ("home/../../outside", Code::InvalidArgument),
        (
            &format!("file://{}", outside.display()),
            Code::InvalidArgument,
        ),
        (
            &format!("file://{}", world.shared().display()),
            Code::InvalidArgument,
        ),
    ] {
        let refused = world.stage(&stage(bad)).unwrap_err();
        assert_eq!(refused.code(), code, "{bad}: {refused}");
        world.unstage("home-alice", &staging).unwrap();
    }
    let good = stage("home/alice");
    world.stage(&good).unwrap();
    let target = world.target("home");
    world.publish(&writer(&good, &target)).unwrap();
    assert_eq!(fs::read(target.join("notes")).unwrap(), b"hers");
    fs::write(target.join("more"), "hers too").unwrap();
    world.unpublish("home-alice", &target).unwrap();
    world.unstage("home-alice", &staging).unwrap();
    delete(&world, "home-alice").unwrap();
    assert_eq!(fs::read(home.join("more")).unwrap(), b"hers too");
    let after = fs::metadata(&home).unwrap();
    assert_eq!((after.mode() & 0o7777, after.gid()), (0o700, 0));
}

// A pod that runs as nobody in particular writes by its group, and what it makes belongs to the group, too.
#[test]
fn a_group_may_write_its_volume() {
    need_mount!("a_group_may_write_its_volume");
    let (world, _) = world();
    let volume = create(&world, "pvc-group-write").unwrap();
    let staging = world.staging("group-write");
    let mut stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    let mounted = stage.volume_capability.as_mut().unwrap();
    if let Some(AccessType::Mount(mount)) = &mut mounted.access_type {
        mount.volume_mount_group = "4321".to_owned();
    }
    world.stage(&stage).unwrap();
    let (reads, writes) = (world.target("reads"), world.target("writes"));
    // Its access mode says that it is read, whatever the pod says.
    world.publish(&writer(&stage, &reads)).unwrap();
    assert!(fs::write(reads.join("x"), "x").is_err());
    let mut publish = writer(&stage, &writes);
    publish.volume_capability = Some(capability(Mode::MultiNodeMultiWriter));
    world.publish(&publish).unwrap();
    let top = fs::metadata(&writes).unwrap();
    assert_eq!((top.gid(), top.mode() & 0o2070), (4321, 0o2070));
    fs::write(writes.join("made"), "x").unwrap();
    assert_eq!(fs::metadata(writes.join("made")).unwrap().gid(), 4321);
    for target in [&reads, &writes] {
        world.unpublish(&volume.volume_id, target).unwrap();
    }
    world.unstage(&volume.volume_id, &staging).unwrap();
}

// A kubelet asks for statistics every minute: a mount that hangs must cost it neither the answer of others nor
// a thread for each question.
#[test]
fn statistics_of_a_hung_mount_end() {
    need_mount!("statistics_of_a_hung_mount_end");
    let (world, _) = world();
    let volume = create(&world, "pvc-hung").unwrap();
    let staging = world.staging("hung");
    world
        .stage(&stage_request(&volume, &staging, Mode::SingleNodeWriter))
        .unwrap();
    let hung = world.node.pid("worker").unwrap();
    kill(Pid::from_raw(hung), Signal::SIGSTOP).unwrap();
    for _ in 0..2 {
        match stats(&world, &volume.volume_id, &staging) {
            Err(status) => assert_eq!(status.code(), Code::DeadlineExceeded, "{status}"),
            // The keeper was quicker: it replaces a worker that hangs.
            Ok(_) => assert_ne!(world.node.pid("worker"), Some(hung)),
        }
    }
    // It may be gone by now.
    let _ = kill(Pid::from_raw(hung), Signal::SIGCONT);
    eventually("statistics are answered again", || {
        stats(&world, &volume.volume_id, &staging).is_ok()
    });
    world.unstage(&volume.volume_id, &staging).unwrap();
}
