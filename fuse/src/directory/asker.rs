//! The thread behind a request, where user and group of the request are not enough to judge it.
//!
//! Whoever sets an access list (ACL) of a file without being of the file's group takes its set-group-ID
//! bit away, as whoever changes its mode does. For a mode the kernel judges that and says it in the
//! request. For a list it says it in a longer form of SETXATTR (`FUSE_SETXATTR_EXT`), which the library
//! takes for a damaged request; so it is judged here. So is fallocate(2) on a file that its group cannot
//! execute, where the kernel's FUSE takes the other set-ID bits away and leaves this one.
//!
//! The thread that asks waits in its system call until it is answered: what `/proc` tells of its groups
//! and capabilities is what the kernel would judge it by. A thread that cannot be seen (of another
//! name space) has the group of its request alone.

/// CAP_FSETID of capabilities(7).
const FSETID: u64 = 1 << 4;

/// Who asks, and which thread of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// User of its requests.
    pub(crate) uid: u32,
    /// Group of its requests.
    pub(crate) gid: u32,
    /// Number of the thread; zero when it cannot be seen.
    pub(crate) thread: u32,
}

impl Asker {
    /// Whether a file of this group keeps its set-group-ID bit when the asker changes who may do what.
    pub(super) fn may_set_id(self, group: u32) -> bool {
        if self.gid == group {
            return true;
        }
        let path = format!("/proc/{}/status", self.thread);
        match std::fs::read_to_string(path) {
            Ok(status) => may_set_id(self.uid, group, &status),
            Err(_) => self.uid == 0,
        }
    }
}

/// The same, of a thread with this `/proc/PID/status`. A capability that is not root's may be of a user
/// name space that does not know the file's group.
fn may_set_id(uid: u32, group: u32, status: &str) -> bool {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let groups = field("Groups:").unwrap_or_default();
    let capabilities = field("CapEff:").unwrap_or_default().trim();
    let is_member = groups
        .split_ascii_whitespace()
        .any(|of| of.parse() == Ok(group));
    let is_able = u64::from_str_radix(capabilities, 16).is_ok_and(|able| able & FSETID != 0);
    is_member || uid == 0 && is_able
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it somebody would keep, or lose, a privilege of a group by the groups of others.
    #[test]
    fn membership_is_read_from_the_threads_own_lines() {
        let status = |groups, able| {
            format!(
                "Name:\tsetfacl\nGid:\t5\t5\t5\t5\nGroups:\t{groups} \nCapInh:\t10\nCapEff:\t{able}\n"
            )
        };
        let (none, all) = ("0000000000000000", "000001ffffffffff");
        assert!(may_set_id(100, 27, &status("4 27", none)));
        assert!(!may_set_id(100, 7, &status("4 27", none)));
        assert!(!may_set_id(100, 5, &status("", none)));
        assert!(may_set_id(0, 7, &status("", all)));
        assert!(!may_set_id(0, 7, &status("", none)));
        assert!(!may_set_id(100, 7, &status("", all)));
        assert!(!may_set_id(100, 7, ""));
    }
}
