//! The table of what is mounted, as the kernel writes it in `/proc/self/mountinfo`
//! (proc_pid_mountinfo(5)). A line that has not its form is left out: any user may name a mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::MountError;

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Number of the mount, unique while it exists.
    pub id: u64,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// Directory of the file system that the mount shows.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Options of this mount: `rw,nosuid`.
    pub options: String,
    /// `ext4`, `xfs`, `fuse.terrace`.
    pub fs_type: String,
    /// Device or name of the file system.
    pub source: OsString,
    /// Options of the file system: `rw,prjquota`.
    pub super_options: String,
}

impl MountEntry {
    /// Whether the mount, or its file system, has the option: `ro`, `prjquota`.
    pub fn has_option(&self, option: &str) -> bool {
        let both = [&self.options, &self.super_options];
        both.iter().any(|list| list.split(',').any(|o| o == option))
    }
}

/// Everything that is mounted in this mount name space, in the kernel's order.
pub fn mount_table() -> Result<Vec<MountEntry>, MountError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(path).map_err(|source| MountError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse_line).collect())
}

/// The mount that `path` lies on: the last of those with the longest target above it. The path
/// must have no links.
pub fn mount_of<'a>(entries: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    let above = entries
        .iter()
        .filter(|entry| path.starts_with(&entry.target));
    above.max_by_key(|entry| entry.target.components().count())
}

/// `id parent major:minor root target options [tags...] - type source super-options`.
pub(super) fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = text(fields.next()?)?.parse().ok()?;
    let (major, minor) = text(fields.nth(1)?)?.split_once(':')?;
    let root = PathBuf::from(unescape(fields.next()?));
    let target = PathBuf::from(unescape(fields.next()?));
    let options = text(fields.next()?)?.to_owned();
    fields.find(|field| *field == b"-")?;
    Some(MountEntry {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root,
        target,
        options,
        fs_type: text(fields.next()?)?.to_owned(),
        source: unescape(fields.next()?),
        super_options: text(fields.next()?)?.to_owned(),
    })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// Undoes the kernel's escapes: blank, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            let digits = text(digits)?;
            u8::from_str_radix(digits, 8).ok()
        });
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(out)
}
