//! A limit stops its own writer, at its size, and nobody else.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statvfs::statvfs;
use terrace_csi::scratch::{ImageFormat, NewVolume, QuotaKind, Scratch, ScratchError};
use terrace_csi::{ContentSource, SnapshotRecord, VolumeId};

use crate::world::{MIB, World, asked, assert_empty};

/// Files that were made, so that none is made twice.
static FILES: AtomicU64 = AtomicU64::new(0);

/// Size of the volumes that are filled.
const SIZE: u64 = 48 * MIB;

/// Size of images of XFS, which has no smaller ones.
const XFS_IMAGE: u64 = 320 * MIB;

/// Writes until the file system refuses. Bytes that were taken, and the number of the error.
pub(crate) fn fill(directory: &Path, at_most: u64) -> (u64, Option<i32>) {
    let block = vec![7_u8; MIB as usize];
    let mut written = 0;
    loop {
        let name = format!("file-{}", FILES.fetch_add(1, Ordering::Relaxed));
        let wrote = File::create(directory.join(name)).and_then(|mut file| {
            file.write_all(&block)?;
            file.sync_all()
        });
        match wrote {
            Ok(()) => written += MIB,
            Err(error) => return (written, error.raw_os_error()),
        }
        if written >= at_most {
            return (written, None);
        }
    }
}

fn assert_full(found: (u64, Option<i32>), limit: u64) {
    let (written, error) = found;
    let full = [Some(libc::ENOSPC), Some(libc::EDQUOT)];
    assert!(full.contains(&error), "{error:?} after {written} bytes");
    assert!(
        written <= limit && written > limit / 2,
        "{written} bytes of {limit}"
    );
}

/// Whether this process has CAP_SYS_RESOURCE, which ext4 asks of who enlarges it.
fn may_resize_mounted() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() >> 24 & 1 == 1
}

/// The whole life of two neighbours on a file system whose limits are hard.
pub(crate) fn limits_hold(world: &World, kind: QuotaKind, df_shows_limit: bool) {
    let large = kind == QuotaKind::Image(ImageFormat::Xfs);
    hold(
        world,
        kind,
        df_shows_limit,
        if large { XFS_IMAGE } else { SIZE },
    );
}

fn hold(world: &World, kind: QuotaKind, df_shows_limit: bool, size: u64) {
    let asked_kind = matches!(kind, QuotaKind::Image(_)).then_some(kind);
    let scratch = world.open(asked_kind);
    assert_eq!(scratch.kind(), kind);
    let before = scratch.capacity().unwrap();
    let full = scratch.create(&asked("full", size)).unwrap();
    let neighbour = scratch.create(&asked("neighbour", size)).unwrap();
    assert_eq!(scratch.create(&asked("full", size)).unwrap(), full);
    let taken = before - scratch.capacity().unwrap();
    assert!(
        taken >= 2 * size - MIB,
        "two volumes took {taken} bytes of what can be promised"
    );

    let (at, beside) = (
        world.attach(&scratch, &full.id),
        world.attach(&scratch, &neighbour.id),
    );
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(at.path()).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o777);
    assert_full(fill(at.path(), 4 * size), size);
    assert_eq!(fill(beside.path(), 8 * MIB), (8 * MIB, None));
    nix::unistd::sync();
    let usage = scratch.usage(&full.id).unwrap();
    assert!(usage.bytes > size / 2 && usage.bytes <= size, "{usage:?}");
    assert!(
        usage.byte_limit > size / 2 && usage.byte_limit <= size,
        "{usage:?}"
    );
    if df_shows_limit {
        let df = statvfs(at.path()).unwrap();
        let shown = df.blocks() * df.fragment_size();
        assert!(shown <= size && shown > size / 2, "df shows {shown}");
    }

    let online = !matches!(kind, QuotaKind::Image(ImageFormat::Ext4)) || may_resize_mounted();
    if !online {
        println!("SKIP limits_hold (ext4 enlarged while mounted): no CAP_SYS_RESOURCE");
        at.unmount(|_| true).unwrap();
    }
    let grown = scratch.expand(&full.id, 2 * size).unwrap();
    let at = world.attach(&scratch, &full.id);
    assert_eq!(grown.size, 2 * size);
    assert_eq!(scratch.expand(&full.id, size).unwrap().size, 2 * size);
    let more = fill(at.path(), 16 * MIB);
    assert_eq!(more, (16 * MIB, None), "an enlarged volume takes no more");
    assert_full(fill(at.path(), 4 * size), size);

    let refused = scratch.delete(&full.id);
    assert!(
        matches!(refused, Err(ScratchError::InUse { .. })),
        "{refused:?}"
    );
    for (target, record) in [(at, full), (beside, neighbour)] {
        assert_eq!(scratch.mounts(&record.id).unwrap().len(), 1);
        target.unmount(|_| true).unwrap();
        target.remove().unwrap();
        scratch.delete(&record.id).unwrap();
        scratch.delete(&record.id).unwrap();
        assert!(matches!(
            scratch.volume(&record.id),
            Err(ScratchError::NotFound(_))
        ));
    }
    let swept = scratch.sweep().unwrap();
    assert!(
        swept.removed == 2 && swept.failed.is_empty() && swept.unknown.is_empty(),
        "{swept:?}"
    );
    assert_empty(&scratch);
}

