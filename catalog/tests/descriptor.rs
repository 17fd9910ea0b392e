//! Resource files: what is understood, what is refused, and how an error reads.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proptest::prelude::*;
use terrace_catalog::descriptor::{
    Completion, Descriptor, DescriptorError, Format, Kind, Layout, Storage, WarmTier,
};

const FULL: &str = r#"
# A comment, as people write them.
apiVersion: terrace.io/v1
kind: Dataset
metadata:
  name: ads.clicks
  description: |
    Clicks as the web servers log them.
    "Quoted", and with a colon: here.
  labels: {team: ads, tier: "1"}
spec:
  source: hdfs://nn/warehouse/ads.db/clicks/
  format: parquet
  layout: flat
  sync:
    completion: quiescence
    marker: _DONE
    quietFor: 90s
    interval: 1h
  storage: managed
  versions: {keep: 100, keepFor: 90d}
  access:
    read: ["*"]
    publish: [etl, "group:data"]
  serve: {sql: false}
  warm: {tier: full, pin: true}
"#;

// A key that is read as another one makes a policy that nobody wrote.
#[test]
fn every_key_is_understood() {
    let descriptor = Descriptor::parse(FULL).unwrap();
    assert_eq!(descriptor.kind, Kind::Dataset);
    assert_eq!(descriptor.name.as_str(), "ads.clicks");
    assert!(descriptor.description.contains("colon: here."));
    assert_eq!(descriptor.labels["tier"], "1");
    assert_eq!(descriptor.source, "hdfs://nn/warehouse/ads.db/clicks");
    assert_eq!(
        (descriptor.format, descriptor.layout),
        (Format::Parquet, Layout::Flat)
    );
    assert_eq!(descriptor.sync.completion, Completion::Quiescence);
    assert_eq!(descriptor.sync.marker, "_DONE");
    assert_eq!(descriptor.sync.quiet_for, Duration::from_secs(90));
    assert_eq!(descriptor.sync.interval, Duration::from_secs(3600));
    assert_eq!(descriptor.storage, Storage::Managed);
    assert_eq!(descriptor.versions.keep, Some(100));
    assert_eq!(
        descriptor.versions.keep_for,
        Some(Duration::from_secs(90 * 86_400))
    );
    assert_eq!(descriptor.access.publish, ["etl", "group:data"]);
    assert_eq!(
        (descriptor.serve.sql, descriptor.serve.huggingface),
        (false, true)
    );
    assert_eq!(
        (descriptor.warm.tier, descriptor.warm.pin),
        (WarmTier::Full, true)
    );

    // Out and in again, both ways.
    assert_eq!(
        Descriptor::parse(&descriptor.to_yaml()).unwrap(),
        descriptor
    );
    assert_eq!(
        Descriptor::parse(&descriptor.to_value().to_string()).unwrap(),
        descriptor
    );
    assert_eq!(
        Descriptor::from_value(descriptor.to_value()).unwrap(),
        descriptor
    );
    let least = "{apiVersion: terrace.io/v1, kind: Model, metadata: {name: team.churn}}";
    let least = Descriptor::parse(least).unwrap();
    assert_eq!(
        least,
        Descriptor::new(Kind::Model, "team.churn".parse().unwrap(), "")
    );
    assert_eq!(Descriptor::parse(&least.to_yaml()).unwrap(), least);
}

/// What is replaced in the file above, by what, and what the error says.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "quietFor",
        "quietfor",
        "unknown key spec.sync.quietfor, did you mean \"quietFor\"?",
    ),
    (
        "storage: m",
        "storrage: m",
        "unknown key spec.storrage, did you mean \"storage\"?",
    ),
    (
        "kind: D",
        "knd: D",
        "unknown key knd, did you mean \"kind\"?",
    ),
    ("format: parquet", "banana: 1", "unknown key spec.banana"),
    (
        "format: parquet",
        "format: parkett",
        "spec.format: unknown variant",
    ),
    (
        "name: ads.clicks",
        "name: Ads",
        "metadata.name: \"Ads\" is not a dataset name",
    ),
    ("90s", "90 seconds", "spec.sync.quietFor: not a time"),
    (
        "keep: 100",
        "keep: 0",
        "spec.versions.keep: write at least 1",
    ),
    (
        "keep: 100",
        "keep: many",
        "spec.versions.keep: invalid type",
    ),
    (
        "terrace.io/v1",
        "terrace.io/v2",
        "apiVersion: write terrace.io/v1",
    ),
    ("hdfs://nn/", "/data/", "spec.source: not a URL"),
    (
        "hdfs://nn/",
        "s3://key:secret@b/",
        "spec.source: credentials do not belong",
    ),
    ("_DONE", "../x", "spec.sync.marker: not the name of a file"),
    ("kind: Dataset", "kind: Table", "kind: unknown variant"),
    (
        "  source: hdfs://nn/warehouse/ads.db/clicks/\n",
        "",
        "spec.source: missing",
    ),
    (
        "{team: ads, tier: \"1\"}",
        "[a]",
        "metadata.labels: invalid type",
    ),
    ("layout: flat", "format: csv", "not YAML"),
    ("kind: Dataset", "kind: [", "not YAML"),
];

// A person who reads "invalid type" at line 0 asks somebody else.
#[test]
fn errors_say_where_and_what_to_write() {
    let with = |from: &str, to: &str| {
        assert!(FULL.contains(from), "{from}");
        Descriptor::parse(&FULL.replacen(from, to, 1))
            .unwrap_err()
            .to_string()
    };
    let mut broken = Vec::new();
    for (from, to, said) in WRONG {
        let error = with(from, to);
        if !error.contains(said) || error.len() > 400 || error.contains('\n') {
            broken.push(format!("{from} -> {to}: {error}"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    let large = format!("# {}", "x".repeat(1 << 20));
    assert!(matches!(
        Descriptor::parse(&large),
        Err(DescriptorError::TooLarge(_))
    ));
    // Aliases that multiply, and nesting without an end.
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(","));
    }
    assert!(Descriptor::parse(&bomb).is_err());
    assert!(Descriptor::parse(&"[".repeat(60_000)).is_err());
}

proptest! {
    // Files come from the network: no text may panic the parser.
    #[test]
    fn any_text_is_answered(text in any::<String>(), at in any::<prop::sample::Index>(), with in "[ -~\\n]{0,3}") {
        let _ = Descriptor::parse(&text);
        let mut changed = FULL.to_owned();
        changed.insert_str(at.index(FULL.len()), &with);
        if let Ok(descriptor) = Descriptor::parse(&changed) {
            prop_assert_eq!(Descriptor::parse(&descriptor.to_yaml()).unwrap(), descriptor);
        }
    }
}
