//! Sizes of directory volumes: limits that hold while pods write, that grow under them, and never shrink.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use terrace_csi::wire::volume_capability::access_mode::Mode;
use terrace_csi::wire::volume_usage::Unit;
use terrace_csi::wire::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerGetVolumeRequest, ListVolumesRequest,
    NodeExpandVolumeRequest, NodeStageVolumeRequest, Volume,
};
use tonic::{Code, Status};

use crate::directories::{assert_empty, delete, request, stats, volumes, world, writer};
use crate::support::need_mount;
use crate::world::{World, capability, eventually, publish_request, stage_request, text};

const MIB: i64 = 1 << 20;

fn range(required_bytes: i64, limit_bytes: i64) -> CapacityRange {
    CapacityRange {
        required_bytes,
        limit_bytes,
    }
}

fn create(world: &World, name: &str, bytes: i64) -> Result<Volume, Status> {
    let mut wanted = request(name);
    wanted.capacity_range = Some(range(bytes, 0));
    let mut controller = world.controller();
    let made = world.runtime.block_on(controller.create_volume(wanted))?;
    Ok(made.into_inner().volume.unwrap())
}

fn grow_request(volume: &str, size: CapacityRange) -> ControllerExpandVolumeRequest {
    ControllerExpandVolumeRequest {
        volume_id: volume.to_owned(),
        capacity_range: Some(size),
        volume_capability: Some(capability(Mode::MultiNodeMultiWriter)),
        ..ControllerExpandVolumeRequest::default()
    }
}

/// Asks the controller for another size; the one that there is then.
fn grow(world: &World, volume: &str, size: CapacityRange) -> Result<i64, Status> {
    let mut controller = world.controller();
    let asked = controller.controller_expand_volume(grow_request(volume, size));
    let grown = world.runtime.block_on(asked)?.into_inner();
    assert!(!grown.node_expansion_required, "the daemon follows");
    Ok(grown.capacity_bytes)
}

/// Asks the node.
fn grow_here(world: &World, volume: &str, at: &Path, bytes: i64) -> Result<i64, Status> {
    let request = NodeExpandVolumeRequest {
        volume_id: volume.to_owned(),
        volume_path: text(at),
        capacity_range: Some(range(bytes, 0)),
        ..NodeExpandVolumeRequest::default()
    };
    let mut node = world.client();
    let grown = world.runtime.block_on(node.node_expand_volume(request))?;
    Ok(grown.into_inner().capacity_bytes)
}

/// The size of a volume in the list and by itself, which must be the same.
fn listed(world: &World, volume: &str) -> i64 {
    let mut controller = world.controller();
    let all = controller.list_volumes(ListVolumesRequest::default());
    let all = world.runtime.block_on(all).unwrap().into_inner().entries;
    let found = all.into_iter().filter_map(|entry| entry.volume);
    let found = found.filter(|found| found.volume_id == volume);
    let [found] = found.collect::<Vec<_>>().try_into().unwrap();
    let request = ControllerGetVolumeRequest {
        volume_id: volume.to_owned(),
    };
    let one = world
        .runtime
        .block_on(controller.controller_get_volume(request));
    assert_eq!(one.unwrap().into_inner().volume.unwrap(), found);
    found.capacity_bytes
}

/// Bytes of the whole volume, as statistics have them.
fn total(world: &World, volume: &str, at: &Path) -> i64 {
    let usage = stats(world, volume, at).unwrap().usage;
    let bytes = usage.iter().find(|one| one.unit() == Unit::Bytes);
    bytes.unwrap().total
}

/// A volume of so many bytes, staged and published to one writer.
struct Used {
    volume: String,
    stage: NodeStageVolumeRequest,
    staging: PathBuf,
    target: PathBuf,
}

impl Used {
    fn new(world: &World, name: &str, bytes: i64) -> Self {
        let volume = create(world, name, bytes).unwrap();
        let (staging, target) = (world.staging(name), world.target(name));
        let stage = stage_request(&volume, &staging, Mode::MultiNodeMultiWriter);
        world.stage(&stage).unwrap();
        world.publish(&writer(&stage, &target)).unwrap();
        Self {
            volume: volume.volume_id,
            stage,
            staging,
            target,
        }
    }

    fn end(&self, world: &World) {
        world.unpublish(&self.volume, &self.target).unwrap();
        world.unstage(&self.volume, &self.staging).unwrap();
        delete(world, &self.volume).unwrap();
    }
}

