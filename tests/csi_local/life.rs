//! The life of a volume with a crash between any two calls, every call twice, and calls at once.

use std::fs;
use std::path::PathBuf;

use terrace_csi::wire::volume_capability::access_mode::Mode;
use terrace_csi::wire::volume_usage::Unit;
use terrace_csi::wire::*;
use tonic::Code;

use crate::world::{MIB, World, capability, create_request, patiently, text};

const SIZE: i64 = 64 * MIB;

/// The paths and requests of one volume.
struct Calls {
    id: String,
    staging: PathBuf,
    targets: [PathBuf; 2],
}

impl Calls {
    fn new(world: &World, id: &str) -> Self {
        let below = |name: &str| world.kubelet().join("pods").join(name);
        Self {
            id: id.to_owned(),
            staging: below(&format!("{id}/globalmount")),
            targets: [below("a/mount"), below("b/mount")],
        }
    }

    async fn stage(&self, world: &World) {
        let request = NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: text(&self.staging),
            volume_capability: Some(capability(Mode::SingleNodeMultiWriter)),
            ..NodeStageVolumeRequest::default()
        };
        let mut node = world.node().await;
        patiently(async || node.node_stage_volume(request.clone()).await)
            .await
            .unwrap();
    }

    async fn publish(&self, world: &World, at: usize, readonly: bool) -> Result<(), tonic::Status> {
        let request = NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: text(&self.staging),
            target_path: text(&self.targets[at]),
            volume_capability: Some(capability(Mode::SingleNodeMultiWriter)),
            readonly,
            ..NodePublishVolumeRequest::default()
        };
        let mut node = world.node().await;
        patiently(async || node.node_publish_volume(request.clone()).await)
            .await
            .map(drop)
    }

    async fn unpublish(&self, world: &World, at: usize) {
        let request = NodeUnpublishVolumeRequest {
            volume_id: self.id.clone(),
            target_path: text(&self.targets[at]),
        };
        let mut node = world.node().await;
        patiently(async || node.node_unpublish_volume(request.clone()).await)
            .await
            .unwrap();
    }

    async fn unstage(&self, world: &World) {
        let request = NodeUnstageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: text(&self.staging),
        };
        let mut node = world.node().await;
        patiently(async || node.node_unstage_volume(request.clone()).await)
            .await
            .unwrap();
    }

    async fn delete(&self, world: &World) -> Result<(), tonic::Status> {
        let request = DeleteVolumeRequest {
            volume_id: self.id.clone(),
            ..DeleteVolumeRequest::default()
        };
        let mut controller = world.controller().await;
        patiently(async || controller.delete_volume(request.clone()).await)
            .await
            .map(drop)
    }

    async fn expand(&self, world: &World, bytes: i64) -> i64 {
        let request = ControllerExpandVolumeRequest {
            volume_id: self.id.clone(),
            capacity_range: Some(CapacityRange {
                required_bytes: bytes,
                limit_bytes: 0,
            }),
            ..ControllerExpandVolumeRequest::default()
        };
        let mut controller = world.controller().await;
        let grown = patiently(async || controller.controller_expand_volume(request.clone()).await);
        grown.await.unwrap().into_inner().capacity_bytes
    }

    async fn stats(&self, world: &World) -> VolumeUsage {
        let request = NodeGetVolumeStatsRequest {
            volume_id: self.id.clone(),
            volume_path: text(&self.targets[0]),
            ..NodeGetVolumeStatsRequest::default()
        };
        let found = world
            .node()
            .await
            .node_get_volume_stats(request)
            .await
            .unwrap()
            .into_inner();
        let bytes = found
            .usage
            .into_iter()
            .find(|usage| usage.unit() == Unit::Bytes);
        bytes.unwrap()
    }
}

async fn create(world: &World, name: &str, bytes: i64) -> Result<Volume, tonic::Status> {
    let mut controller = world.controller().await;
    let request = create_request(name, bytes);
    let made = patiently(async || controller.create_volume(request.clone()).await).await?;
    Ok(made.into_inner().volume.unwrap())
}

/// Runs something twice, with a crash of the driver before, between and after.
macro_rules! through_crashes {
    ($world:ident, $call:expr) => {{
        $world.restart();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { $call });
        $world.restart();
        let done = runtime.block_on(async { $call });
        $world.restart();
        done
    }};
}

