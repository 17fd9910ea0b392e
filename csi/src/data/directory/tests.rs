//! Paths below their bases, and volumes of a class from any state that a crash may leave.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::VolumeId;
use crate::spaces::SpaceName;

fn path(text: &str) -> DirectoryPath {
    text.parse().unwrap()
}

/// What a class asks for that has nothing but a directory.
fn plain() -> VolumeRequest {
    let attributes = BTreeMap::from([("directory".to_owned(), "class".to_owned())]);
    VolumeRequest::parse(&attributes).unwrap()
}

fn limited(bytes: u64) -> Wanted {
    Wanted {
        bytes: Some(bytes),
        tenant: None,
    }
}

fn name(id: &VolumeId) -> SpaceName {
    SpaceName::of_volume(id)
}

fn whole(at: &Path) -> DirectoryPath {
    path(&format!("file://{}", at.display()))
}

/// A base with the directory of a class in it.
fn world() -> (tempfile::TempDir, Bases, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    let class = base.join("class");
    fs::create_dir_all(&class).unwrap();
    let bases = Bases::new(&[base]).unwrap();
    (directory, bases, class)
}

// A path of a volume is written by others: what it reaches must lie below a base, and nowhere else.
#[test]
fn nothing_outside_of_the_bases_is_found() {
    let (directory, bases, class) = world();
    let found = bases.find(&path("class")).unwrap();
    assert_eq!(found.path(), class.canonicalize().unwrap());
    assert_eq!(bases.find(&whole(&class)).unwrap().path(), found.path());
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for link in [class.join("out"), class.parent().unwrap().join("out")] {
        symlink(&outside, &link).unwrap();
    }
    fs::write(class.join("file"), "x").unwrap();
    for (bad, wanted) in [
        (path("class/out"), "Link"),
        (path("out"), "Link"),
        (path("class/file"), "Link"),
        (path("class/none"), "Absent"),
        (whole(&outside), "Outside"),
        (whole(&class.join(".hidden")), "Outside"),
        (path("file:///etc"), "Outside"),
    ] {
        let refused = format!("{:?}", bases.find(&bad).unwrap_err());
        assert!(refused.starts_with(wanted), "{bad}: {refused}");
    }
    for bad in ["", "/", "relative", "/a/../b"] {
        assert!(
            Bases::new(&[PathBuf::from(bad)]).is_err(),
            "{bad:?} was accepted"
        );
    }
}

// With several bases a relative path would mean whichever came first; without one, the node's own files.
#[test]
fn a_relative_path_needs_exactly_one_base() {
    let several = Bases::new(&["/mnt/a".into(), "/mnt/a/deeper".into()]).unwrap();
    let refused = several.resolve(&path("home")).unwrap_err();
    assert!(matches!(refused, DirectoryError::Ambiguous(_)), "{refused}");
    let found = several.resolve(&path("file:///mnt/a/deeper/home")).unwrap();
    assert_eq!(found, Path::new("/mnt/a/deeper/home"));
    let none = Bases::default().resolve(&path("home")).unwrap_err();
    assert!(matches!(none, DirectoryError::Off(_)), "{none}");
}

// What the driver keeps beside volumes is no volume: the trash of one class holds the files of others.
#[test]
fn what_the_driver_keeps_for_itself_is_not_shown() {
    let (_directory, bases, class) = world();
    let id: VolumeId = "data-1".parse().unwrap();
    let own = ClassDirectory::open(&bases.find(&path("class")).unwrap()).unwrap();
    own.make(&name(&id), &limited(1 << 20), None).unwrap();
    let volume = volume_of_class(&class, &id);
    let shown = DirectoryVolume::at(&volume, &plain()).unwrap();
    assert!(shown.is_own());
    assert_eq!(
        bases.find_volume(&shown.path).unwrap().path(),
        volume.canonicalize().unwrap()
    );
    for bad in [
        "class/terrace-volumes",
        "class/terrace-volumes/making",
        "class/terrace-volumes/volumes",
    ] {
        let refused = bases.find_volume(&path(bad)).unwrap_err();
        assert!(
            matches!(refused, DirectoryError::Outside(_)),
            "{bad}: {refused}"
        );
    }
    let root = whole(class.parent().unwrap());
    assert!(matches!(
        bases.find_volume(&root),
        Err(DirectoryError::Outside(_))
    ));
    let theirs = DirectoryVolume::at(&class, &plain()).unwrap();
    assert!(!theirs.is_own());
    bases.find_volume(&theirs.path).unwrap();
}

// A driver is killed anywhere: from whatever is there, the next call makes the volume, whole and once.
#[test]
fn a_volume_is_made_from_any_state() {
    let (_directory, bases, class) = world();
    let id: VolumeId = "data-1".parse().unwrap();
    let own = ClassDirectory::open(&bases.find(&path("class")).unwrap()).unwrap();
    // Killed between its two steps.
    fs::create_dir(
        class
            .join("terrace-volumes/.terrace/making")
            .join(id.hash()),
    )
    .unwrap();
    for _ in 0..2 {
        own.make(&name(&id), &limited(1 << 20), None).unwrap();
        let volume = volume_of_class(&class, &id);
        assert_eq!(
            fs::metadata(&volume).unwrap().permissions().mode() & 0o7777,
            0o777
        );
        // What is in a volume survives a call that comes again.
        fs::write(volume.join("kept"), "x").unwrap();
    }
    let volume = volume_of_class(&class, &id);
    assert!(volume.join("kept").exists());
    let mode = fs::metadata(class.join("terrace-volumes"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o700, "everybody may enter");
}

// A removal that is cut off must go on, must not touch another volume, and must not follow a user's links.
#[test]
fn a_volume_is_removed_from_any_state() {
    let (directory, bases, class) = world();
    let own = ClassDirectory::open(&bases.find(&path("class")).unwrap()).unwrap();
    let [id, other] = ["data-1", "data-2"].map(|text| text.parse::<VolumeId>().unwrap());
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    for one in [&id, &other] {
        own.make(&name(one), &limited(1 << 20), None).unwrap();
        fs::create_dir(volume_of_class(&class, one).join("deeper")).unwrap();
        symlink(&outside, volume_of_class(&class, one).join("deeper/link")).unwrap();
    }
    for _ in 0..2 {
        own.discard(&name(&id)).unwrap();
        assert!(!volume_of_class(&class, &id).exists());
    }
    // The name may be wanted again before its files are gone.
    for _ in 0..2 {
        own.empty(&name(&id)).unwrap();
    }
    own.make(&name(&id), &limited(1 << 20), None).unwrap();
    assert_eq!(
        fs::read_dir(volume_of_class(&class, &id)).unwrap().count(),
        0
    );
    assert!(
        volume_of_class(&class, &other)
            .join("deeper/link")
            .is_symlink()
    );
    assert!(outside.join("kept").exists());
    assert_eq!(
        fs::read_dir(class.join("terrace-volumes/.terrace/trash"))
            .unwrap()
            .count(),
        0
    );
}
