//! How a volume is to be used, read from a request once: access mode, group and mount options.
//!
//! Mount options come from whoever writes a PersistentVolume and end near mount(2), so each is read
//! into a value of a type and everything else is refused; nothing is passed on as text.

use tonic::Status;

use crate::wire::VolumeCapability;
use crate::wire::volume_capability::AccessType;
use crate::wire::volume_capability::access_mode::Mode;

/// Range of `read_ahead_kb`: from a page to what a kernel keeps of one file without harm to others.
const READ_AHEAD_KB: std::ops::RangeInclusive<u32> = 4..=65_536;

/// Options that are always on, and may be asked for.
const ALWAYS_ON: [&str; 3] = ["nosuid", "nodev", "noatime"];

/// One way in which a volume is used. Valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// By how many nodes and pods.
    pub access: Mode,
    /// The group that its files shall show.
    pub group: Option<u32>,
    /// Options of the mount.
    pub options: Options,
}

/// Options of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Nothing may be written.
    pub read_only: bool,
    /// No program may be started.
    pub no_exec: bool,
    /// Readahead in KiB, when it is not to be the usual one.
    pub read_ahead_kb: Option<u32>,
}

impl Usage {
    /// Reads a capability; devices, unknown modes and unknown options are INVALID_ARGUMENT.
    pub fn parse(capability: &VolumeCapability) -> Result<Self, Status> {
        let access = capability.access_mode.unwrap_or_default().mode;
        let access = Mode::try_from(access).ok().filter(|m| *m != Mode::Unknown);
        let access = access.ok_or_else(|| invalid("the capability names no known access mode"))?;
        let mount = match &capability.access_type {
            Some(AccessType::Mount(mount)) => mount,
            Some(AccessType::Block(_)) => {
                return Err(invalid(
                    "volumes are directories; ask for volumeMode Filesystem",
                ));
            }
            None => return Err(invalid("the capability says neither mount nor block")),
        };
        let group = match mount.volume_mount_group.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                invalid("the volume's group is no number; set fsGroup to a group id")
            })?),
        };
        Ok(Self {
            access,
            group,
            options: Options::parse(&mount.mount_flags)?,
        })
    }

    /// Reads the capability of a request that must have one.
    pub fn required(capability: Option<&VolumeCapability>) -> Result<Self, Status> {
        Self::parse(capability.ok_or_else(|| invalid("the request has no volume capability"))?)
    }

    /// Whether several targets of one node may show the volume.
    pub fn allows_many_targets(&self) -> bool {
        match self.access {
            Mode::MultiNodeReaderOnly
            | Mode::MultiNodeSingleWriter
            | Mode::MultiNodeMultiWriter
            | Mode::SingleNodeMultiWriter => true,
            Mode::SingleNodeWriter
            | Mode::SingleNodeReaderOnly
            | Mode::SingleNodeSingleWriter
            | Mode::Unknown => false,
        }
    }
}

impl Options {
    /// Reads a list of mount options.
    pub fn parse(flags: &[String]) -> Result<Self, Status> {
        let mut options = Self::default();
        for flag in flags.iter().flat_map(|flags| flags.split(',')) {
            match flag.split_once('=') {
                None if flag == "ro" => options.read_only = true,
                None if flag == "noexec" => options.no_exec = true,
                None if ALWAYS_ON.contains(&flag) => {}
                Some(("read_ahead_kb", kib)) => {
                    let kib = kib.parse().ok().filter(|kib| READ_AHEAD_KB.contains(kib));
                    options.read_ahead_kb = Some(kib.ok_or_else(|| {
                        let (least, most) = READ_AHEAD_KB.into_inner();
                        invalid(&format!("read_ahead_kb takes {least} to {most}"))
                    })?);
                }
                _ => {
                    let shown: String = flag.chars().take(40).collect();
                    return Err(invalid(&format!(
                        "mount option {shown:?} is not known; known are ro, noexec, \
                         read_ahead_kb=KIB, {}",
                        ALWAYS_ON.join(", ")
                    )));
                }
            }
        }
        Ok(options)
    }
}

fn invalid(why: &str) -> Status {
    Status::invalid_argument(why)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn parse(flags: &[&str]) -> Result<Options, Status> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Options::parse(&flags)
    }

    // An option that is passed on as text is a way into the node's mounts and files.
    #[test]
    fn only_known_options_are_taken() {
        let options = parse(&["ro,noexec", "nosuid", "read_ahead_kb=512"]).unwrap();
        assert!(options.read_only && options.no_exec);
        assert_eq!(options.read_ahead_kb, Some(512));
        for bad in [
            "",
            "rw",
            "suid",
            "dev",
            "exec",
            "uid=0",
            "allow_other",
            "--config=/etc/x",
            "-o",
            "bind",
            "endpoint=http://169.254.169.254",
            "cache-dir=/",
            "read_ahead_kb=",
            "read_ahead_kb=-1",
            "read_ahead_kb=99999999",
            "context=a",
            "ro\0",
            "RO",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        // Whatever is written there is answered, and what is taken was asked for by its name.
        #[test]
        fn any_option_is_answered(flag in any::<String>()) {
            let is_known = |part: &str| {
                part == "ro"
                    || part == "noexec"
                    || ALWAYS_ON.contains(&part)
                    || part.starts_with("read_ahead_kb=")
            };
            let known = flag.split(',').all(is_known);
            prop_assert!(known || Options::parse(std::slice::from_ref(&flag)).is_err());
        }
    }
}
