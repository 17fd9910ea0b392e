//! What must not be possible: leaving the kubelet's directory, options and addresses from a volume, other
//! people's data, secrets in logs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use terrace_csi::wire::volume_capability::AccessType;
use terrace_csi::wire::volume_capability::access_mode::Mode;
use tonic::Code;

use crate::support::need_mount;
use crate::world::{World, assert_shows, publish_request, stage_request, text};

/// A secret that no output may show.
const CANARY: &str = "canary-5f1d";

// Paths and ids come from objects that tenants write: nothing outside the kubelet's directory is touched.
#[test]
fn nothing_outside_the_kubelets_directory_is_touched() {
    need_mount!("nothing_outside_the_kubelets_directory_is_touched");
    let world = World::new();
    let volume = world.create("pvc-paths", &[]).unwrap();
    let staging = world.staging("paths");
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    world.stage(&stage).unwrap();
    let outside = world.node.scratch("outside");
    fs::write(outside.join("sentinel"), b"here").unwrap();
    let link = world.kubelet().join("pods/link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let kubelet = text(&world.kubelet());
    for bad in [
        text(&outside.join("mount")),
        format!("{kubelet}/pods/../../outside/mount"),
        format!("{kubelet}/pods/link/mount"),
        text(&link),
        format!("{kubelet}/./pods/x"),
        "relative/path".to_owned(),
        "/".to_owned(),
        kubelet.clone(),
    ] {
        let refused = world.publish(&publish_request(&stage, &PathBuf::from(&bad)));
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument, "{bad}");
        let refused = world.unpublish(&volume.volume_id, &PathBuf::from(&bad));
        assert!(refused.is_err(), "{bad}");
    }
    // A link in the place of a target is not followed, and not removed.
    assert!(link.is_symlink());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    for bad in [
        "../x",
        "a/../b",
        "..\\",
        "%2e%2e",
        "a\0",
        "․․",
        "/etc",
        "A",
        &"x".repeat(4096),
    ] {
        let refused = world.unstage(bad, &staging).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}");
    }
    world.unstage(&volume.volume_id, &staging).unwrap();
}

// A mount option, a secret or an attribute is a way to the node's files or credentials unless it is known.
#[test]
fn options_and_addresses_of_volumes_are_refused() {
    need_mount!("options_and_addresses_of_volumes_are_refused");
    let world = World::new();
    let volume = world.create("pvc-options", &[]).unwrap();
    let staging = world.staging("options");
    let good = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    for bad in [
        "suid",
        "dev",
        "rw",
        "--config=/etc/x",
        "endpoint=http://169.254.169.254",
    ] {
        let mut stage = good.clone();
        let capability = stage.volume_capability.as_mut().unwrap();
        let Some(AccessType::Mount(mount)) = &mut capability.access_type else {
            panic!("not a mount");
        };
        mount.mount_flags = vec![bad.to_owned()];
        assert_eq!(
            world.stage(&stage).unwrap_err().code(),
            Code::InvalidArgument,
            "{bad}"
        );
    }
    for bad in ["AWS_ENDPOINT_URL", "TERRACE_CATALOG", "LD_PRELOAD"] {
        let mut stage = good.clone();
        stage
            .secrets
            .insert(bad.to_owned(), "http://169.254.169.254".to_owned());
        assert_eq!(
            world.stage(&stage).unwrap_err().code(),
            Code::InvalidArgument,
            "{bad}"
        );
    }
    let mut stage = good.clone();
    stage
        .volume_context
        .insert("catalog".to_owned(), "http://169.254.169.254".to_owned());
    assert_eq!(
        world.stage(&stage).unwrap_err().code(),
        Code::InvalidArgument
    );
    world.stage(&good).unwrap();
    let target = world.target("options");
    world.publish(&publish_request(&good, &target)).unwrap();
    let published = world
        .mounts()
        .into_iter()
        .find(|line| line.contains(&text(&target)));
    let published = published.unwrap();
    let options = published.split(' ').nth(5).unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(
            options.split(',').any(|found| found == option),
            "{published}"
        );
    }
    assert!(fs::write(target.join("x"), b"x").is_err());
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
}

// Who brings a token gets what that token may read, also when the node has the version already.
#[test]
fn a_volumes_own_token_decides() {
    need_mount!("a_volumes_own_token_decides");
    let world = World::new();
    let volume = world.create("pvc-token", &[]).unwrap();
    let (staging, target) = (world.staging("token"), world.target("token"));
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    world.stage(&stage).unwrap();
    world.publish(&publish_request(&stage, &target)).unwrap();
    assert_shows(&target);
    let other = world.create("pvc-token-2", &[]).unwrap();
    let elsewhere = world.staging("token-2");
    let mut foreign = stage_request(&other, &elsewhere, Mode::MultiNodeReaderOnly);
    foreign
        .secrets
        .insert("TERRACE_TOKEN".to_owned(), CANARY.to_owned());
    let refused = world.stage(&foreign).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(world.mounts().len(), 2, "{:?}", world.mounts());
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
}

