//! What must not matter: calls twice, at once, out of order; a driver, a mount, a daemon that dies.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use terrace_csi::wire::NodeGetVolumeStatsRequest;
use terrace_csi::wire::volume_capability::access_mode::Mode;
use tonic::Code;

use crate::support::need_mount;
use crate::world::{
    World, assert_shows, create_request, eventually, publish_request, stage_request, text,
};

// A kubelet asks again whenever it is not sure; the second answer must be the first one.
#[test]
fn every_call_may_come_twice_and_after_the_death_of_the_driver() {
    need_mount!("every_call_may_come_twice_and_after_the_death_of_the_driver");
    let mut world = World::new();
    let volume = world.create("pvc-twice", &[]).unwrap();
    world.restart();
    assert_eq!(world.create("pvc-twice", &[]).unwrap(), volume);
    let (staging, target) = (world.staging("twice"), world.target("twice"));
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    let publish = publish_request(&stage, &target);
    let id = &volume.volume_id;
    for _ in 0..2 {
        world.stage(&stage).unwrap();
        world.restart();
    }
    for _ in 0..2 {
        world.publish(&publish).unwrap();
        world.restart();
        // No mount belongs to the driver.
        assert_shows(&target);
    }
    assert_eq!(world.mounts().len(), 2, "{:?}", world.mounts());
    for _ in 0..2 {
        world.unpublish(id, &target).unwrap();
        world.restart();
    }
    for _ in 0..2 {
        world.unstage(id, &staging).unwrap();
        world.restart();
    }
    assert_eq!(world.mounts(), Vec::<String>::new());
}

