//! What a kubelet does with a volume, in its order, and what pods see meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt;

use terrace_csi::wire::volume_capability::AccessType;
use terrace_csi::wire::volume_capability::access_mode::Mode;
use terrace_csi::wire::{
    GetPluginInfoRequest, NodeGetInfoRequest, NodeGetVolumeStatsRequest, ProbeRequest,
    identity_client::IdentityClient,
};
use tonic::Code;

use crate::support::data::noise;
use crate::support::need_mount;
use crate::world::{
    FILES, World, assert_shows, create_request, eventually, publish_request, stage_request, text,
};

// Two pods of one job share a dataset, and the worker dies under them: they must not notice.
#[test]
fn two_pods_share_a_dataset_over_the_death_of_the_worker() {
    need_mount!("two_pods_share_a_dataset_over_the_death_of_the_worker");
    let world = World::new();
    register(&world);
    let volume = world.create("pvc-life", &[]).unwrap();
    assert_eq!(volume.volume_context["version"], "ads.clicks@v1");
    let staging = world.staging("life");
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    world.stage(&stage).unwrap();
    let targets = ["one", "two"].map(|pod| world.target(pod));
    for target in &targets {
        world.publish(&publish_request(&stage, target)).unwrap();
        assert_shows(target);
        stats(&world, &volume.volume_id, &text(target));
    }
    // One file system: the page cache is shared.
    let device = |path: &std::path::Path| fs::metadata(path).unwrap().dev();
    assert_eq!(device(&targets[0]), device(&targets[1]));
    let mut open = fs::File::open(targets[0].join("c.bin")).unwrap();
    let killed = world.node.pid("worker").unwrap();
    world.node.kill_worker();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut open, &mut bytes).unwrap();
    assert_eq!(bytes.len(), FILES[2].1);
    for target in &targets {
        assert_shows(target);
    }
    eventually("another worker serves", || {
        world.node.pid("worker").is_some_and(|pid| pid != killed)
    });
    drop(open);
    world.unpublish(&volume.volume_id, &targets[0]).unwrap();
    assert!(!targets[0].exists());
    assert_shows(&targets[1]);
    world.unpublish(&volume.volume_id, &targets[1]).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
    assert_eq!(world.mounts(), Vec::<String>::new());
}

/// What node-driver-registrar and kubelet ask first.
fn register(world: &World) {
    let mut identity = IdentityClient::new(world.channel());
    world.runtime.block_on(async {
        let info = identity.get_plugin_info(GetPluginInfoRequest {}).await;
        assert_eq!(info.unwrap().into_inner().name, "data.terrace.io");
        let probe = identity.probe(ProbeRequest {}).await.unwrap();
        assert_eq!(probe.into_inner().ready, Some(true));
    });
    let mut client = world.client();
    let info = world
        .runtime
        .block_on(client.node_get_info(NodeGetInfoRequest {}));
    assert_eq!(info.unwrap().into_inner().node_id, "node-1");
}

fn stats(world: &World, volume: &str, path: &str) {
    let mut client = world.client();
    let request = |path: &str| NodeGetVolumeStatsRequest {
        volume_id: volume.to_owned(),
        volume_path: path.to_owned(),
        staging_target_path: String::new(),
    };
    let found = client.node_get_volume_stats(request(path));
    let found = world.runtime.block_on(found).unwrap().into_inner();
    let bytes: usize = FILES.iter().map(|(_, length)| length).sum();
    let usage: Vec<(i64, i64)> = found.usage.iter().map(|u| (u.total, u.used)).collect();
    let (bytes, files) = (bytes as i64, FILES.len() as i64);
    assert_eq!(usage, [(bytes, bytes), (files, files)]);
    let elsewhere = world
        .runtime
        .block_on(world.client().node_get_volume_stats(request("some/path")));
    assert_eq!(elsewhere.unwrap_err().code(), Code::NotFound);
}

