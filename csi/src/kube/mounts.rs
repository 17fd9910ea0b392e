//! The annotation `terrace.io/mount` of a pod.
//!
//! ```text
//! annotation = mount *( "," mount )            at most 16
//! mount      = selector [ ":" path ]           without a path: /data/NAMESPACE/TABLE
//! path       = "/" segment *( "/" segment )    absolute and clean, at most 512 bytes
//! segment    = 1*255( A-Z a-z 0-9 . _ - )      not "." and not ".."
//! ```
//!
//! A path comes from whoever may make pods and ends in a mount call of their own container; it is kept
//! clean all the same, so that two spellings are not two mounts, and away from what a container needs to
//! live. A selector has no `:` and no `,`, so the parts cannot be confused.

use std::collections::BTreeSet;

use terrace_catalog::{NameError, Selector};

/// Most mounts of one pod.
pub(crate) const MOUNTS_MAX: usize = 16;

/// Longest annotation that is looked at, in bytes.
const TEXT_MAX: usize = 16 << 10;

/// Longest path, in bytes.
const PATH_MAX: usize = 512;

/// Longest segment of a path, in bytes.
const SEGMENT_MAX: usize = 255;

/// Where a mount would hide what every container needs.
const RESERVED: [&str; 7] = ["/bin", "/dev", "/etc", "/lib", "/proc", "/sys", "/var/run"];

/// Why an annotation is refused. The message quotes what was written, shortened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountError {
    #[error("it is longer than {TEXT_MAX} bytes")]
    TooLong,
    #[error("it names more than {MOUNTS_MAX} mounts")]
    TooMany,
    #[error("it names nothing; write namespace.table@version:/path")]
    Empty,
    #[error(transparent)]
    Selector(#[from] NameError),
    #[error(
        "{0:?} is not a path to mount at: write an absolute one of letters, digits, '.', '_' and '-', \
         without '.' and '..' as parts"
    )]
    Path(String),
    #[error("{0:?} belongs to the container itself; mount below /data")]
    Reserved(String),
    #[error("{0:?} is named twice, or lies below another mount")]
    Twice(String),
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountRequest {
    /// What is mounted.
    pub(crate) selector: Selector,
    /// Where, in every container.
    pub(crate) path: String,
}

/// Reads the annotation.
pub(crate) fn parse(text: &str) -> Result<Vec<MountRequest>, MountError> {
    if text.len() > TEXT_MAX {
        return Err(MountError::TooLong);
    }
    let mut mounts: Vec<MountRequest> = Vec::new();
    let mut paths = BTreeSet::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        if mounts.len() == MOUNTS_MAX {
            return Err(MountError::TooMany);
        }
        let mount = one(part)?;
        let below = |a: &str, b: &str| a.starts_with(b) && a[b.len()..].starts_with('/');
        let nested = |path: &String| below(path, &mount.path) || below(&mount.path, path);
        if paths.iter().any(nested) || !paths.insert(mount.path.clone()) {
            return Err(MountError::Twice(shortened(&mount.path)));
        }
        mounts.push(mount);
    }
    match mounts.is_empty() {
        true => Err(MountError::Empty),
        false => Ok(mounts),
    }
}

fn one(text: &str) -> Result<MountRequest, MountError> {
    let (selector, path) = match text.split_once(':') {
        Some((selector, path)) => (selector, Some(path)),
        None => (text, None),
    };
    let selector: Selector = selector.parse()?;
    let path = match path {
        Some(path) => check(path)?.to_owned(),
        None => {
            let dataset = selector.dataset();
            format!("/data/{}/{}", dataset.namespace(), dataset.table())
        }
    };
    Ok(MountRequest { selector, path })
}

fn check(path: &str) -> Result<&str, MountError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let segment = |segment: &str| {
        (1..=SEGMENT_MAX).contains(&segment.len())
            && segment != "."
            && segment != ".."
            && segment.bytes().all(plain)
    };
    let rest = path.strip_prefix('/').filter(|_| path.len() <= PATH_MAX);
    if !rest.is_some_and(|rest| rest.split('/').all(segment)) {
        return Err(MountError::Path(shortened(path)));
    }
    let within = |place: &&&str| path == **place || path.starts_with(&format!("{place}/"));
    match RESERVED.iter().find(within) {
        Some(_) => Err(MountError::Reserved(shortened(path))),
        None => Ok(path),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // What users write has one meaning, whatever spaces they put in.
    #[test]
    fn mounts_are_read() {
        let found = parse("ads.clicks@v12:/data/clicks, ml.images ,").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].selector.to_string(), "ads.clicks@v12");
        assert_eq!(found[0].path, "/data/clicks");
        assert_eq!(found[1].path, "/data/ml/images");
        assert!(parse("a.b:/x/y,a.b:/x/z").is_ok(), "neighbours");
        assert!(parse("a.b:/data\n").is_ok(), "the end of a block of YAML");
    }

    // A path that leaves its place, hides the container's own files or reaches another mount is how
    // annotations have been turned against clusters.
    #[test]
    fn hostile_annotations_are_refused() {
        let long = format!("a.b:/{}", "x".repeat(300));
        let deep = format!("a.b:/{}", "x/".repeat(300));
        let name = format!("{}.b:/d", "a".repeat(300));
        let many = vec!["a.b"; 17].join(",");
        let huge = ",".repeat(TEXT_MAX + 1);
        for bad in [
            "",
            " , ,",
            "a.b:",
            "a.b:/",
            "a.b:data",
            "a.b:../x",
            "a.b:/../etc",
            "a.b:/data/..",
            "a.b:/data/../../etc",
            "a.b:/data/.",
            "a.b://data",
            "a.b:/data/",
            "a.b:/a:/b",
            "a.b:/data\0",
            "a.b:/da ta",
            "a.b:/da\nta",
            "a.b:/d\u{e4}ta",
            "a.b:/etc",
            "a.b:/etc/passwd.d",
            "a.b:/proc/1",
            "a.b:/dev/shm",
            "a.b:/var/run/secrets",
            "a:/x",
            "../a.b:/x",
            "a/b.c:/x",
            "A.b:/x",
            "a.b@:/x",
            "a.b@../v1:/x",
            "a.b@v0:/x",
            "a.b:/x,c.d:/x",
            "a.b:/x,c.d:/x/y",
            "a.b:/x/y,c.d:/x",
            &long,
            &deep,
            &name,
            &many,
            &huge,
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.to_string().len() < 400, "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    proptest! {
        // Annotations come from everybody who may make a pod.
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            if let Ok(mounts) = parse(&text) {
                prop_assert!(mounts.iter().all(|mount| check(&mount.path).is_ok() ));
            }
        }
    }
}
