//! Models through the command line and a real catalog process: saved, found again, collected, scrubbed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::served::Served;

/// A directory with files whose bytes follow from `seed`; one of them needs several parts on a store.
fn checkpoint(served: &Served, name: &str, seed: u8) -> PathBuf {
    let directory = served.scratch(name);
    fs::create_dir_all(directory.join("weights/a b")).unwrap();
    fs::write(
        directory.join("config.json"),
        format!("{{\"seed\": {seed}}}"),
    )
    .unwrap();
    fs::write(directory.join(".gitattributes"), b"").unwrap();
    let large: Vec<u8> = (0..9_000_000_u32)
        .map(|at| (at % 251) as u8 ^ seed)
        .collect();
    fs::write(directory.join("weights/a b/ü%3A.bin"), large).unwrap();
    directory
}

fn save(served: &Served, directory: &Path, words: &[&str]) -> Value {
    let directory = directory.to_str().unwrap();
    let mut all = vec!["dataset", "save", directory, "team/churn", "--json"];
    all.extend(words);
    serde_json::from_str(&served.succeed(&all)).unwrap()
}

/// Every file below a directory.
fn tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let below = path.strip_prefix(directory).unwrap();
            found.insert(below.to_str().unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    found
}

fn cold(served: &Served) -> PathBuf {
    served.scratch("data/cold")
}

