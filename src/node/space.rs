//! Spaces that this node serves: which limit a mount has, and what of it the cluster is told.
//!
//! Where the daemon keeps the limit, two tasks live as long as the mount. One counts the tree when it
//! should be; the other looks whether the limit was changed (by `terrace volume quota`, on any node) and
//! writes down what the volume takes, for reports and for the next mount. Where the file system keeps
//! the limit, nothing runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use terrace_csi::spaces::{Enforcer, SpaceError, SpaceLimits, SpaceUsage, Spaces};
use terrace_fuse::directory::{DirectoryFs, QuotaLimits, QuotaParts, QuotaUse};
use terrace_fuse::keeper::Failure;
use terrace_fuse::live::Opening;
use tokio_util::sync::CancellationToken;

use super::options::SpaceOptions;

/// How soon a changed limit holds.
const LOOK: Duration = Duration::from_secs(2);

/// Between two notes of what a volume takes; a note is a synced write on the shared file system.
const NOTE: Duration = Duration::from_secs(10);

/// Between a count that failed and the next one.
const AGAIN: Duration = Duration::from_secs(60);

/// A space of a mount.
#[derive(Debug)]
pub(crate) struct Space {
    spaces: Spaces,
    options: SpaceOptions,
    enforcer: Enforcer,
    /// Cancelled when the mount has ended.
    pub(crate) ended: CancellationToken,
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// As the file system takes them.
pub(crate) fn limits(of: SpaceLimits) -> QuotaLimits {
    QuotaLimits {
        bytes: of.bytes,
        files: of.files,
    }
}

impl Space {
    /// Finds the space of a mount: itself, its directory, and the limit that the daemon has to keep.
    /// Blocks.
    pub(super) fn open(
        options: &SpaceOptions,
        opening: Opening,
    ) -> Result<(Self, PathBuf, Option<QuotaParts>), Failure> {
        let refused = |error: SpaceError| Failure::new(error, "terrace volume list shows them");
        let spaces = Spaces::open(&options.base).map_err(refused)?;
        let (record, root) = spaces.locate(&options.name).map_err(refused)?;
        if opening == Opening::Mount {
            // One in the trash is served to those who had it before, and to nobody else.
            spaces.space(&options.name).map_err(refused)?;
        }
        let parts = match record.enforcer {
            Enforcer::Project(_) => None,
            Enforcer::Daemon => {
                let known = spaces.usage(&record).map_err(refused)?;
                Some(QuotaParts {
                    limits: limits(record.limits),
                    known: QuotaUse {
                        bytes: known.bytes,
                        files: known.files,
                    },
                })
            }
        };
        let space = Self {
            spaces,
            options: options.clone(),
            enforcer: record.enforcer,
            ended: CancellationToken::new(),
        };
        Ok((space, root, parts))
    }

    /// Who keeps its limit, as reports say it.
    pub(crate) fn enforcer(&self) -> &'static str {
        match self.enforcer {
            Enforcer::Project(_) => "file system",
            Enforcer::Daemon => "daemon",
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        self.options.name.to_string()
    }

    /// Counts what the volume takes whenever it should be counted, until the mount ends.
    pub(crate) async fn count(self: Arc<Self>, fs: Arc<DirectoryFs>, every: Duration) {
        if self.enforcer != Enforcer::Daemon {
            return;
        }
        let mut pause = every;
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = fs.quota_wanted() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let (fs, ended) = (Arc::clone(&fs), self.ended.clone());
            let counting = move || fs.count_quota(&|| ended.is_cancelled());
            let counted = tokio::task::spawn_blocking(counting).await;
            pause = match counted.unwrap_or(Err(Errno::EIO)) {
                Ok(counted) => {
                    tracing::debug!(volume = %self.options.name, ?counted, "counted");
                    every
                }
                Err(error) => {
                    let volume = &self.options.name;
                    tracing::warn!(%volume, %error, "what the volume takes was not counted");
                    every.min(AGAIN)
                }
            };
        }
    }

    /// Follows changes of the limit and notes what the volume takes, until the mount ends.
    pub(crate) async fn follow(self: Arc<Self>, fs: Arc<DirectoryFs>) {
        if self.enforcer != Enforcer::Daemon {
            return;
        }
        let (mut noted, mut since) = (None, NOTE);
        let mut ended = false;
        while !ended {
            tokio::select! {
                () = self.ended.cancelled() => ended = true,
                () = tokio::time::sleep(LOOK) => since += LOOK,
            }
            let used = fs.status().quota.map(|quota| quota.used);
            let news = used.filter(|used| (ended || since >= NOTE) && noted != Some(*used));
            let (space, files) = (Arc::clone(&self), Arc::clone(&fs));
            let looked = tokio::task::spawn_blocking(move || space.look(&files, news)).await;
            match looked {
                Ok(Ok(())) if news.is_some() => (noted, since) = (news, Duration::ZERO),
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(volume = %self.options.name, %error, "limits stay as they were");
                }
                Err(error) => tracing::error!(%error, "look at a volume's record"),
            }
        }
    }

    fn look(&self, fs: &DirectoryFs, news: Option<QuotaUse>) -> Result<(), SpaceError> {
        let record = match self.spaces.space(&self.options.name) {
            // In the trash: who has it open goes on with the limit that it had.
            Err(SpaceError::NotFound(_)) => return Ok(()),
            other => other?,
        };
        fs.set_quota(limits(record.limits));
        if let Some(used) = news {
            self.spaces.note_usage(&SpaceUsage {
                id: record.id,
                bytes: used.bytes,
                files: used.files,
                at: Some(now()),
            })?;
        }
        Ok(())
    }
}
