//! What programs do to the directory without Terrace.

use super::*;

// SEMANTICS S84: without it what somebody writes without Terrace is lost to an older copy.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_without_terrace_wins_at_every_step() {
    let world = world!("what_is_written_without_terrace_wins_at_every_step");
    let steps = [
        Step::Verified,
        Step::Copied,
        Step::Explained,
        Step::Demoting,
        Step::Emptied,
        Step::Dated,
        Step::Stubbed,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let name = format!("file{number}");
        world.write(&name, &contents(1, 100_000));
        let path = world.below(&name);
        let writer = Arc::new(Mutex::new(None));
        let started = Arc::clone(&writer);
        let act: AtStep = Box::new(move || {
            let write = move || fs::write(&path, "written by another program").unwrap();
            if step <= Step::Copied {
                write();
            } else {
                // It waits for the lease, which is given back when the file is a stub.
                *started.lock().unwrap() = Some(std::thread::spawn(write));
            }
        });
        *world.script.act.lock().unwrap() = Some((step, act));
        let moved = world.demote(&name).await.unwrap();
        if step <= Step::Copied {
            assert_eq!(moved, Moved::Kept(Kept::Changed), "{step:?}");
        }
        let writer = writer.lock().unwrap().take();
        if let Some(writer) = writer {
            writer.join().unwrap();
        }
        assert_eq!(world.script.hits.load(Ordering::Relaxed), number + 1);
        let read = world.read(&name).await.unwrap();
        assert_eq!(read, b"written by another program", "{step:?}");
        assert_eq!(world.length(&name), 26, "{step:?}");
    }
}

// SEMANTICS S84: without it a stub that is written, or only touched, without Terrace would be read as
// something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_stub_is_changed_without_terrace() {
    let world = world!("a_stub_is_changed_without_terrace");
    for name in ["written", "touched", "truncated", "grown"] {
        world.write(name, &contents(3, 5000));
        assert!(matches!(world.demote(name).await, Ok(Moved::Away(5000))));
    }
    fs::write(world.below("written"), "new").unwrap();
    assert_eq!(world.read("written").await.unwrap(), b"new");
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::options()
        .write(true)
        .open(world.below("touched"))
        .unwrap()
        .set_times(times)
        .unwrap();
    assert_eq!(world.length("touched"), 5000);
    assert!(world.read("touched").await.unwrap() == contents(3, 5000));
    assert_eq!(fs::metadata(world.below("touched")).unwrap().mtime(), 0);
    // Emptying what is empty below changes nothing that anybody without Terrace could see.
    File::create(world.below("truncated")).unwrap();
    assert!(world.read("truncated").await.unwrap() == contents(3, 5000));
    File::options()
        .write(true)
        .open(world.below("grown"))
        .unwrap()
        .set_len(9)
        .unwrap();
    assert_eq!(world.read("grown").await.unwrap(), [0; 9]);
}
