//! What a job chooses, and what a collection takes.

use super::*;

// SEMANTICS S90: without it a policy would move what it should not, or say something else than it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_moves_what_its_policy_chooses() {
    let world = world!("a_job_moves_what_its_policy_chooses");
    for number in 0..30_u8 {
        world.write(
            &format!("runs/{}/model{number}.bin", number % 3),
            &contents(number, 2000),
        );
    }
    world.write("runs/0/small.bin", b"small");
    world.write("runs/0/notes.txt", &contents(0, 2000));
    world.write("runs/1/kept.bin", &contents(0, 2000));
    world.write("pinned/a.bin", &contents(0, 2000));
    world.write("fresh.bin", &contents(0, 2000));
    let now = FileTimes::new().set_modified(SystemTime::now());
    File::options()
        .write(true)
        .open(world.below("fresh.bin"))
        .unwrap()
        .set_times(now)
        .unwrap();
    world.fs.pin(b"pinned".to_vec(), true).await.unwrap();
    world
        .fs
        .pin(b"runs/1/kept.bin".to_vec(), true)
        .await
        .unwrap();
    std::os::unix::fs::symlink("/etc", world.below("link")).unwrap();
    let policy: TierPolicy = serde_json::from_str(
        r#"{"older_than": "1d", "larger_than": "1KiB", "exclude": ["*.txt"]}"#,
    )
    .unwrap();
    let job = |action, dry_run| Job {
        action,
        path: Vec::new(),
        policy: policy.clone(),
        dry_run,
    };
    let (would, rows) = world.job(job(Action::Demote, true)).await;
    assert_eq!((would.chosen, would.moved, would.files), (30, 0, 34));
    assert_eq!((would.kept_pinned, rows.len()), (2, 30));
    let (done, moved) = world.job(job(Action::Demote, false)).await;
    assert_eq!((done.moved, done.moved_bytes, done.failed), (30, 60_000, 0));
    assert_eq!(moved, rows);
    let (scan, _) = world.job(job(Action::Scan, true)).await;
    assert_eq!((scan.chosen, scan.stubs, scan.stub_bytes), (0, 30, 60_000));
    let part = Job {
        path: b"runs/2".to_vec(),
        ..job(Action::Recall, false)
    };
    let (back, rows) = world.job(part).await;
    assert_eq!((back.moved, rows.len()), (10, 10));
    assert!(world.read("runs/2/model5.bin").await.unwrap() == contents(5, 2000));
    let one = Job {
        path: b"runs/1/model4.bin".to_vec(),
        ..job(Action::Recall, false)
    };
    assert_eq!(world.job(one).await.0.moved, 1);
    let nowhere = Job {
        path: b"../etc".to_vec(),
        ..job(Action::Scan, true)
    };
    let (told, _heard) = mpsc::channel(4);
    world.fs.run_job(nowhere, &told).await.unwrap_err();
}

// SEMANTICS S91: without it the store would fill with what nobody names, or lose what somebody does.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_found_and_nothing_else() {
    let world = world!("orphans_are_found_and_nothing_else");
    for name in [
        "deleted",
        "rewritten",
        "kept",
        "copied",
        "moved-out",
        "renamed",
    ] {
        world.write(name, &contents(1, 3000));
        assert!(matches!(world.demote(name).await, Ok(Moved::Away(3000))));
    }
    fs::remove_file(world.below("deleted")).unwrap();
    fs::write(world.below("rewritten"), "new").unwrap();
    world.read("copied").await.unwrap(); // state copy: its object is still of use
    fs::rename(
        world.below("moved-out"),
        world.place.path().join("moved-out"),
    )
    .unwrap();
    fs::rename(world.below("renamed"), world.below("other-name")).unwrap();
    world.read("rewritten").await.unwrap(); // the record goes when it is opened
    fs::write(world.objects()[0].with_file_name("of-somebody-else"), "x").unwrap();
    let day = Duration::from_secs(24 * 3600);
    let young = world.collect(day, false).await;
    assert_eq!((young.taken, young.young, young.objects), (0, 2, 7));
    let dry = world.collect(Duration::ZERO, true).await;
    assert_eq!(
        (dry.taken, dry.taken_bytes, world.objects().len()),
        (2, 6000, 7)
    );
    let done = world.collect(Duration::ZERO, false).await;
    assert_eq!((done.taken, done.elsewhere, done.foreign), (2, 1, 1));
    assert_eq!(world.objects().len(), 5);
    for name in ["kept", "copied", "other-name"] {
        assert!(
            world.read(name).await.unwrap() == contents(1, 3000),
            "{name}"
        );
    }
    fs::rename(world.place.path().join("moved-out"), world.below("back")).unwrap();
    assert!(world.read("back").await.unwrap() == contents(1, 3000));
    // A copy of what a file had before goes in two runs.
    let mut file = File::options()
        .append(true)
        .open(world.below("copied"))
        .unwrap();
    file.write_all(b"more").unwrap();
    drop(file);
    assert_eq!(world.collect(Duration::ZERO, false).await.taken, 0);
    assert_eq!(world.collect(Duration::ZERO, false).await.taken, 1);
}

// SEMANTICS S91: without it a collection beside demotions would take what they have just written.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_runs_beside_demotions() {
    let world = world!("a_collection_runs_beside_demotions");
    for number in 0..40_u8 {
        world.write(&format!("f{number}"), &contents(number, 4000));
    }
    let job = Job {
        action: Action::Demote,
        path: Vec::new(),
        policy: TierPolicy {
            larger_than: "1B".parse().unwrap(),
            ..TierPolicy::default()
        },
        dry_run: false,
    };
    let collecting = async {
        let mut taken = 0;
        for _ in 0..20 {
            taken += world.collect(Duration::ZERO, false).await.taken;
        }
        taken
    };
    let ((done, _), taken) = tokio::join!(world.job(job), collecting);
    assert_eq!((done.moved, taken), (40, 0));
    for number in 0..40_u8 {
        let read = world.read(&format!("f{number}")).await.unwrap();
        assert!(read == contents(number, 4000), "f{number}");
    }
}