// All pods of a job, and a volume that is asked for again, see the version of the first moment.
#[test]
fn a_volume_keeps_its_version() {
    need_mount!("a_volume_keeps_its_version");
    let mut world = World::new();
    let first = world.create("pvc-fixed", &[]).unwrap();
    // The dataset moves on.
    let table = world.served.scratch("lake").join("ads.db/clicks");
    fs::write(table.join("d.bin"), b"later").unwrap();
    eventually("a second version", || {
        fs::write(table.join("_SUCCESS"), b"").unwrap();
        let list = world.served.succeed(&["dataset", "list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list[0]["latest"].as_u64() > Some(1)
    });
    world.restart();
    let again = world.create("pvc-fixed", &[]).unwrap();
    assert_eq!(again, first);
    let newer = world.create("pvc-newer", &[]).unwrap();
    assert_eq!(newer.volume_context["version"], "ads.clicks@v2");
    let other = world.create("pvc-fixed", &[("warm", "full")]);
    assert_eq!(other.unwrap_err().code(), Code::AlreadyExists);
    for (key, value, code) in [
        ("dataset", "ads.none", Code::NotFound),
        ("dataset", "ads.clicks@v9", Code::NotFound),
        ("endpoint", "http://169.254.169.254", Code::InvalidArgument),
        ("mode", "rw", Code::InvalidArgument),
        // Two kinds at once.
        ("directory", "home/a", Code::InvalidArgument),
    ] {
        let refused = world.create("pvc-bad", &[(key, value)]).unwrap_err();
        assert_eq!(refused.code(), code, "{key}={value}: {refused}");
    }
}

// A pod of mode native reads files of the disk: nothing of ours is in the way, and nothing can be written.
#[test]
fn a_complete_version_is_published_as_a_native_tree() {
    need_mount!("a_complete_version_is_published_as_a_native_tree");
    let world = World::new();
    let volume = world.create("pvc-native", &[("mode", "native")]).unwrap();
    let staging = world.staging("native");
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    world.stage(&stage).unwrap();
    let target = world.target("native");
    let publish = publish_request(&stage, &target);
    // Not there yet: the kubelet is told to come again, and the files are fetched meanwhile.
    let early = world.publish(&publish);
    if let Err(status) = &early {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        eventually("the tree is published", || world.publish(&publish).is_ok());
    }
    assert_shows(&target);
    let line = world
        .mounts()
        .into_iter()
        .find(|line| line.contains(&text(&target)));
    let line = line.unwrap();
    assert!(!line.contains("fuse.terrace"), "{line}");
    let options = line.split(' ').nth(5).unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(options.split(',').any(|found| found == option), "{line}");
    }
    assert!(fs::write(target.join("x"), b"x").is_err());
    // With everything there, auto means the same.
    let auto = world.create("pvc-auto", &[("mode", "auto")]).unwrap();
    let other = world.staging("auto");
    let stage = stage_request(&auto, &other, Mode::MultiNodeReaderOnly);
    world.stage(&stage).unwrap();
    let second = world.target("auto");
    world.publish(&publish_request(&stage, &second)).unwrap();
    assert_shows(&second);
    let lines = world.mounts();
    let line = lines
        .iter()
        .find(|line| line.contains(&text(&second)))
        .unwrap();
    assert!(!line.contains("fuse.terrace"), "{line}");
    for (id, target, staging) in [
        (&volume.volume_id, &target, &staging),
        (&auto.volume_id, &second, &other),
    ] {
        world.unpublish(id, target).unwrap();
        world.unstage(id, staging).unwrap();
    }
    assert_eq!(world.mounts(), Vec::<String>::new());
    let trees = world.node.hot().join("trees");
    assert_eq!(fs::read_dir(trees).unwrap().count(), 0, "a tree is left");
}

// A model is served by what was saved: the files of that version, and no other kind of dataset in its place.
#[test]
fn a_saved_model_is_published() {
    need_mount!("a_saved_model_is_published");
    let world = World::new();
    let weights = world.node.scratch("weights");
    fs::create_dir(weights.join("deeper")).unwrap();
    for (version, length) in [(1, 70_000), (2, 90_000)] {
        fs::write(weights.join("model.safetensors"), noise(version, length)).unwrap();
        fs::write(
            weights.join("deeper/config.json"),
            format!("{{\"v\":{version}}}"),
        )
        .unwrap();
        world
            .served
            .succeed(&["dataset", "save", &text(&weights), "team/churn"]);
    }
    let model = |name: &str, selector: &str| {
        let mut request = create_request(name, &[("model", selector)]);
        request.parameters.remove("dataset");
        let made = world
            .runtime
            .block_on(world.controller().create_volume(request));
        made.map(|made| made.into_inner().volume.unwrap())
    };
    let volume = model("pvc-model", "team/churn@v1").unwrap();
    assert_eq!(volume.volume_context["version"], "team.churn@v1");
    let latest = model("pvc-latest", "team/churn").unwrap();
    assert_eq!(latest.volume_context["version"], "team.churn@v2");
    for (selector, code) in [
        ("team/none", Code::NotFound),
        ("team/churn@v9", Code::NotFound),
        // It is there, and no model.
        ("ads/clicks", Code::NotFound),
        ("team/../churn", Code::InvalidArgument),
    ] {
        let refused = model("pvc-bad", selector).unwrap_err();
        assert_eq!(refused.code(), code, "{selector}: {refused}");
    }
    let staging = world.staging("model");
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    world.stage(&stage).unwrap();
    let target = world.target("model");
    world.publish(&publish_request(&stage, &target)).unwrap();
    assert_eq!(
        fs::read(target.join("model.safetensors")).unwrap(),
        noise(1, 70_000)
    );
    assert_eq!(
        fs::read_to_string(target.join("deeper/config.json")).unwrap(),
        "{\"v\":1}"
    );
    assert!(fs::write(target.join("model.safetensors"), b"x").is_err());
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
    assert_eq!(world.mounts(), Vec::<String>::new());
}

// fsGroup is shown instead of being written into every file of a dataset.
#[test]
fn the_group_of_a_volume_is_shown() {
    need_mount!("the_group_of_a_volume_is_shown");
    let world = World::new();
    let volume = world.create("pvc-group", &[]).unwrap();
    let staging = world.staging("group");
    let mut stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    let capability = stage.volume_capability.as_mut().unwrap();
    let Some(AccessType::Mount(mount)) = &mut capability.access_type else {
        panic!("not a mount");
    };
    mount.volume_mount_group = "4321".to_owned();
    world.stage(&stage).unwrap();
    let target = world.target("group");
    world.publish(&publish_request(&stage, &target)).unwrap();
    assert_eq!(fs::metadata(target.join("a.bin")).unwrap().gid(), 4321);
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
}
