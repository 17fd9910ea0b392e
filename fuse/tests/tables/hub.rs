//! The Hugging Face tree: what `snapshot_download` offline and `from_pretrained` look at, step by step.
//! (The library itself reads a real mount in the tests of the binary.)

use terrace_fuse::namespace::{FsError, Kind, Namespace as _};

use crate::bytes;
use crate::script::{World, names, runtime, walk};

// Without it a model could not be loaded by name from the mount, or another version would be.
#[test]
fn a_revision_leads_to_its_version() {
    runtime().block_on(async {
        let world = World::new();
        let first = world.script.commit("team.churn", 1, &["config.json"]);
        world
            .script
            .commit("team.churn", 2, &["config.json", "model.bin"]);
        world.script.name("team.churn@prod", &first);
        let tree = world.mount();
        assert_eq!(names(&tree, "").await, ["team"], "found, not listed");
        let repository = ".hf/models--team--churn";
        let mut commits = Vec::new();
        for (revision, number) in [("main", 2), ("v1", 1), ("prod", 1), ("v2", 2)] {
            let file = walk(&tree, &format!("{repository}/refs/{revision}"))
                .await
                .unwrap();
            let commit = String::from_utf8(bytes(&tree, file.ino).await).unwrap();
            assert_eq!(commit.len(), 40, "{commit}");
            let link = walk(&tree, &format!("{repository}/snapshots/{commit}"))
                .await
                .unwrap();
            assert_eq!(link.kind, Kind::Symlink);
            let target = String::from_utf8(tree.link_target(link.ino).unwrap()).unwrap();
            assert_eq!(target, format!("../../../team/churn@v{number}"));
            assert_eq!(link.size, target.len() as u64);
            commits.push(commit);
        }
        assert_eq!((&commits[0], &commits[1]), (&commits[3], &commits[2]));
        assert_ne!(commits[0], commits[1]);
        // Libraries list `snapshots` to see whether a commit is there.
        let mut listed = names(&tree, &format!("{repository}/snapshots")).await;
        listed.sort_unstable();
        let mut expected = vec![commits[0].clone(), commits[1].clone()];
        expected.sort_unstable();
        assert_eq!(listed, expected);
        assert_eq!(names(&tree, repository).await, ["refs", "snapshots"]);
        let mut references = names(&tree, &format!("{repository}/refs")).await;
        references.sort_unstable();
        assert_eq!(references, ["main", "prod", "v1", "v2"]);
        assert_eq!(names(&tree, ".hf").await, ["models--team--churn"]);
        // A repository lists its newest version without having been asked for it.
        let fresh = names(&tree, ".hf/datasets--team--churn/snapshots").await;
        assert_eq!(fresh, [commits[0].clone()]);
        let forged = format!("{}2", &commits[1][..39]);
        for absent in [
            ".hf/models--team--none",
            ".hf/spaces--team--churn",
            ".hf/models--team",
            ".hf/models--team--churn/blobs",
            ".hf/models--team--churn/refs/latest",
            ".hf/models--team--churn/refs/v9",
            &format!("{repository}/snapshots/{forged}"),
            ".hf/models--team--churn/snapshots/main",
        ] {
            let found = walk(&tree, absent).await;
            assert!(
                matches!(found, Err(FsError::NotFound)),
                "{absent}: {found:?}"
            );
        }
    });
}