/// Writes so many MiB into a new file; how many bytes went in, and why no more.
fn fill(at: &Path, mib: i64) -> (i64, Option<ErrorKind>) {
    let mut file = File::create(at).unwrap();
    let block = vec![7; MIB as usize];
    for done in 0..mib {
        if let Err(error) = file.write_all(&block) {
            let length = fs::metadata(at).unwrap().len();
            assert!(length >= done as u64 * MIB as u64);
            return (length as i64, Some(error.kind()));
        }
    }
    (mib * MIB, None)
}

// A claim of 4 MiB that takes the disk of everybody, or one that cannot grow under its pod, is no claim.
#[test]
fn a_size_is_a_limit_that_grows_under_its_writers() {
    need_mount!("a_size_is_a_limit_that_grows_under_its_writers");
    let (world, class) = world();
    let used = Used::new(&world, "pvc-limit", 4 * MIB);
    let neighbour = Used::new(&world, "pvc-neighbour", 64 * MIB);
    assert_eq!(listed(&world, &used.volume), 4 * MIB);
    assert_eq!(total(&world, &used.volume, &used.target), 4 * MIB);
    let (written, why) = fill(&used.target.join("first"), 8);
    assert_eq!((written, why), (4 * MIB, Some(ErrorKind::QuotaExceeded)));
    // Others notice nothing, and a reader still reads.
    assert_eq!(fill(&neighbour.target.join("first"), 8).1, None);
    let reader = world.target("reader");
    world
        .publish(&publish_request(&used.stage, &reader))
        .unwrap();
    assert_eq!(fs::metadata(reader.join("first")).unwrap().len(), 4 << 20);
    // Every call twice.
    for _ in 0..2 {
        assert_eq!(
            grow(&world, &used.volume, range(16 * MIB, 0)).unwrap(),
            16 * MIB
        );
        assert_eq!(listed(&world, &used.volume), 16 * MIB);
    }
    eventually("statistics show the new size", || {
        total(&world, &used.volume, &used.target) == 16 * MIB
    });
    assert_eq!(fill(&used.target.join("second"), 8), (8 * MIB, None));
    let (written, why) = fill(&used.target.join("third"), 8);
    assert_eq!((written, why), (4 * MIB, Some(ErrorKind::QuotaExceeded)));
    world.unpublish(&used.volume, &reader).unwrap();
    used.end(&world);
    neighbour.end(&world);
    assert_empty(&class);
}

// A volume that shrinks under its pod loses what was written into it.
#[test]
fn no_volume_shrinks() {
    need_mount!("no_volume_shrinks");
    let (world, class) = world();
    let used = Used::new(&world, "pvc-shrink", 16 * MIB);
    // It has what was asked for already.
    for size in [range(4 * MIB, 0), range(16 * MIB, 0), range(0, 32 * MIB)] {
        assert_eq!(grow(&world, &used.volume, size).unwrap(), 16 * MIB);
    }
    let at = &used.target;
    assert_eq!(
        grow_here(&world, &used.volume, at, 4 * MIB).unwrap(),
        4 * MIB
    );
    assert_eq!(total(&world, &used.volume, at), 16 * MIB);
    for (volume, size, code) in [
        (
            used.volume.as_str(),
            range(4 * MIB, 8 * MIB),
            Code::OutOfRange,
        ),
        (&used.volume, range(8 * MIB, 4 * MIB), Code::OutOfRange),
        (&used.volume, range(-1, 0), Code::OutOfRange),
        ("data-none", range(MIB, 0), Code::NotFound),
        ("../x", range(MIB, 0), Code::NotFound),
        ("", range(MIB, 0), Code::InvalidArgument),
    ] {
        let refused = grow(&world, volume, size).unwrap_err();
        assert_eq!(refused.code(), code, "{volume:?} {size:?}: {refused}");
        assert!(!refused.message().contains('\n'), "{refused}");
    }
    for (volume, at, code) in [
        ("data-none", used.target.as_path(), Code::NotFound),
        (&used.volume, Path::new("/some/path"), Code::NotFound),
        (&used.volume, Path::new(""), Code::InvalidArgument),
        ("", &used.target, Code::InvalidArgument),
    ] {
        let refused = grow_here(&world, volume, at, MIB).unwrap_err();
        assert_eq!(refused.code(), code, "{volume:?} {at:?}: {refused}");
    }
    // The name stands for the volume that has grown, too.
    assert_eq!(
        grow(&world, &used.volume, range(32 * MIB, 0)).unwrap(),
        32 * MIB
    );
    let again = create(&world, "pvc-shrink", 16 * MIB).unwrap();
    assert_eq!(again.capacity_bytes, 32 * MIB);
    used.end(&world);
    assert_empty(&class);
}

