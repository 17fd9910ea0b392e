//! How durable directory volumes are, where what is not in the directory yet waits, and whom nodes charge.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use terrace_csi::wire::volume_capability::access_mode::Mode;
use terrace_csi::wire::{CapacityRange, NodeStageVolumeRequest, Volume};
use tonic::Code;

use crate::directories::{CLASS, assert_empty, delete, request, volumes, world, writer};
use crate::support::data::noise;
use crate::support::need_mount;
use crate::world::{TENANT, World, eventually, publish_request, stage_request};

/// A wish for a volume that a person wrote.
fn wish(world: &World, name: &str, attributes: &[(&str, &str)]) -> NodeStageVolumeRequest {
    let volume = Volume {
        volume_id: name.to_owned(),
        volume_context: attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..Volume::default()
    };
    stage_request(&volume, &world.staging(name), Mode::MultiNodeMultiWriter)
}

/// An extended attribute as text.
fn attribute(of: &Path, name: &str) -> String {
    let mut value = [0_u8; 64];
    let path = std::ffi::CString::new(of.to_str().unwrap()).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: both names end with a zero, and the kernel writes at most as many bytes as there are.
    let length = unsafe {
        nix::libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    let length = nix::errno::Errno::result(length).unwrap() as usize;
    String::from_utf8(value[..length].to_vec()).unwrap()
}

/// A small file system of memory, as the shared one; unmounted when dropped.
struct Shared<'a>(&'a Path);

impl<'a> Shared<'a> {
    fn of(at: &'a Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        Self::mount(at, size, MsFlags::empty());
        Self(at)
    }

    fn grow(&self, size: &str) {
        Self::mount(self.0, size, MsFlags::MS_REMOUNT);
    }

    fn mount(at: &Path, size: &str, flags: MsFlags) {
        let data = format!("size={size}");
        mount(
            Some("shared"),
            at,
            Some("tmpfs"),
            flags,
            Some(data.as_str()),
        )
        .unwrap();
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).ok();
    }
}

// A checkpoint that was acknowledged at the level local and is not in the directory when its pod goes must be told,
// survive, and get there.
#[test]
fn what_is_only_on_the_node_is_told_and_goes_up_later() {
    need_mount!("what_is_only_on_the_node_is_told_and_goes_up_later");
    let spool = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = ["--spool", spool.path().to_str().unwrap()];
    let options = [&options[..], &["--spool-size", "64MiB"]].concat();
    let world = World::with(&["all"], &options);
    let home = world.shared().join("team");
    // Too small for what is written: nothing can go up.
    let shared = Shared::of(&home, "1m");
    let attributes = [
        ("directory", "team"),
        ("durability", "ckpt/**:fsync=local;fsync=shared"),
    ];
    let stage = wish(&world, "team-ckpt", &attributes);
    let target = world.target("team");
    world.stage(&stage).unwrap();
    world.publish(&writer(&stage, &target)).unwrap();
    fs::create_dir(target.join("ckpt")).unwrap();
    let (bytes, small) = (noise(3, 8 << 20), noise(4, 1000));
    let through = target.join("notes");
    let mut file = File::create(&through).unwrap();
    file.write_all(&small).unwrap();
    file.sync_all().unwrap();
    assert_eq!(attribute(&through, "user.terrace.durability"), "shared");
    drop(file);
    assert_eq!(fs::read(home.join("notes")).unwrap(), small);
    let staged = target.join("ckpt/step-1");
    let mut file = File::create(&staged).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    assert_eq!(attribute(&staged, "user.terrace.durability"), "local");
    drop(file);
    // It waits where the driver says.
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 1);
    world.unpublish("team-ckpt", &target).unwrap();
    let staging = Path::new(&stage.staging_target_path);
    world.unstage("team-ckpt", staging).unwrap();
    let log = fs::read_to_string(world.log("all")).unwrap();
    let told = log
        .lines()
        .find(|line| line.contains("not in the directory yet"));
    let told = told.unwrap_or_else(|| panic!("nothing was told: {log}"));
    assert!(told.contains("8388608"), "{told}");
    shared.grow("64m");
    world.stage(&stage).unwrap();
    world.publish(&writer(&stage, &target)).unwrap();
    assert!(fs::read(&staged).unwrap() == bytes, "other bytes");
    eventually("it is in the directory", || {
        fs::read(home.join("ckpt/step-1")).is_ok_and(|found| found == bytes)
    });
    world.unpublish("team-ckpt", &target).unwrap();
    world.unstage("team-ckpt", staging).unwrap();
}