// Without it a model that was saved could be half there, there twice, or somebody else's.
#[test]
fn a_directory_is_saved_once() {
    let served = Served::start();
    let first = checkpoint(&served, "first", 1);
    let saved = save(&served, &first, &["--tag", "prod"]);
    assert_eq!(
        (&saved["version"], &saved["files"], &saved["state"]),
        (&1.into(), &3.into(), &"committed".into())
    );
    let detail = served.succeed(&["dataset", "show", "team.churn@prod", "--json"]);
    let detail: Value = serde_json::from_str(&detail).unwrap();
    assert_eq!(detail["dataset"]["kind"], "model");
    let location = detail["version"]["location"].as_str().unwrap();
    let place = Path::new(location.strip_prefix("file://").unwrap());
    let mut there = tree(place);
    assert!(there.remove(".terrace-save.jsonl").is_some());
    assert_eq!(there, tree(&first));
    // Again: the same version, and nothing more in the store.
    let before = tree(&cold(&served)).len();
    assert_eq!(save(&served, &first, &[])["version"], 1);
    assert_eq!(tree(&cold(&served)).len(), before);
    let second = checkpoint(&served, "second", 2);
    assert_eq!(save(&served, &second, &[])["version"], 2);
    let other = format!("file://{}", served.scratch("elsewhere").display());
    let second = second.to_str().unwrap();
    let (_, error) = served.fail(&["dataset", "save", second, "team/other", "--url", &other]);
    assert!(error.contains("not a place to save to"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}

// Two trainings that end at once must not lose one of the two models.
#[test]
fn saves_at_once_are_versions_each() {
    let served = Served::start();
    let directories: Vec<PathBuf> = (0..4)
        .map(|seed| checkpoint(&served, &format!("run{seed}"), seed))
        .collect();
    let mut versions: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = directories
            .iter()
            .map(|directory| scope.spawn(|| save(&served, directory, &[])))
            .collect();
        let saved = threads.into_iter().map(|thread| thread.join().unwrap());
        saved
            .map(|saved| saved["version"].as_u64().unwrap())
            .collect()
    });
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
    let list = served.succeed(&["dataset", "versions", "team.churn", "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 4);
}

// What cannot be shown by a mount, or leads out of the directory, must not become a version.
#[test]
fn hostile_directories_are_refused() {
    let served = Served::start();
    let refused = |make: &dyn Fn(&Path), said: &str| {
        let directory = served.scratch("hostile");
        fs::create_dir(&directory).unwrap();
        make(&directory);
        let path = directory.to_str().unwrap();
        let (_, error) = served.fail(&["dataset", "save", path, "team/churn"]);
        assert!(error.contains(said), "{error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        fs::remove_dir_all(&directory).unwrap();
    };
    refused(&|_| {}, "no files");
    refused(
        &|at| fs::write(at.join("a\nb"), b"x").unwrap(),
        "control character",
    );
    refused(
        &|at| fs::write(at.join(".terrace-save.jsonl"), b"x").unwrap(),
        "are taken",
    );
    refused(
        &|at| std::os::unix::fs::symlink("/etc", at.join("etc")).unwrap(),
        "a link to a directory",
    );
    refused(
        &|at| nix::unistd::mkfifo(&at.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap(),
        "no file and no directory",
    );
    let path = checkpoint(&served, "good", 1);
    let path = path.to_str().unwrap();
    for name in ["churn", "../x", "Team/churn", "a/b/c"] {
        let (status, _) = served.fail(&["dataset", "save", path, name]);
        assert_eq!(status, 2, "{name}");
    }
    assert!(served.succeed(&["dataset", "list"]).contains("no datasets"));
    assert_eq!(
        tree(&cold(&served)).into_keys().collect::<Vec<_>>(),
        [".terrace-vault"]
    );
}

// A model whose bytes rot in the cold store must be found before somebody needs it, and must not go.
#[test]
fn a_scrub_finds_rot_and_collecting_takes_nothing_that_is_needed() {
    let served = Served::start();
    let directory = checkpoint(&served, "one", 1);
    save(&served, &directory, &[]);
    let clean = served.succeed(&["catalog", "scrub", "--rate", "0B"]);
    assert!(clean.contains("read 1 version:"), "{clean}");
    let clean = served.succeed(&["dataset", "verify", "team.churn", "--rate", "0B"]);
    assert!(clean.contains("read 1 version:"), "{clean}");
    let before = tree(&cold(&served));
    // Everything is young, and everything is needed.
    let taken = served.succeed(&["catalog", "gc", "--json", "--grace", "1h"]);
    let last: Value = serde_json::from_str(taken.lines().last().unwrap()).unwrap();
    assert_eq!(last["done"]["taken"], 0, "{taken}");
    assert_eq!(last["done"]["versions"], 1, "{taken}");
    assert_eq!(tree(&cold(&served)), before);
    let (_, error) = served.fail(&["catalog", "gc", "--grace", "1s"]);
    assert!(error.contains("at least 3600"), "{error}");
    // One bit, with the length and the time of the file as they were.
    let (path, _) = before
        .iter()
        .find(|(path, _)| path.ends_with(".bin"))
        .unwrap();
    let path = cold(&served).join(path);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[4_500_000] ^= 1;
    let file = fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.set_modified(time).unwrap();
    let (_, error) = served.fail(&["catalog", "scrub", "team.churn", "--json"]);
    assert!(
        error.contains("found 1 damaged piece in 1 version,"),
        "{error}"
    );
    let (_, error) = served.fail(&["dataset", "verify", "team.churn"]);
    assert!(error.contains("damaged"), "{error}");
    let list = served.succeed(&["dataset", "versions", "team.churn"]);
    assert!(list.contains("degraded"), "{list}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

// A crash of the catalog in the middle of a save must leave no half version and lose no finished one.
#[test]
fn a_killed_catalog_saves_whole_or_not() {
    let mut served = Served::start();
    let mut made = 0;
    for round in 0..4_u8 {
        let directory = checkpoint(&served, &format!("round{round}"), round);
        let path = directory.to_str().unwrap().to_owned();
        std::thread::scope(|scope| {
            let words = ["dataset", "save", &path, "team/churn", "--json"];
            let saved = &served;
            let saving = scope.spawn(move || saved.try_run(&words));
            // Killed as soon as the first, second .. file of this round is there, or after the end.
            let wanted = made * 4 + u64::from(round) + 1;
            let cold = cold(&served);
            while !saving.is_finished() && (tree_size(&cold) as u64) <= wanted {
                std::thread::yield_now();
            }
            served.kill();
            saving.join().unwrap();
        });
        served.restart();
        let saved = save(&served, &directory, &[]);
        made += 1;
        assert_eq!(saved["version"], made, "round {round}");
        assert_eq!(saved["files"], 3);
    }
    served.succeed(&["catalog", "scrub", "--rate", "0B"]);
}

/// How many files there are; files may come and go while they are counted.
fn tree_size(directory: &Path) -> usize {
    let mut count = 0;
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => left.push(entry.path()),
                false => count += 1,
            }
        }
    }
    count
}