/// Removes volumes, then the snapshot, which outlives what it came from.
fn nothing_is_left(scratch: &Scratch, volumes: [&VolumeId; 4], snapshot: &SnapshotRecord) {
    for id in volumes {
        scratch.delete(id).unwrap();
    }
    assert_eq!(scratch.snapshots().unwrap(), std::slice::from_ref(snapshot));
    scratch.delete_snapshot(&snapshot.id).unwrap();
    scratch.delete_snapshot(&snapshot.id).unwrap();
    let swept = scratch.sweep().unwrap();
    assert!(swept.failed.is_empty(), "{swept:?}");
    assert_empty(scratch);
}

/// Snapshots and copies keep what they had, whatever happens to what they came from.
pub(crate) fn copies_are_apart(world: &World, kind: Option<QuotaKind>) {
    let scratch = world.open(kind);
    assert!(scratch.copies());
    let volume = scratch.create(&asked("origin", SIZE)).unwrap();
    let at = world.attach(&scratch, &volume.id);
    fs::create_dir(at.path().join("d")).unwrap();
    fs::write(at.path().join("d/one"), "first").unwrap();
    fs::hard_link(at.path().join("d/one"), at.path().join("two")).unwrap();
    std::os::unix::fs::symlink("d/one", at.path().join("link")).unwrap();
    nix::unistd::sync();
    let none = Default::default();
    let snapshot = scratch.create_snapshot("s", &volume.id, &none, 1).unwrap();
    assert_eq!(
        scratch.create_snapshot("s", &volume.id, &none, 2).unwrap(),
        snapshot
    );
    let other = scratch.create(&asked("other", SIZE)).unwrap();
    let refused = scratch.create_snapshot("s", &other.id, &none, 1);
    assert!(
        matches!(refused, Err(ScratchError::Exists { .. })),
        "{refused:?}"
    );

    let copy = |name: &str, source: ContentSource, size: u64| {
        let source = Some(source);
        scratch.create(&NewVolume {
            source,
            ..asked(name, size)
        })
    };
    let clone = copy("clone", ContentSource::Volume(volume.id.clone()), SIZE).unwrap();
    fs::write(at.path().join("d/one"), "second").unwrap();
    let restored = copy(
        "restored",
        ContentSource::Snapshot(snapshot.id.clone()),
        2 * SIZE,
    )
    .unwrap();
    let small = copy(
        "small",
        ContentSource::Snapshot(snapshot.id.clone()),
        SIZE / 2,
    );
    assert!(matches!(small, Err(ScratchError::Size { .. })), "{small:?}");
    let nobody: VolumeId = "nobody".parse().unwrap();
    let absent = copy("absent", ContentSource::Volume(nobody), SIZE);
    assert!(
        matches!(absent, Err(ScratchError::NotFound(_))),
        "{absent:?}"
    );

    for record in [&clone, &restored] {
        let target = world.attach(&scratch, &record.id);
        for name in ["d/one", "two", "link"] {
            assert_eq!(
                fs::read_to_string(target.path().join(name)).unwrap(),
                "first",
                "{name}"
            );
        }
        fs::write(target.path().join("two"), "mine").unwrap();
        assert_eq!(
            fs::read_to_string(target.path().join("d/one")).unwrap(),
            "mine"
        );
        target.unmount(|_| true).unwrap();
    }
    assert_eq!(fs::read_to_string(at.path().join("two")).unwrap(), "second");
    at.unmount(|_| true).unwrap();
    let volumes = [&volume.id, &clone.id, &restored.id, &other.id];
    nothing_is_left(&scratch, volumes, &snapshot);
}

// An image that is larger than it says, or that its writer can leave, is no limit.
#[test]
fn an_image_of_ext4_limits_its_volume() {
    let Some(world) = World::new("an_image_of_ext4_limits_its_volume", "ext4", 512 * MIB) else {
        return;
    };
    limits_hold(&world, QuotaKind::Image(ImageFormat::Ext4), true);
    let scratch = world.open(Some(QuotaKind::Image(ImageFormat::Ext4)));
    let refused = scratch.create(&asked("tiny", MIB));
    assert!(
        matches!(refused, Err(ScratchError::Size { .. })),
        "{refused:?}"
    );
    assert_empty(&scratch);
}

// An image of XFS is enlarged while it is mounted.
#[test]
fn an_image_of_xfs_limits_its_volume() {
    let Some(world) = World::new("an_image_of_xfs_limits_its_volume", "ext4", 1280 * MIB) else {
        return;
    };
    limits_hold(&world, QuotaKind::Image(ImageFormat::Xfs), true);
}

// A quota group that is not limited lets one pod fill the disk of all.
#[test]
fn a_quota_group_of_btrfs_limits_its_volume() {
    let Some(world) = World::new(
        "a_quota_group_of_btrfs_limits_its_volume",
        "btrfs",
        1024 * MIB,
    ) else {
        return;
    };
    limits_hold(&world, QuotaKind::BtrfsQgroup, false);
    copies_are_apart(&world, None);
}

// Blocks that two volumes share must come apart at the first write to either.
#[test]
fn copies_by_reference_are_apart() {
    let Some(world) = World::new("copies_by_reference_are_apart", "xfs", 512 * MIB) else {
        return;
    };
    copies_are_apart(&world, Some(QuotaKind::Accounting));
}