// A claim has a size, always: without this the level local would be for nobody who has one.
#[test]
fn a_claim_is_staged_within_its_size() {
    need_mount!("a_claim_is_staged_within_its_size");
    let spool = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let world = World::with(&["all"], &["--spool", spool.path().to_str().unwrap()]);
    let class = world.shared().join(CLASS);
    fs::create_dir(&class).unwrap();
    let mut wanted = request("pvc-staged");
    let local = ("durability".to_owned(), "local".to_owned());
    wanted.parameters.extend([local]);
    wanted.capacity_range = Some(CapacityRange {
        required_bytes: 4 << 20,
        limit_bytes: 0,
    });
    let mut controller = world.controller();
    let made = world.runtime.block_on(controller.create_volume(wanted));
    let volume = made.unwrap().into_inner().volume.unwrap();
    let (staging, target) = (world.staging("staged"), world.target("staged"));
    let stage = stage_request(&volume, &staging, Mode::MultiNodeMultiWriter);
    world.stage(&stage).unwrap();
    world.publish(&writer(&stage, &target)).unwrap();
    let (shown, bytes) = (target.join("step-1"), noise(5, 4 << 20));
    let mut file = File::create(&shown).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    assert_eq!(attribute(&shown, "user.terrace.durability"), "local");
    let [below] = volumes(&class).try_into().unwrap();
    assert_eq!(fs::metadata(below.join("step-1")).unwrap().len(), 0);
    let refused = file.write(b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::QuotaExceeded);
    drop(file);
    eventually("it is in the directory", || {
        fs::read(below.join("step-1")).is_ok_and(|found| found == bytes)
    });
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
    delete(&world, &volume.volume_id).unwrap();
    assert_empty(&class);
}

// What a class cannot have must be said when a claim is made, in a line that a person can act on.
#[test]
fn attributes_that_cannot_be_kept_are_refused_when_a_volume_is_made() {
    need_mount!("attributes_that_cannot_be_kept_are_refused_when_a_volume_is_made");
    let (world, _) = world();
    for (key, value, says) in [
        ("durability", "cold", "cold store"),
        ("durability", "forever", "local, shared"),
        ("durability", "fsync=accepted", "fsync=accepted"),
        ("durability", "a[:fsync=local", "a["),
        ("durability", "write=local", "write=local"),
        ("tenant", "Vision", "tenant"),
        ("tenant", "../x", "tenant"),
    ] {
        let mut wanted = request("pvc-refused");
        wanted.parameters.insert(key.to_owned(), value.to_owned());
        let mut controller = world.controller();
        let refused = world.runtime.block_on(controller.create_volume(wanted));
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{value}: {refused}");
        let why = refused.message();
        assert!(why.contains(says) && !why.contains('\n'), "{value}: {why}");
    }
    // Those that a person wrote are judged when they are staged.
    for value in ["a[:fsync=local", "cold"] {
        let attributes = [("directory", "home"), ("durability", value)];
        fs::create_dir_all(world.shared().join("home")).unwrap();
        let refused = world.stage(&wish(&world, "home", &attributes)).unwrap_err();
        let codes = [Code::InvalidArgument, Code::FailedPrecondition];
        assert!(codes.contains(&refused.code()), "{value}: {refused}");
        let staging = world.staging("home");
        world.unstage("home", &staging).unwrap();
    }
}

// Who is charged is said by the class, and by nobody who only has a pod; a name that a node does not know is
// refused instead of being nobody.
#[test]
fn a_tenant_is_charged_and_no_pod_chooses_it() {
    need_mount!("a_tenant_is_charged_and_no_pod_chooses_it");
    let world = World::with(&["all"], &["--inline", "any"]);
    fs::create_dir(world.shared().join("checkpoints")).unwrap();
    for (name, tenant, known) in [
        ("pvc-charged", TENANT, true),
        ("pvc-unknown", "nobody", false),
    ] {
        for parameters in [("directory", "checkpoints"), ("dataset", "ads.clicks")] {
            let mut wanted = request(&format!("{name}-{}", parameters.0));
            wanted.parameters = [parameters, ("tenant", tenant)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
            let mut controller = world.controller();
            let made = world.runtime.block_on(controller.create_volume(wanted));
            let volume = made.unwrap().into_inner().volume.unwrap();
            assert_eq!(volume.volume_context["tenant"], tenant);
            let staging = world.staging(&format!("{name}-{}", parameters.0));
            let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
            let staged = world.stage(&stage);
            match staged {
                Ok(()) => assert!(known, "{tenant} was staged"),
                Err(refused) => assert!(
                    !known && refused.message().contains("tenant nobody"),
                    "{tenant}: {refused}"
                ),
            }
            world.unstage(&volume.volume_id, &staging).unwrap();
        }
    }
    let volume = Volume {
        volume_id: format!("csi-{}", "0f".repeat(32)),
        volume_context: HashMap::from([
            ("dataset".to_owned(), "ads.clicks".to_owned()),
            ("tenant".to_owned(), TENANT.to_owned()),
            ("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned()),
        ]),
        ..Volume::default()
    };
    let stage = stage_request(&volume, Path::new(""), Mode::MultiNodeReaderOnly);
    let target = world.target("inline");
    let refused = world
        .publish(&publish_request(&stage, &target))
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("tenant"), "{refused}");
}