// A version has the size that it has: its claim may grow, and nothing else happens.
#[test]
fn the_claim_of_a_version_may_grow() {
    need_mount!("the_claim_of_a_version_may_grow");
    let world = World::new();
    let volume = world.create("pvc-version", &[]).unwrap();
    let size = range(5 * MIB, 0);
    assert_eq!(grow(&world, &volume.volume_id, size).unwrap(), 5 * MIB);
    assert_eq!(listed(&world, &volume.volume_id), 5 * MIB);
    let staging = world.staging("version");
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    world.stage(&stage).unwrap();
    let here = grow_here(&world, &volume.volume_id, &staging, 5 * MIB);
    assert_eq!(here.unwrap(), 5 * MIB);
    world.unstage(&volume.volume_id, &staging).unwrap();
}

// A driver that dies while a volume grows must leave a size that is told and holds, whichever of the two it is.
#[test]
fn growing_may_be_cut_off_anywhere() {
    need_mount!("growing_may_be_cut_off_anywhere");
    let (mut world, class) = world();
    let used = Used::new(&world, "pvc-cut", 4 * MIB);
    let (mut size, mut cut) = (4 * MIB, 0);
    for milliseconds in [0, 1, 2, 4, 8, 16] {
        let before = size;
        size += 4 * MIB;
        let mut controller = world.controller();
        let wanted = grow_request(&used.volume, range(size, 0));
        let call = world
            .runtime
            .spawn(async move { controller.controller_expand_volume(wanted).await });
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        world.kill();
        let answered = world.runtime.block_on(call).unwrap();
        cut += u32::from(answered.is_err());
        world.start("all");
        let told = listed(&world, &used.volume);
        let expected: &[i64] = match answered {
            Ok(_) => &[size],
            Err(_) => &[before, size],
        };
        assert!(expected.contains(&told), "{told} of {expected:?}");
        assert!(total(&world, &used.volume, &used.target) >= before);
        eventually("the volume has grown", || {
            grow(&world, &used.volume, range(size, 0)).is_ok_and(|told| told == size)
        });
        assert_eq!(listed(&world, &used.volume), size);
        eventually("the limit is that size", || {
            total(&world, &used.volume, &used.target) == size
        });
    }
    assert!(cut > 0, "no call was cut off: the test has shown nothing");
    let (written, why) = fill(&used.target.join("all"), 64);
    assert_eq!((written, why), (size, Some(ErrorKind::QuotaExceeded)));
    used.end(&world);
    assert_empty(&class);
}

// Volumes of a version without limits have no records beside them: they go on, and are removed like others.
#[test]
fn a_volume_without_a_record_is_shown_and_removed() {
    need_mount!("a_volume_without_a_record_is_shown_and_removed");
    let (world, class) = world();
    let volume = create(&world, "pvc-old", 4 * MIB).unwrap();
    let [below] = volumes(&class).try_into().unwrap();
    for record in fs::read_dir(class.join("terrace-volumes/.terrace/records")).unwrap() {
        let record = record.unwrap().path();
        if record.extension().is_some_and(|end| end == "space") {
            fs::remove_file(record).unwrap();
        }
    }
    let (staging, target) = (world.staging("old"), world.target("old"));
    let stage = stage_request(&volume, &staging, Mode::MultiNodeMultiWriter);
    world.stage(&stage).unwrap();
    world.publish(&writer(&stage, &target)).unwrap();
    assert_eq!(fill(&target.join("more"), 8), (8 * MIB, None));
    assert!(below.join("more").exists());
    let refused = grow(&world, &volume.volume_id, range(16 * MIB, 0)).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
    delete(&world, &volume.volume_id).unwrap();
    assert_empty(&class);
}

// Where volumes cannot have limits a claim must say so at once, and not its pods later.
#[test]
fn a_directory_that_cannot_have_volumes_says_so() {
    need_mount!("a_directory_that_cannot_have_volumes_says_so");
    let (world, class) = world();
    // Somebody else's records, which are not to be overwritten.
    fs::create_dir_all(class.join("terrace-volumes/.terrace")).unwrap();
    let marker = class.join("terrace-volumes/.terrace/terrace-spaces");
    fs::write(&marker, "terrace-spaces 99\n").unwrap();
    let refused = create(&world, "pvc-refused", 4 * MIB).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let why = refused.message();
    assert!(
        why.contains("another version") && !why.contains("/proc/") && !why.contains('\n'),
        "{why}"
    );
    assert_eq!(fs::read_to_string(&marker).unwrap(), "terrace-spaces 99\n");
}
