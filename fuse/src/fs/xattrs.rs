//! Extended attributes and statfs.
//!
//! Absent attributes are ENODATA, never ENOSYS: that would switch extended attributes off for the
//! whole mount.

use std::os::unix::ffi::OsStringExt;

use terrace_cache::hot::Residency;

use super::FileSystem;
use super::node::Node;
use crate::namespace::FsError;

const TIER: &str = "user.terrace.tier";
const CACHE_PATH: &str = "user.terrace.cachepath";

/// Sizes of a mount for statfs(2). Nothing of a read-only tree is available to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of all files; where that is not known, what the hot tier may use.
    pub bytes: u64,
    /// Bytes of them that nothing lies in: what is left of the hot tier, or 0.
    pub free: u64,
    /// Number of files; 0 where it is not known.
    pub files: u64,
}

impl FileSystem {
    /// Value of an extended attribute.
    ///
    /// `user.terrace.tier`: `hot` (complete on this node), `partial`, or `cold`;
    /// `user.terrace.cachepath`: the file of a complete object; the others are the name space's.
    pub fn xattr(&self, node: u64, name: &[u8]) -> Result<Vec<u8>, FsError> {
        if !name.starts_with(b"user.") {
            return Err(FsError::NoAttribute);
        }
        let all = self.xattrs(node)?;
        let found = all.into_iter().find(|(known, _)| known.as_bytes() == name);
        found.map(|(_, value)| value).ok_or(FsError::NoAttribute)
    }

    /// Names of all extended attributes, each ended by a NUL as listxattr(2) wants them.
    pub fn xattr_names(&self, node: u64) -> Result<Vec<u8>, FsError> {
        let mut names = Vec::new();
        for (name, _) in self.xattrs(node)? {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        Ok(names)
    }

    /// Sizes for statfs(2).
    pub fn totals(&self) -> Totals {
        let (bytes, files) = self.namespace.totals();
        if (bytes, files) != (0, 0) {
            let free = 0;
            return Totals { bytes, free, files };
        }
        // What a live prefix holds is only known once all of it was listed, and df(1) leaves out what
        // has no blocks. What can be said of it is how full the disk is that serves it.
        let usage = self.cache.hot().usage();
        Totals {
            bytes: usage.limit_bytes,
            free: usage.limit_bytes.saturating_sub(usage.used_bytes),
            files: 0,
        }
    }

    fn xattrs(&self, node: u64) -> Result<Vec<(String, Vec<u8>)>, FsError> {
        let ino = Node(node).ino();
        let mut all = self.namespace.attributes(ino)?;
        // Directories and links have no bytes and so no tier.
        if let Ok(object) = self.namespace.object(ino) {
            let present = match self.cache.hot().peek(&object.digest()) {
                Some(Residency::Complete) => object.size(),
                // A complete object counts as partial until it is synced.
                Some(Residency::Partial { present_bytes }) => present_bytes.min(object.size()),
                None => 0,
            };
            let tier: &[u8] = match present {
                0 => b"cold",
                present if present < object.size() => b"partial",
                _ => b"hot",
            };
            if tier == b"hot"
                && let Some(backing) = self.object_of(ino)?.backing()
            {
                let path = backing.path().into_os_string().into_vec();
                all.push((CACHE_PATH.to_owned(), path));
            }
            all.push((TIER.to_owned(), tier.to_vec()));
        }
        Ok(all)
    }
}
