//! Table-driven tests of the attribute grammar.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

fn parse(pairs: &[(&str, &str)]) -> Result<VolumeRequest, AttributeError> {
    let attributes = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    VolumeRequest::parse(&attributes)
}

// The four kinds of volume are what a StorageClass can say; each has to be reachable.
#[test]
fn reads_every_kind() {
    let dataset = parse(&[
        ("dataset", "ads.clicks@v12"),
        ("warm", "full"),
        ("pin", "true"),
        ("mode", "auto"),
    ])
    .unwrap();
    assert_eq!(
        dataset.source,
        VolumeSource::Dataset("ads.clicks@v12".parse().unwrap())
    );
    assert_eq!((dataset.warm, dataset.pin), (WarmUp::Full, true));
    assert_eq!(dataset.mode, PublishMode::Auto);
    let directory = parse(&[
        ("directory", "home/alice"),
        ("durability", "local"),
        ("tenant", "vision-2"),
    ])
    .unwrap();
    assert_eq!(directory.durability.rules(), ["fsync=local"]);
    assert_eq!(directory.tenant.unwrap().as_str(), "vision-2");
    let VolumeSource::Directory(path) = directory.source else {
        panic!("not a directory")
    };
    assert_eq!((path.as_str(), path.absolute()), ("home/alice", None));
    let whole: DirectoryPath = "file:///mnt/pfs/home".parse().unwrap();
    assert_eq!(whole.absolute(), Some("/mnt/pfs/home"));
    let model = parse(&[("model", "team/churn@v3")]).unwrap();
    let VolumeSource::Model(name) = model.source else {
        panic!("not a model")
    };
    assert_eq!(
        (name.name(), name.version()),
        ("team/churn", &VersionRef::Number(3))
    );
    let scratch = parse(&[("scratch", "true")]).unwrap();
    assert_eq!(
        (scratch.source, scratch.durability),
        (VolumeSource::Scratch, Durability::default())
    );
}

// A volume of two kinds, or of none, would be whatever the code happened to look at first.
#[test]
fn wants_exactly_one_kind() {
    assert_eq!(parse(&[]), Err(AttributeError::Kind));
    assert_eq!(parse(&[("pin", "true")]), Err(AttributeError::Kind));
    assert_eq!(
        parse(&[("dataset", "a.b"), ("scratch", "true")]),
        Err(AttributeError::Kind)
    );
}

// An ignored attribute is a promise nobody keeps, a passed-on one is a hole.
#[test]
fn refuses_what_it_does_not_know() {
    for pairs in [
        [("dataset", "a.b"), ("cache-dir", "/etc")],
        [("dataset", "a.b"), ("durability", "local")],
        [("model", "a/b"), ("durability", "shared")],
        [("directory", "home/a"), ("durability", "cold")],
        [("directory", "home/a"), ("cold", "bucket")],
        [("directory", "home/a"), ("cold", "s3://a b/c")],
        [("directory", "home/a"), ("tierPolicy", "older_than: 1d")],
        [("dataset", "a.b"), ("cold", "s3://bucket/x")],
        [("scratch", "true"), ("tierPolicy", "older_than: 1d")],
        [
            ("directory", "home/a"),
            ("durability", "fsync=local;x/**:close=cold"),
        ],
        [("directory", "home/a"), ("durability", "fsync=local;")],
        [("directory", "home/a"), ("durability", "")],
        [("directory", "home/a"), ("tenant", "Vision")],
        [("directory", "home/a"), ("tenant", "a/b")],
        [("scratch", "true"), ("tenant", "vision")],
        [("dataset", "a.b"), ("pin", "yes")],
        [("scratch", "true"), ("warm", "full")],
        [("scratch", "true"), ("mode", "native")],
        [("dataset", "a.b"), ("mode", "rw")],
        [("directory", "home/a"), ("durability", "forever")],
        [("directory", "home/a"), ("pin", "true")],
    ] {
        assert!(parse(&pairs).is_err(), "{pairs:?} was accepted");
    }
    assert!(parse(&[("scratch", "false")]).is_err());
    assert!(parse(&[("dataset", "a.b"), ("csi.storage.k8s.io/ephemeral", "true")]).is_ok());
}

// The rules of a volume are what its mount is asked for: one that is lost on the way is a promise less.
#[test]
fn rules_of_durability_come_apart_at_semicolons() {
    let text = "ckpt/**:fsync=local,close=local; fsync=shared";
    let directory = parse(&[("directory", "home/a"), ("durability", text)]).unwrap();
    assert_eq!(directory.durability.as_str(), text);
    assert_eq!(
        directory.durability.rules(),
        ["ckpt/**:fsync=local,close=local", "fsync=shared"]
    );
    let usual = parse(&[("directory", "home/a")]).unwrap().durability;
    assert_eq!((usual.as_str(), usual.rules()), ("shared", Vec::new()));
}

// A directory attribute becomes a path of the shared file system: one tenant's must never reach another's.
#[test]
fn directories_stay_below_their_root() {
    for bad in [
        "",
        "/",
        "/etc",
        "home/",
        "home//a",
        "..",
        "home/..",
        "home/../x",
        ".ssh",
        "home/.ssh",
        "a\0b",
        "a b",
        "a\\..\\b",
        "%2e%2e/x",
        "file://",
        "file:///",
        "file://host/a",
        "file:///mnt/../etc",
        "file:///mnt//a",
        "file:///mnt/./a",
        "s3://bucket/a",
    ] {
        assert!(
            parse(&[("directory", bad)]).is_err(),
            "{bad:?} was accepted"
        );
    }
    for bad in [
        "churn",
        "team/churn/x",
        "team/",
        "../churn",
        "team/churn@",
        "team/churn@v0",
        "Team/x",
    ] {
        assert!(parse(&[("model", bad)]).is_err(), "{bad:?} was accepted");
    }
}

proptest! {
    // Attributes come from users of the cluster: any text is answered, none escapes.
    #[test]
    fn any_text_is_answered(key in any::<String>(), value in any::<String>()) {
        let _ = parse(&[(&key, &value)]);
        if let Ok(path) = value.parse::<DirectoryPath>() {
            let below = path.absolute().map_or(path.as_str(), |path| &path[1..]);
            prop_assert!(below.split('/').all(|part| !matches!(part, "" | "." | "..")));
        }
    }
}
