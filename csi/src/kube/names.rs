//! Names, labels and annotations that users see, and names of objects made from those of datasets.
//!
//! ```text
//! label       terrace.io/datasets      on a namespace: all, list, a catalog namespace or one dataset
//! annotation  terrace.io/datasets      on a namespace with the label `list`: selectors and namespaces
//! annotation  terrace.io/register      on a namespace: catalog namespaces its resources may register in
//! annotation  terrace.io/mount         on a pod: what is mounted where
//! annotation  terrace.io/schedule      on a pod: preferred (default), required or ignore
//! annotation  terrace.io/resolved      on a pod: what the webhook mounted, written by it
//! annotation  terrace.io/when-node-gone    on a scratch volume: keep or delete
//! annotation  terrace.io/node-gone-since   on a scratch volume: written by the controller
//! taint       terrace.io/agent-not-ready   on a node: pods stay away until its drivers are registered
//! label       app.kubernetes.io/managed-by=terrace-controller   what the controller made, and removes
//! ```
//!
//! A dataset's name may have `_` and end in `-`, which names of objects may not. Such a name gets its
//! refused characters replaced and a digest behind it, so that two datasets never share an object.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use terrace_catalog::Selector;

/// Driver of datasets.
pub const DATA_DRIVER: &str = "data.terrace.io";
/// Driver of scratch volumes.
pub const LOCAL_DRIVER: &str = "local.terrace.io";

/// See the module text.
pub(crate) const DATASETS_KEY: &str = "terrace.io/datasets";
/// See the module text.
pub(crate) const REGISTER_KEY: &str = "terrace.io/register";
/// See the module text.
pub(crate) const MOUNT_KEY: &str = "terrace.io/mount";
/// See the module text.
pub(crate) const SCHEDULE_KEY: &str = "terrace.io/schedule";
/// See the module text.
pub(crate) const RESOLVED_KEY: &str = "terrace.io/resolved";
/// See the module text.
pub(crate) const WHEN_GONE_KEY: &str = "terrace.io/when-node-gone";
/// See the module text.
pub(crate) const GONE_SINCE_KEY: &str = "terrace.io/node-gone-since";
/// See the module text.
pub(crate) const NOT_READY_TAINT: &str = "terrace.io/agent-not-ready";
/// Which dataset or selector an object of ours is about.
pub(crate) const SELECTOR_KEY: &str = "terrace.io/selector";
/// Description of the dataset that a resource registers.
pub(crate) const DESCRIPTION_KEY: &str = "terrace.io/description";

const MANAGED_KEY: &str = "app.kubernetes.io/managed-by";
const MANAGED_VALUE: &str = "terrace-controller";

/// Longest name of an object that is kept readable; the limit of Kubernetes is 253.
const READABLE_MAX: usize = 200;

/// The label of everything that the controller makes.
pub(crate) fn managed_label() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([(MANAGED_KEY, MANAGED_VALUE)])
}

/// Whether the controller made an object with these labels.
pub(crate) fn is_managed(labels: &BTreeMap<String, String>) -> bool {
    labels
        .get(MANAGED_KEY)
        .is_some_and(|value| value == MANAGED_VALUE)
}

/// The name of a resource or a claim for a selector, in a namespace of its own.
pub(crate) fn object_name(selector: &Selector) -> String {
    let text = selector.to_string();
    let plain = text.replace('@', "-");
    // `a.b@v1` and the dataset `a.b-v1` would be one name.
    match is_object_name(&plain) && !text.contains('@') {
        true => plain,
        false => {
            let kept: String = plain.chars().map(readable).take(READABLE_MAX).collect();
            // A label of the name begins and ends with a letter or a digit.
            let labels = kept.split('.').map(|label| label.trim_matches('-'));
            let labels: Vec<&str> = labels.filter(|label| !label.is_empty()).collect();
            format!("{}-{}", labels.join("."), digest(&text, 8))
        }
    }
}

fn readable(c: char) -> char {
    match c {
        'a'..='z' | '0'..='9' | '.' | '-' => c,
        _ => '-',
    }
}

/// A DNS subdomain (RFC 1123) of Kubernetes.
pub(crate) fn is_object_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|byte| plain(*byte))
            && bytes.last().is_some_and(|byte| plain(*byte))
            && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The name of the volume behind the claim of a namespace: volumes have no namespace.
pub(crate) fn volume_name(namespace: &str, selector: &Selector) -> String {
    format!("terrace-{}", digest(&format!("{namespace}/{selector}"), 32))
}

/// The name of a volume in a pod, from where it is mounted: at most 63 characters.
pub(crate) fn pod_volume_name(mount_path: &str) -> String {
    format!("terrace-{}", digest(mount_path, 16))
}

/// The first `digits` hexadecimal digits of the SHA-256 of a text.
pub(crate) fn digest(text: &str, digits: usize) -> String {
    let bytes = Sha256::digest(text);
    let mut hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn name(selector: &str) -> String {
        object_name(&selector.parse().unwrap())
    }

    // A name that an API server refuses is a dataset that never appears; one that two datasets share is
    // the data of the wrong one.
    #[test]
    fn names_are_good_and_different() {
        assert_eq!(name("ads.clicks"), "ads.clicks");
        let all = [
            "ads.clicks",
            "ads.clicks@v1",
            "ads.clicks-v1",
            "ads.clicks_v1",
            "ads.clicks-",
            "ads-.clicks",
            "ads_.clicks",
            "ads.clicks@prod",
            "a.b@v1.2",
            "a.b",
        ];
        let made: std::collections::BTreeSet<String> = all.iter().map(|text| name(text)).collect();
        assert_eq!(made.len(), all.len(), "{made:?}");
        assert!(made.iter().all(|name| is_object_name(name)), "{made:?}");
        let long = format!("{}.{}@v1", "a".repeat(64), "b_".repeat(32));
        assert!(is_object_name(&name(&long)));
        assert!(pod_volume_name("/data").len() <= 63);
        assert!(
            volume_name("ml", &"a.b".parse().unwrap())
                .parse::<crate::VolumeId>()
                .is_ok()
        );
    }

    proptest! {
        // Whatever a dataset may be called, its objects can be made.
        #[test]
        fn every_dataset_has_a_name(
            text in "[a-z0-9][a-z0-9_-]{0,63}\\.[a-z0-9][a-z0-9_-]{0,63}(@v[1-9]|@[a-z][a-z0-9_.-]{0,5}[a-z])?",
        ) {
            if let Ok(selector) = text.parse::<Selector>() {
                let name = object_name(&selector);
                prop_assert!(is_object_name(&name), "{}", name);
            }
        }
    }
}
