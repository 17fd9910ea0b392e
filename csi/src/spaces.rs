//! Spaces: the directories that users and projects have on a shared file system, with owners and limits.
//!
//! ```text
//! <base>/home/<user>          0700, of the user          a space; its name is "home/<user>"
//! <base>/project/<name>       2770, of the group         likewise
//! <base>/volumes/<hash>       0777                       a volume of Kubernetes, below a base that is closed
//! <base>/snapshots/<hash>     as its volume              a snapshot of one, likewise
//! <base>/.terrace/            0700: nobody but us
//!   terrace-spaces            "terrace-spaces 1\n": this is ours
//!   LOCK                      locks between processes and nodes (scratch/locks.rs)
//!   records/<hash>.space      what was promised; hash of the space's id (records.rs)
//!   records/<hash>.usage      what it took when a node last said so
//!   ids/<number>              project ids and their owners (scratch/ids.rs)
//!   making/<hash>             being made: nobody has it
//!   trash/<hash>              deleted, and kept until its time has come
//!   held/<hash>               objects of cold stores that a copy names (held.rs)
//! ```
//!
//! ```text
//! create   making/<hash>, owner, limit, files of a copy -> record "making" with its inode -> rename -> record "ready"
//! delete   record "deleting" with the time -> rename to trash/
//! restore  rename back -> record "ready"
//! purge    (time has come) files -> limit -> number -> records
//! ```
//! Every step may be the last one before a kill: the same call ends what it began. A space is known by
//! its inode, so a directory that somebody put into its place meanwhile is refused and not taken over.
//!
//! A limit is kept by the file system where it has project quotas (XFS and ext4, `prjquota`), which also
//! limits who writes beside Terrace; elsewhere by the daemon that serves the mount. Which of the two is
//! decided when the space is made and is in its record.
//!
//! Invariants: names are parsed once and hold nothing that leads elsewhere; nothing is followed or
//! removed outside of `<base>`; only root comes below `.terrace`. Everything blocks.

mod base;
mod copy;
mod error;
mod held;
mod limit;
mod name;
mod record;
mod remove;
mod store;

pub use copy::Origin;
pub use error::SpaceError;
pub use held::held_directory;
pub use name::{SpaceKind, SpaceName, SpaceNameError};
pub use record::{Enforcer, SpaceLimits, SpaceRecord, SpaceUsage};
pub use remove::Purged;
pub use store::{NewSpace, Spaces};