// A driver is killed whenever its node is short of memory; volumes and pods must not notice.
#[test]
fn a_volume_lives_through_crashes_between_all_calls() {
    let test = "a_volume_lives_through_crashes_between_all_calls";
    let Some(mut world) = World::new(test, &["all"]) else {
        return;
    };
    let volume = through_crashes!(world, create(&world, "v", SIZE).await.unwrap());
    let topology = &volume.accessible_topology[0].segments;
    assert_eq!(topology["topology.local.terrace.io/node"], "node-1");
    let calls = Calls::new(&world, &volume.volume_id);
    through_crashes!(world, calls.stage(&world).await);
    through_crashes!(world, calls.publish(&world, 0, false).await.unwrap());
    through_crashes!(world, calls.publish(&world, 1, true).await.unwrap());
    assert_eq!(world.mounts().len(), 3, "a repeated call mounts again");
    fs::write(calls.targets[0].join("file"), "kept").unwrap();
    assert_eq!(fs::read(calls.targets[1].join("file")).unwrap(), b"kept");
    assert!(
        fs::write(calls.targets[1].join("file"), "x").is_err(),
        "read-only means it"
    );
    let other_way = world
        .runtime
        .block_on(calls.publish(&world, 1, false))
        .unwrap_err();
    assert_eq!(other_way.code(), Code::AlreadyExists);

    let full = fs::write(calls.targets[0].join("large"), vec![1; 2 * SIZE as usize]);
    assert!(full.is_err(), "a volume takes twice its size");
    let grown = through_crashes!(world, calls.expand(&world, 4 * SIZE).await);
    assert_eq!(grown, 4 * SIZE);
    fs::write(calls.targets[0].join("large"), vec![1; 2 * SIZE as usize]).unwrap();
    nix::unistd::sync();
    let usage = through_crashes!(world, calls.stats(&world).await);
    // btrfs tells limits to nobody who asks the mount, so the driver's answer is the only one that has it.
    let df = nix::sys::statvfs::statvfs(&calls.targets[0]).unwrap();
    assert!(df.blocks() * df.fragment_size() > 4 * SIZE as u64);
    assert!(
        usage.total == 4 * SIZE && usage.used >= 2 * SIZE,
        "{usage:?}"
    );

    let used = world.runtime.block_on(calls.delete(&world)).unwrap_err();
    assert_eq!(used.code(), Code::FailedPrecondition);
    through_crashes!(world, calls.unpublish(&world, 0).await);
    through_crashes!(world, calls.unpublish(&world, 1).await);
    assert!(!calls.targets[0].exists() && !calls.targets[1].exists());
    through_crashes!(world, calls.unstage(&world).await);
    assert!(world.mounts().is_empty());
    through_crashes!(world, calls.delete(&world).await.unwrap());
    world.eventually("the files of the volume are gone", || {
        ["volumes", "making", "trash", "ids"]
            .iter()
            .all(|below| world.names(below).is_empty())
    });
}

// Sidecars repeat calls that are still under way; two volumes of one name would both be paid for.
#[test]
fn calls_at_once_make_one_volume() {
    let Some(world) = World::new("calls_at_once_make_one_volume", &["all"]) else {
        return;
    };
    world.runtime.block_on(async {
        let made = futures::future::join_all((0..8).map(|_| create(&world, "same", SIZE))).await;
        let ids: Vec<String> = made.into_iter().map(|m| m.unwrap().volume_id).collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
        assert_eq!(world.names("volumes").len(), 1);
        let other = create(&world, "same", 2 * SIZE).await.unwrap_err();
        assert_eq!(other.code(), Code::AlreadyExists);
        let calls = Calls::new(&world, &ids[0]);
        futures::future::join_all((0..8).map(|_| calls.stage(&world))).await;
        let both = (0..8).map(|number| calls.publish(&world, number % 2, false));
        for published in futures::future::join_all(both).await {
            published.unwrap();
        }
        assert_eq!(world.mounts().len(), 3);
        futures::future::join_all((0..8).map(|number| calls.unpublish(&world, number % 2))).await;
        futures::future::join_all((0..4).map(|_| calls.unstage(&world))).await;
        for deleted in futures::future::join_all((0..8).map(|_| calls.delete(&world))).await {
            deleted.unwrap();
        }
    });
    assert!(world.mounts().is_empty());
}

