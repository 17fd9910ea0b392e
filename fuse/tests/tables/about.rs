//! `.terrace/` of a version.

use terrace_cache::store::StoreErrorKind;
use terrace_fuse::namespace::{FsError, Kind, Namespace as _};

use crate::bytes;
use crate::script::{Mood, World, names, runtime, walk};

// Without it users could not tell from a path which version they read, and of what.
#[test]
fn a_version_tells_what_it_is() {
    runtime().block_on(async {
        let world = World::new();
        let version = world
            .script
            .commit("ads.clicks", 3, &["dt=1/a", "dt=1/tab\there", "b\\"]);
        world.script.report_is("1");
        let tree = world.mount();
        assert_eq!(names(&tree, "ads/clicks").await, ["b\\", "dt=1"], "hidden");
        let listed = names(&tree, "ads/clicks/.terrace").await;
        assert_eq!(listed, ["heat.json", "manifest", "usage", "version.json"]);
        let file = walk(&tree, "ads/clicks/.terrace/version.json")
            .await
            .unwrap();
        let text = bytes(&tree, file.ino).await;
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["dataset"], "ads.clicks");
        assert_eq!(json["selector"], "ads.clicks@v3");
        assert_eq!(json["version"], 3);
        assert_eq!(json["manifest"], version.manifest.hex());
        assert_eq!(json["prefix"], "warehouse/ads.clicks");
        assert_eq!((&json["files"], &json["bytes"]), (&3.into(), &90.into()));
        let file = walk(&tree, "ads/clicks/.terrace/manifest").await.unwrap();
        let text = String::from_utf8(bytes(&tree, file.ino).await).unwrap();
        let pin = "30\t3000000000\tetag:\"00000000000000000000000000000003\"\n";
        let expected = format!("b\\\\\t{pin}dt=1/a\t{pin}dt=1/tab\\there\t{pin}");
        assert_eq!(text, expected);
        // Only there: a directory below has none.
        let below = walk(&tree, "ads/clicks/dt=1/.terrace").await;
        assert!(matches!(below, Err(FsError::NotFound)), "{below:?}");
        // The next worker serves the same files under the same numbers.
        let again = world.take_over();
        assert_eq!(again.attr(file.ino).unwrap(), file);
        assert_eq!(bytes(&again, file.ino).await, text.as_bytes());
    });
}

// Without it a list of more files than one mark covers would be cut or mixed up.
#[test]
fn a_long_list_is_whole_from_any_place() {
    runtime().block_on(async {
        let world = World::new();
        let paths: Vec<String> = (0..3000)
            .map(|n| format!("d{:02}/f{n:05}", n % 7))
            .collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        world.script.commit("ads.clicks", 1, &paths);
        let tree = world.mount();
        let file = walk(&tree, "ads/clicks/.terrace/manifest").await.unwrap();
        let text = String::from_utf8(bytes(&tree, file.ino).await).unwrap();
        let mut listed: Vec<&str> = text.lines().filter_map(|l| l.split('\t').next()).collect();
        let mut expected = paths.clone();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected);
    });
}

// Without it a report would never change, or change under a reader.
#[test]
fn a_report_that_changes_is_another_file() {
    runtime().block_on(async {
        let world = World::new();
        world.script.commit("ads.clicks", 1, &["a"]);
        world.script.report_is("1");
        let tree = world.mount();
        let path = "ads/clicks/.terrace/heat.json";
        let first = walk(&tree, path).await.unwrap();
        assert_eq!(first.kind, Kind::File);
        assert_eq!(bytes(&tree, first.ino).await, b"Heat 1");
        walk(&tree, "ads/clicks/.terrace/version.json")
            .await
            .unwrap();
        world.wait();
        assert_eq!(walk(&tree, path).await.unwrap(), first, "the same text");
        world.script.report_is("22");
        assert_eq!(
            walk(&tree, path).await.unwrap(),
            first,
            "believed for a while"
        );
        world.wait();
        let second = walk(&tree, path).await.unwrap();
        assert_eq!(bytes(&tree, second.ino).await, b"Heat 22");
        assert_eq!(
            bytes(&tree, first.ino).await,
            b"Heat 1",
            "an open handle goes on"
        );
        // Without the catalog: the last one; one that was never seen is an error, and not listed.
        world.script.mood(Mood::Fails(StoreErrorKind::Unreachable));
        world.wait();
        assert_eq!(walk(&tree, path).await.unwrap(), second);
        let unseen = walk(&tree, "ads/clicks/.terrace/usage").await;
        assert!(matches!(unseen, Err(FsError::Store(_))), "{unseen:?}");
        let listed = names(&tree, "ads/clicks/.terrace").await;
        assert_eq!(listed, ["heat.json", "manifest", "version.json"]);
    });
}