// A driver that is killed in the middle of a call must find its way from wherever it was.
#[test]
fn a_driver_killed_in_the_middle_of_a_call_leaves_nothing_behind() {
    need_mount!("a_driver_killed_in_the_middle_of_a_call_leaves_nothing_behind");
    let mut world = World::new();
    let volume = world.create("pvc-killed", &[]).unwrap();
    let (staging, target) = (world.staging("killed"), world.target("killed"));
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    let publish = publish_request(&stage, &target);
    let mut cut = 0;
    for milliseconds in [0, 2, 5, 10, 20, 40] {
        for step in ["stage", "publish", "unpublish", "unstage"] {
            let mut client = world.client();
            let calls = (stage.clone(), publish.clone());
            let (id, paths) = (volume.volume_id.clone(), (text(&target), text(&staging)));
            let call = world.runtime.spawn(async move {
                match step {
                    "stage" => client.node_stage_volume(calls.0).await.map(drop),
                    "publish" => client.node_publish_volume(calls.1).await.map(drop),
                    "unpublish" => {
                        let request = terrace_csi::wire::NodeUnpublishVolumeRequest {
                            volume_id: id,
                            target_path: paths.0,
                        };
                        client.node_unpublish_volume(request).await.map(drop)
                    }
                    _ => {
                        let request = terrace_csi::wire::NodeUnstageVolumeRequest {
                            volume_id: id,
                            staging_target_path: paths.1,
                        };
                        client.node_unstage_volume(request).await.map(drop)
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(milliseconds));
            world.kill();
            cut += u32::from(world.runtime.block_on(call).unwrap().is_err());
            world.start("all");
            // The kubelet comes again until it hears yes.
            eventually(step, || {
                let done = match step {
                    "stage" => world.stage(&stage),
                    "publish" => world.publish(&publish),
                    "unpublish" => world.unpublish(&volume.volume_id, &target),
                    _ => world.unstage(&volume.volume_id, &staging),
                };
                done.is_ok()
            });
            if step == "publish" {
                assert_shows(&target);
            }
        }
        assert_eq!(world.mounts(), Vec::<String>::new());
    }
    assert!(cut > 0, "no call was cut off: the test has shown nothing");
}

// Two calls at once for one volume must not make two mounts; one may be told to come again.
#[test]
fn calls_at_once_end_as_one() {
    need_mount!("calls_at_once_end_as_one");
    let world = World::new();
    let create = create_request("pvc-once", &[]);
    let made = together(&world, |_| {
        let (mut controller, request) = (world.controller(), create.clone());
        async move { controller.create_volume(request).await.map(drop) }
    });
    assert!(made > 0);
    let volume = world.create("pvc-once", &[]).unwrap();
    let staging = world.staging("once");
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    let staged = together(&world, |_| {
        let (mut client, request) = (world.client(), stage.clone());
        async move { client.node_stage_volume(request).await.map(drop) }
    });
    assert!(staged > 0);
    world.stage(&stage).unwrap();
    assert_eq!(world.mounts().len(), 1, "{:?}", world.mounts());
    let targets: Vec<_> = (0..8)
        .map(|pod| world.target(&format!("pod-{pod}")))
        .collect();
    together(&world, |number| {
        let (mut client, request) = (world.client(), publish_request(&stage, &targets[number]));
        async move { client.node_publish_volume(request).await.map(drop) }
    });
    for target in &targets {
        world.publish(&publish_request(&stage, target)).unwrap();
        assert_shows(target);
    }
    assert_eq!(world.mounts().len(), 9, "{:?}", world.mounts());
    for target in &targets {
        world.unpublish(&volume.volume_id, target).unwrap();
    }
    world.unstage(&volume.volume_id, &staging).unwrap();
}

/// Makes eight calls at once; how many succeeded. The others must have been told to come again.
fn together<F>(world: &World, call: impl Fn(usize) -> F) -> usize
where
    F: Future<Output = Result<(), tonic::Status>> + Send + 'static,
{
    let calls: Vec<_> = (0..8)
        .map(|number| world.runtime.spawn(call(number)))
        .collect();
    let mut done = 0;
    for call in calls {
        match world.runtime.block_on(call).unwrap() {
            Ok(()) => done += 1,
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
    }
    done
}

// Steps that come before the one they build on must be refused, and steps back must not fail.
#[test]
fn calls_out_of_order_are_answered() {
    need_mount!("calls_out_of_order_are_answered");
    let world = World::new();
    let volume = world.create("pvc-order", &[]).unwrap();
    let (staging, target) = (world.staging("order"), world.target("order"));
    let stage = stage_request(&volume, &staging, Mode::SingleNodeSingleWriter);
    let publish = publish_request(&stage, &target);
    let id = &volume.volume_id;
    let code = |done: Result<(), tonic::Status>| done.unwrap_err().code();
    assert_eq!(code(world.publish(&publish)), Code::FailedPrecondition);
    world.unpublish(id, &target).unwrap();
    world.unstage(id, &staging).unwrap();
    world.stage(&stage).unwrap();
    let mut other = stage.clone();
    other.volume_capability = Some(crate::world::capability(Mode::MultiNodeReaderOnly));
    assert_eq!(code(world.stage(&other)), Code::AlreadyExists);
    world.publish(&publish).unwrap();
    assert_eq!(code(world.unstage(id, &staging)), Code::FailedPrecondition);
    let second = publish_request(&stage, &world.target("second"));
    assert_eq!(code(world.publish(&second)), Code::FailedPrecondition);
    let mut again = publish.clone();
    again.readonly = false;
    assert_eq!(code(world.publish(&again)), Code::AlreadyExists);
    assert_shows(&target);
    world.unpublish(id, &target).unwrap();
    world.unstage(id, &staging).unwrap();
    assert_eq!(world.mounts(), Vec::<String>::new());
}

// A worker that hangs must not hang the kubelet's housekeeping, and a dead mount must not stay for ever.
#[test]
fn hung_and_dead_mounts_are_survived() {
    need_mount!("hung_and_dead_mounts_are_survived");
    let mut world = World::new();
    let volume = world.create("pvc-dead", &[]).unwrap();
    let (staging, target) = (world.staging("dead"), world.target("dead"));
    let stage = stage_request(&volume, &staging, Mode::MultiNodeReaderOnly);
    let publish = publish_request(&stage, &target);
    world.stage(&stage).unwrap();
    world.publish(&publish).unwrap();
    let worker = Pid::from_raw(world.node.pid("worker").unwrap());
    kill(worker, Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    let mut client = world.client();
    let stats = client.node_get_volume_stats(NodeGetVolumeStatsRequest {
        volume_id: volume.volume_id.clone(),
        volume_path: text(&target),
        staging_target_path: String::new(),
    });
    let stats = world.runtime.block_on(stats);
    let took = began.elapsed();
    kill(worker, Signal::SIGCONT).unwrap();
    stats.unwrap();
    // The keeper replaces a worker that hangs for 30 s: the answer came from a hung one.
    assert!(took < Duration::from_secs(20), "{took:?}");
    // Keeper and worker die together, and the connection with them.
    world.lose_daemon();
    let is_dead = || nix::sys::statvfs::statvfs(&target).is_err();
    eventually("the mount is dead", is_dead);
    world.start_keeper();
    eventually("the dead mount is replaced", || {
        world.unpublish(&volume.volume_id, &target).is_ok()
            && world.stage(&stage).is_ok()
            && world.publish(&publish).is_ok()
            && !is_dead()
    });
    assert_shows(&target);
    world.unpublish(&volume.volume_id, &target).unwrap();
    world.unstage(&volume.volume_id, &staging).unwrap();
    assert_eq!(world.mounts(), Vec::<String>::new());
}
