//! Which keys of a store can be paths of a file system.
//!
//! A store allows names that no path walk can reach (`a//b`, `..`, 300 bytes in one segment). They
//! are hidden from listings or refused, always counted, and never "repaired": two keys must not
//! share one path.

/// Longest file name in bytes, as pathconf(3) promises it.
pub(crate) const NAME_MAX: usize = 255;

/// Longest path in bytes below a mount. Above it no single system call can name the entry.
pub(crate) const PATH_MAX: usize = 4095;

/// Why a name cannot be a file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing between two slashes, or nothing at all.
    #[error("empty path segment")]
    Empty,
    /// `.` or `..`.
    #[error("path segment is `.` or `..`")]
    Dots,
    /// More than 255 bytes in a segment, or more than 4095 in the path.
    #[error("name is too long for a file system")]
    TooLong,
    /// A NUL byte or, in a single segment, a slash.
    #[error("name contains a NUL byte or a slash")]
    Byte,
}

/// Checks one path segment.
pub(crate) fn check_segment(name: &[u8]) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name == b"." || name == b".." {
        return Err(BadName::Dots);
    }
    if name.len() > NAME_MAX {
        return Err(BadName::TooLong);
    }
    if name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(BadName::Byte);
    }
    Ok(())
}

/// Checks every segment of a relative path, and its length.
pub(crate) fn check_path(path: &str) -> Result<(), BadName> {
    if path.len() > PATH_MAX {
        return Err(BadName::TooLong);
    }
    path.split('/')
        .try_for_each(|segment| check_segment(segment.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: a hostile key becomes a name the kernel would resolve differently.
    #[test]
    fn hostile_segments_are_told_apart() {
        let long = "x".repeat(256);
        for (path, expected) in [
            ("", Err(BadName::Empty)),
            ("a//b", Err(BadName::Empty)),
            ("/a", Err(BadName::Empty)),
            ("a/", Err(BadName::Empty)),
            ("a/./b", Err(BadName::Dots)),
            ("../a", Err(BadName::Dots)),
            ("a\0b", Err(BadName::Byte)),
            (long.as_str(), Err(BadName::TooLong)),
            ("...", Ok(())),
            ("a/b c/\u{e9}\n", Ok(())),
        ] {
            assert_eq!(check_path(path), expected, "{path:?}");
        }
        assert_eq!(check_path(&"a/".repeat(2048)), Err(BadName::TooLong));
    }
}