// What a node cannot keep must not be promised: caps without their controller, volumes elsewhere,
// more than fits, and arguments that nobody knows.
#[test]
fn what_cannot_be_kept_is_refused() {
    let Some(world) = World::new("what_cannot_be_kept_is_refused", &["all"]) else {
        return;
    };
    let refused = |change: fn(&mut CreateVolumeRequest)| {
        let mut request = create_request("refused", SIZE);
        change(&mut request);
        world.runtime.block_on(async {
            let status = world
                .controller()
                .await
                .create_volume(request)
                .await
                .unwrap_err();
            (status.code(), status.message().to_owned())
        })
    };
    let one = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    assert_eq!(
        refused(|r| r.capacity_range.as_mut().unwrap().required_bytes = 1 << 50).0,
        Code::ResourceExhausted
    );
    let elsewhere = refused(|request| {
        let segments = [(
            "topology.local.terrace.io/node".to_owned(),
            "node-2".to_owned(),
        )];
        request.accessibility_requirements = Some(TopologyRequirement {
            requisite: vec![Topology {
                segments: segments.into(),
            }],
            preferred: Vec::new(),
        });
    });
    assert_eq!(elsewhere.0, Code::ResourceExhausted);
    let unknown = refused(|r| drop(r.parameters.insert("chmod".to_owned(), "0".to_owned())));
    assert_eq!(unknown.0, Code::InvalidArgument);
    let shared = refused(|r| r.volume_capabilities = vec![capability(Mode::MultiNodeMultiWriter)]);
    assert_eq!(shared.0, Code::InvalidArgument);
    if terrace_csi::scratch::IoControl::find().is_err() {
        let mut request = create_request("capped", SIZE);
        request.mutable_parameters = one("writeBytesPerSecond", "1048576");
        let status = world.runtime.block_on(async {
            world
                .controller()
                .await
                .create_volume(request)
                .await
                .unwrap_err()
        });
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().contains("not possible on this node"),
            "{status}"
        );
    }
    assert!(world.names("volumes").is_empty());
}

// Without it the one resizer of a cluster asks its own node's driver to grow the volume of another node, and no
// claim ever grows.
#[test]
fn a_node_grows_its_volumes_by_itself() {
    let Some(mut world) = World::new("a_node_grows_its_volumes_by_itself", &["all"]) else {
        return;
    };
    let offered = |world: &World| {
        world.runtime.block_on(async {
            let request = ControllerGetCapabilitiesRequest::default();
            let mut controller = world.controller().await;
            let answer = controller.controller_get_capabilities(request).await;
            answer.unwrap().into_inner().capabilities
        })
    };
    let all = offered(&world);
    world.kill();
    world.start_with(&["all"], &["--scratch-grow-by-node"]);
    let fewer = offered(&world);
    assert_eq!(fewer.len() + 1, all.len());
    assert!(fewer.iter().all(|one| all.contains(one)), "{fewer:?}");
    let made = world.runtime.block_on(create(&world, "v", SIZE)).unwrap();
    let calls = Calls::new(&world, &made.volume_id);
    let grown = world.runtime.block_on(async {
        calls.stage(&world).await;
        let request = NodeExpandVolumeRequest {
            volume_id: calls.id.clone(),
            volume_path: text(&calls.staging),
            capacity_range: Some(CapacityRange {
                required_bytes: 2 * SIZE,
                limit_bytes: 0,
            }),
            ..NodeExpandVolumeRequest::default()
        };
        world.node().await.node_expand_volume(request).await
    });
    assert_eq!(grown.unwrap().into_inner().capacity_bytes, 2 * SIZE);
}

// A path that no kubelet asks for would be mounted over.
#[test]
fn paths_outside_are_refused() {
    let Some(world) = World::new("paths_outside_are_refused", &["all"]) else {
        return;
    };
    let made = world.runtime.block_on(create(&world, "v", SIZE)).unwrap();
    for path in ["/etc", "/", "relative", "/var/../etc"] {
        let request = NodeStageVolumeRequest {
            volume_id: made.volume_id.clone(),
            staging_target_path: path.to_owned(),
            volume_capability: Some(capability(Mode::SingleNodeWriter)),
            ..NodeStageVolumeRequest::default()
        };
        let staged = world.runtime.block_on(async {
            world
                .node()
                .await
                .node_stage_volume(request)
                .await
                .unwrap_err()
        });
        assert_eq!(staged.code(), Code::InvalidArgument, "{path}");
    }
    assert_eq!(world.names("volumes").len(), 1);
}
