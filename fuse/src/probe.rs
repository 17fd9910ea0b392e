//! Can the kernel read files of the hot directory itself (FUSE passthrough)?
//!
//! Asked once when a mount starts, never per open: the answer decides whether complete files are
//! opened for passthrough or served through the page cache of the mount, which is right on every
//! kernel, only slower. Needed: Linux 6.9 with `CONFIG_FUSE_PASSTHROUGH`, CAP_SYS_ADMIN in the
//! initial user namespace, and a hot directory on a file system that is not itself stacked twice.
//!
//! [`environment`] tells what can be told without a mount (for `terrace doctor`); [`confirm`] asks
//! the kernel by registering a file of the hot directory.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::fs::Kernel;

/// First kernel with FUSE passthrough.
const SINCE: (u32, u32) = (6, 9);

/// CAP_SYS_ADMIN in the capability masks of `/proc/self/status` (capabilities(7)).
const SYS_ADMIN: u32 = 21;

/// How deep file systems may be stacked below this one: the kernel's maximum, so that a hot
/// directory on overlayfs works too.
pub const STACK_DEPTH: u32 = 2;

/// Whether a mount should use passthrough.
#[derive(Clone, Debug)]
pub enum Passthrough {
    /// Yes, when the kernel agrees to read files of this directory.
    Wanted {
        /// The hot directory.
        directory: PathBuf,
    },
    /// No.
    Off(NoPassthrough),
}

/// Why complete files are not opened for passthrough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPassthrough {
    /// Switched off by the configuration.
    #[error("switched off by the configuration")]
    Disabled,
    /// The `small-files` profile has no opens, so none can be passthrough.
    #[error("the small-files profile does not use it")]
    SmallFiles,
    /// The kernel is too old.
    #[error("Linux {0} has none; use 6.9 or later")]
    Kernel(String),
    /// The kernel did not offer it when the mount started.
    #[error("the kernel does not offer it; it needs CONFIG_FUSE_PASSTHROUGH")]
    NotOffered,
    /// The process may not register files.
    #[error("it needs CAP_SYS_ADMIN; run the node as root or grant the capability")]
    Privilege,
    /// The kernel refused a file of the hot directory.
    #[error(
        "the kernel refuses files of {directory}: {reason}; put the hot directory on ext4 or xfs"
    )]
    Refused {
        /// The hot directory.
        directory: PathBuf,
        /// The kernel's answer.
        reason: String,
    },
    /// A file for the probe could not be made.
    #[error("no probe file in {directory}: {reason}; check the hot directory")]
    Directory {
        /// The hot directory.
        directory: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What can be told without a mount: the kernel's release and the process's capabilities.
pub fn environment() -> Result<(), NoPassthrough> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if parse_release(&release).is_some_and(|version| version < SINCE) {
        return Err(NoPassthrough::Kernel(release.trim().to_owned()));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if effective(&status).is_some_and(|mask| mask >> SYS_ADMIN & 1 == 0) {
        return Err(NoPassthrough::Privilege);
    }
    Ok(())
}

/// Registers a file of `directory` with the kernel, and takes it back.
pub fn confirm(kernel: &dyn Kernel, directory: &Path) -> Result<(), NoPassthrough> {
    let file = probe_file(directory).map_err(|error| NoPassthrough::Directory {
        directory: directory.to_owned(),
        reason: error.to_string(),
    })?;
    match kernel.open_backing(&file) {
        Ok(id) => {
            if let Err(error) = kernel.close_backing(id) {
                tracing::warn!(%error, "the backing id of the probe stays registered");
            }
            Ok(())
        }
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            // The kernel says EPERM for both; the capability can be asked.
            Err(environment().err().unwrap_or(NoPassthrough::NotOffered))
        }
        Err(error) => Err(NoPassthrough::Refused {
            directory: directory.to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// An unnamed file there, or a named one that is gone at once where unnamed ones do not exist.
fn probe_file(directory: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = File::options();
    options.read(true).write(true);
    let mut file = match options
        .clone()
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
    {
        Ok(file) => file,
        Err(_) => {
            let path = directory.join(format!(".passthrough-probe-{}", std::process::id()));
            let file = options.create(true).truncate(true).open(&path)?;
            std::fs::remove_file(&path)?;
            file
        }
    };
    file.write_all(b"probe")?;
    Ok(file)
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[derive(Debug)]
    struct Answers(Option<i32>);

    impl Kernel for Answers {
        fn open_backing(&self, file: &File) -> io::Result<u32> {
            assert!(file.metadata()?.is_file());
            self.0
                .map_or(Ok(7), |errno| Err(io::Error::from_raw_os_error(errno)))
        }
        fn close_backing(&self, id: u32) -> io::Result<()> {
            assert_eq!(id, 7);
            Ok(())
        }
        fn forget_attributes(&self, _: u64) -> io::Result<()> {
            unreachable!("the probe forgets no attributes")
        }
        fn forget_name(&self, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!("the probe forgets no name")
        }
    }

    // Without it `doctor` would name the wrong cause, and the user would change the wrong thing.
    #[test]
    fn each_answer_of_the_kernel_has_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(confirm(&Answers(None), directory.path()), Ok(()));
        let refused = confirm(&Answers(Some(libc::ELOOP)), directory.path()).unwrap_err();
        assert!(
            matches!(refused, NoPassthrough::Refused { .. }),
            "{refused}"
        );
        let denied = confirm(&Answers(Some(libc::EPERM)), directory.path()).unwrap_err();
        assert!(matches!(
            denied,
            NoPassthrough::NotOffered | NoPassthrough::Privilege | NoPassthrough::Kernel(_)
        ));
        let missing = confirm(&Answers(None), Path::new("/does/not/exist")).unwrap_err();
        assert!(
            matches!(missing, NoPassthrough::Directory { .. }),
            "{missing}"
        );
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "nothing is left"
        );
    }

    // Without it a distribution's kernel name would be taken for an old kernel.
    #[test]
    fn releases_and_capabilities_are_parsed() {
        assert_eq!(parse_release("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(parse_release("5.15.0"), Some((5, 15)));
        assert_eq!(parse_release("unknown"), None);
        assert_eq!(
            effective("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
        assert_eq!(effective("CapEff:\tzz\n"), None);
    }
}