// Logs are read by more people than secrets are meant for.
#[test]
fn no_log_shows_a_secret_and_nobody_else_may_connect() {
    need_mount!("no_log_shows_a_secret_and_nobody_else_may_connect");
    let world = World::new();
    let socket = fs::metadata(world.socket("all")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let volume = world.create("pvc-log", &[]).unwrap();
    let staging = world.staging("log");
    let mut stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    let tokens = "csi.storage.k8s.io/serviceAccount.tokens".to_owned();
    stage
        .volume_context
        .insert(tokens, format!("{{\"\":{{\"token\":\"{CANARY}\"}}}}"));
    stage
        .secrets
        .insert("AWS_SECRET_ACCESS_KEY".to_owned(), CANARY.to_owned());
    world.stage(&stage).unwrap();
    let target = world.target("log");
    let mut publish = publish_request(&stage, &target);
    publish
        .secrets
        .insert("AWS_SESSION_TOKEN".to_owned(), CANARY.to_owned());
    world.publish(&publish).unwrap();
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
    let log = fs::read_to_string(world.log("all")).unwrap();
    assert!(
        log.contains("NodePublishVolume") && log.contains("***"),
        "{log}"
    );
    assert!(!log.contains(CANARY), "{log}");
    let run = world.node.scratch("run");
    for entry in fs::read_dir(run).unwrap().flatten() {
        let worker = fs::read_to_string(entry.path().join("worker.log")).unwrap_or_default();
        let keeper = fs::read_to_string(entry.path().join("keeper.log")).unwrap_or_default();
        assert!(!worker.contains(CANARY) && !keeper.contains(CANARY));
    }
}

// A claim is shared by a namespace: which pods may read what it shows is said by their own accounts.
#[test]
fn a_pods_own_account_decides_where_pods_are_asked() {
    need_mount!("a_pods_own_account_decides_where_pods_are_asked");
    let world = World::with(&["all"], &["--pod-tokens", "terrace"]);
    let volume = world.create("pvc-pod-token", &[]).unwrap();
    let (staging, target) = (world.staging("pod-token"), world.target("pod-token"));
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    world.stage(&stage).unwrap();
    let good = fs::read_to_string(world.served.token_file()).unwrap();
    let mut publish = publish_request(&stage, &target);
    let refused = world.publish(&publish).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    for (audience, token, allowed) in [
        ("other", good.trim(), false),
        ("terrace", CANARY, false),
        ("terrace", good.trim(), true),
    ] {
        let tokens = format!("{{\"{audience}\":{{\"token\":\"{token}\"}}}}");
        let key = "csi.storage.k8s.io/serviceAccount.tokens".to_owned();
        publish.volume_context.insert(key, tokens);
        match world.publish(&publish) {
            Ok(()) => assert!(allowed, "{audience}"),
            Err(refused) => {
                assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
                assert!(!allowed && !target.exists(), "{audience}: {refused}");
            }
        }
    }
    assert_shows(&target);
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
    assert!(
        !fs::read_to_string(world.log("all"))
            .unwrap()
            .contains(CANARY)
    );
}

// A pod that names its own volume would choose what the driver's token reads.
#[test]
fn inline_volumes_are_off_unless_asked_for() {
    need_mount!("inline_volumes_are_off_unless_asked_for");
    let inline = |world: &World| {
        let target = world.target("inline");
        let volume = terrace_csi::wire::Volume {
            volume_id: format!("csi-{}", "0f".repeat(32)),
            ..Default::default()
        };
        let stage = stage_request(&volume, &PathBuf::new(), Mode::SingleNodeWriter);
        let mut publish = publish_request(&stage, &target);
        for (key, value) in [
            ("dataset", "ads.clicks@v1"),
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", "p"),
        ] {
            publish
                .volume_context
                .insert(key.to_owned(), value.to_owned());
        }
        (publish, target)
    };
    let world = World::new();
    let (publish, _) = inline(&world);
    let refused = world.publish(&publish).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    drop(world);
    let world = World::with(&["all"], &["--inline", "with-token"]);
    let (mut publish, target) = inline(&world);
    let refused = world.publish(&publish).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    publish
        .secrets
        .insert("TERRACE_TOKEN".to_owned(), CANARY.to_owned());
    let refused = world.publish(&publish).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // Nobody promises to clean up after a failure.
    assert_eq!(world.mounts(), Vec::<String>::new());
    let token = fs::read_to_string(world.served.token_file()).unwrap();
    publish.secrets.insert("TERRACE_TOKEN".to_owned(), token);
    world.publish(&publish).unwrap();
    assert_shows(&target);
    world.publish(&publish).unwrap();
    world.unpublish(&publish.volume_id, &target).unwrap();
    assert!(!target.exists());
    assert_eq!(world.mounts(), Vec::<String>::new());
}
