//! One mount in the keeper's table, and how it moves between phases.
//!
//! ```text
//! Preparing --Prepared--> Attaching --Mounted--> Serving
//!     |  the worker dies: asked again   \          | the worker dies
//!     v                                  v         v
//!  (removed, nothing was mounted)       Waiting --Mounted--> Serving
//!                                          | abort-after, or the kernel ends the connection
//!                                          v
//!                                       (removed)
//! ```
//!
//! The kernel sees the mount only after a worker has built its file system and reached its store, so
//! a mount that fails was never visible.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::kernel;
use super::protocol::MountStatus;
use super::spec::{InitRecord, MountSpec};

/// Where a mount is on its way; see the module documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A worker builds the file system.
    Preparing,
    /// Mounted; a worker is about to serve it for the first time.
    Attaching,
    /// A worker serves it.
    Serving,
    /// It was served, and waits for the next worker.
    Waiting,
}

/// What the kernel gave us for a mount.
#[derive(Debug)]
pub(super) struct Attached {
    /// The connection.
    pub(super) device: OwnedFd,
    /// Its FUSE_INIT.
    pub(super) init: InitRecord,
    /// Its number.
    pub(super) connection: u32,
}

/// One mount.
#[derive(Debug)]
pub(super) struct Mount {
    /// What and where.
    pub(super) spec: MountSpec,
    /// Memory of the handle table.
    pub(super) handles: OwnedFd,
    /// `None` while it is prepared.
    pub(super) attached: Option<Attached>,
    /// Where it is on its way.
    pub(super) phase: Phase,
    /// When this phase began.
    pub(super) since: Instant,
    /// Since when no worker has served it *well*: not reset by a worker that crashes again at once.
    pub(super) unserved_since: Instant,
    /// The client that waits for it to be served.
    pub(super) client: Option<u64>,
    /// It is out of the tree, but somebody still uses it.
    pub(super) detached: bool,
    /// Abort the connection at this time unless the worker shows life.
    pub(super) abort_at: Option<Instant>,
    /// The worker could not serve it: ask again at this time.
    pub(super) retry_at: Option<Instant>,
}

impl Mount {
    /// A mount that is to be prepared for `client`.
    pub(super) fn new(spec: MountSpec, handles: OwnedFd, client: u64, now: Instant) -> Self {
        Self {
            spec,
            handles,
            attached: None,
            phase: Phase::Preparing,
            since: now,
            unserved_since: now,
            client: Some(client),
            detached: false,
            abort_at: None,
            retry_at: None,
        }
    }

    /// A mount that another keeper or an orphan held.
    pub(super) fn held(
        spec: MountSpec,
        handles: OwnedFd,
        attached: Attached,
        detached: bool,
        now: Instant,
    ) -> Self {
        Self {
            spec,
            handles,
            attached: Some(attached),
            phase: Phase::Serving,
            since: now,
            unserved_since: now,
            client: None,
            detached,
            abort_at: None,
            retry_at: None,
        }
    }

    /// Moves to another phase.
    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
        self.retry_at = None;
    }

    /// Its worker has died. `settled`: it had served well, so the clock of abort-after starts anew.
    pub(super) fn lost_worker(&mut self, settled: bool, now: Instant) {
        if self.phase == Phase::Preparing {
            return;
        }
        if settled {
            self.unserved_since = now;
        }
        self.enter(Phase::Waiting, now);
    }

    /// Nobody has served it for `limit`.
    pub(super) fn is_overdue(&self, limit: Duration, now: Instant) -> bool {
        let unserved = matches!(self.phase, Phase::Waiting | Phase::Attaching);
        unserved && now.saturating_duration_since(self.unserved_since) >= limit
    }

    /// The kernel has ended the connection.
    pub(super) fn has_ended(&self) -> bool {
        self.attached
            .as_ref()
            .is_some_and(|attached| kernel::has_ended(&attached.device))
    }

    /// Ends the connection: all its users get errors, the mount point becomes free. Best effort;
    /// the last step, closing the device when the mount is dropped, cannot fail.
    pub(super) fn abort(&self) {
        let Some(attached) = &self.attached else {
            return;
        };
        if let Err(error) = kernel::abort(attached.connection) {
            tracing::warn!(%error, connection = attached.connection, "connection not aborted by file");
        }
        if !self.detached
            && let Err(error) = kernel::unmount(&self.spec.mountpoint)
        {
            tracing::warn!(%error, mountpoint = %self.spec.mountpoint.display(), "not unmounted");
        }
    }

    /// As clients see it.
    pub(super) fn status(&self, now: Instant) -> MountStatus {
        let state = match self.phase {
            _ if self.detached => "detached",
            Phase::Preparing | Phase::Attaching => "preparing",
            Phase::Serving => "serving",
            Phase::Waiting => "waiting",
        };
        let unserved = match self.phase {
            Phase::Serving => Duration::ZERO,
            _ => now.saturating_duration_since(self.since),
        };
        MountStatus {
            id: self.spec.id.clone(),
            mountpoint: self.spec.mountpoint.clone(),
            source: self.spec.source.clone(),
            state: state.to_owned(),
            connection: self
                .attached
                .as_ref()
                .map_or(0, |attached| attached.connection),
            unserved_seconds: unserved.as_secs_f64(),
        }
    }
}
