//! Names in the warm directory; see the module text of [`super`].

use std::path::{Path, PathBuf};

use super::format::Owner;
use crate::identity::Digest;

/// The warm directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// What a file in a shard directory is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Sum,
    Lease,
    /// A temporary file of an owner, in hexadecimal.
    Part(String),
    Foreign,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn sweep_lease(&self) -> PathBuf {
        self.root.join("sweep.lease")
    }

    /// The directory of objects whose digest begins with `byte`.
    pub(super) fn shard(&self, byte: u8) -> PathBuf {
        self.objects().join(format!("{byte:02x}"))
    }

    pub(super) fn data(&self, digest: &Digest) -> PathBuf {
        self.shard(digest.0[0]).join(digest.hex())
    }

    pub(super) fn sum(&self, digest: &Digest) -> PathBuf {
        self.named(digest, "sum")
    }

    /// Whether the files of a copy are there. Blocking.
    pub(super) fn has(&self, digest: &Digest, length: u64) -> bool {
        let data = std::fs::symlink_metadata(self.data(digest));
        let whole = data.is_ok_and(|data| data.is_file() && data.len() == length);
        length == 0 || whole && std::fs::symlink_metadata(self.sum(digest)).is_ok()
    }

    pub(super) fn lease(&self, digest: &Digest) -> PathBuf {
        self.named(digest, "lease")
    }

    pub(super) fn part(&self, digest: &Digest, owner: &Owner) -> PathBuf {
        self.named(digest, &format!("{}.part", hex(owner)))
    }

    /// Where the sums are written before they are renamed.
    pub(super) fn sum_part(&self, digest: &Digest, owner: &Owner) -> PathBuf {
        self.named(digest, &format!("{}.sum.part", hex(owner)))
    }

    fn named(&self, digest: &Digest, suffix: &str) -> PathBuf {
        self.shard(digest.0[0])
            .join(format!("{}.{suffix}", digest.hex()))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes a file name apart into the digest (in hexadecimal) and what the file is.
pub(super) fn classify(name: &str) -> (&str, Kind) {
    let is_hex = |text: &str, len| {
        text.len() == len
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let (digest, rest) = name.split_once('.').unwrap_or((name, ""));
    if !is_hex(digest, 64) {
        return (name, Kind::Foreign);
    }
    let kind = match rest {
        "" if name.len() == 64 => Kind::Data,
        "sum" => Kind::Sum,
        "lease" => Kind::Lease,
        _ => match rest.split_once('.') {
            Some((owner, "part" | "sum.part")) if is_hex(owner, 32) => Kind::Part(owner.into()),
            _ => Kind::Foreign,
        },
    };
    (digest, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this, the sweep would remove files it did not make, or miss its own.
    #[test]
    fn names_are_told_apart() {
        let layout = Layout::new(Path::new("/warm"));
        let digest = Digest([0xab; 32]);
        let name = |path: PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
        for (path, kind) in [
            (layout.data(&digest), Kind::Data),
            (layout.sum(&digest), Kind::Sum),
            (layout.lease(&digest), Kind::Lease),
            (layout.part(&digest, &[1; 16]), Kind::Part("01".repeat(16))),
            (
                layout.sum_part(&digest, &[1; 16]),
                Kind::Part("01".repeat(16)),
            ),
        ] {
            let name = name(path).unwrap_or_default();
            assert_eq!(classify(&name), (digest.hex().as_str(), kind));
        }
        let long = format!("{}.", digest.hex());
        for foreign in ["", "README", "..", &long, &long.replace('a', "A")] {
            assert_eq!(classify(foreign).1, Kind::Foreign, "{foreign}");
        }
    }
}
