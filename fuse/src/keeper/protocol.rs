//! Messages between clients, keepers and workers.
//!
//! ```text
//! client -> keeper   keeper.sock   Request, Reply          terrace mount, umount, status
//! keeper -> keeper   keeper.sock   Request::HandOver, Reply::HandingOver, Held..., Request::Taken
//! keeper <-> worker  socket pair   ToWorker, FromWorker     the worker finds it at descriptor 0
//! keeper <-> orphan  adopt.sock    State, Held..., then as keeper <-> worker
//! ```
//!
//! Descriptors of a message, in order:
//! `ToWorker::Hello`: listener of node.sock, listener of adopt.sock. `ToWorker::Mount`: handle table,
//! then the device unless the mount is only to be prepared. `ToWorker::Attach`: the device.
//! `State` of a keeper: lock, listeners of keeper.sock, node.sock and adopt.sock, and when a worker
//! runs its link and its pidfd; `State` of an orphan: listeners of node.sock and adopt.sock.
//! `Held`: device, handle table.
//!
//! A worker that meets a keeper of another protocol number ends; unknown fields are ignored, so
//! fields may be added without a new number.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::{Failure, InitRecord, MountSpec};

/// Number of this protocol.
pub(super) const PROTOCOL: u32 = 1;

/// What a client asks of a keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Make a mount; answered when it is served.
    Mount(Box<MountSpec>),
    /// Remove the mount at this canonical path.
    Umount {
        /// Where.
        mountpoint: PathBuf,
    },
    /// Answered by [`Reply::Status`] and one [`MountStatus`] per mount.
    Status,
    /// Kill the worker and start it again from the keeper's own program.
    RestartWorker,
    /// A new keeper wants everything; answered by [`State`] and one [`Held`] per mount.
    HandOver,
    /// The new keeper has everything: end without touching the mounts.
    Taken,
}

/// What a keeper answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The mount is served.
    Mounted,
    /// The mount point is free again.
    Unmounted {
        /// Somebody still uses the file system; it lives on, detached, until the last user closes.
        busy: bool,
    },
    /// Followed by `mounts` messages of type [`MountStatus`].
    Status(KeeperStatus),
    /// Done.
    Done,
    /// Answer to [`Request::HandOver`]: everything, with descriptors; [`Held`] messages follow.
    HandingOver(State),
    /// Not done.
    Failed(Failure),
}

/// The keeper and its worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeeperStatus {
    /// Process id of the keeper.
    pub keeper_pid: u32,
    /// Version of the keeper's program.
    pub version: String,
    /// The worker, if one runs.
    pub worker: Option<WorkerStatus>,
    /// Workers started by this keeper beyond the first.
    pub restarts: u64,
    /// Number of mounts.
    pub mounts: u32,
}

/// The running worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Process id.
    pub pid: u32,
    /// It has opened its tiers and takes mounts.
    pub ready: bool,
    /// Seconds since it was started or adopted.
    pub seconds: f64,
}

/// One mount as its keeper sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountStatus {
    /// See [`MountSpec::id`].
    pub id: String,
    /// Where.
    pub mountpoint: PathBuf,
    /// What.
    pub source: String,
    /// `preparing`, `serving`, `waiting` (for a worker) or `detached`.
    pub state: String,
    /// Number of the kernel's connection: the minor device number of the mount.
    pub connection: u32,
    /// Seconds without a worker that serves it.
    pub unserved_seconds: f64,
}

/// What a keeper tells its worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToWorker {
    /// The first message.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Configuration of the worker, as the keeper was started with.
        node: serde_json::Value,
        /// So many mounts follow that another worker served before.
        mounts: u32,
    },
    /// Build this file system; serve it at once if a device is attached.
    Mount {
        /// What.
        spec: Box<MountSpec>,
        /// The FUSE_INIT exchange, when a device is attached.
        init: Option<InitRecord>,
        /// Minor device number, when a device is attached.
        connection: u32,
    },
    /// Serve a file system that was prepared.
    Attach {
        /// Which mount.
        id: String,
        /// The FUSE_INIT exchange.
        init: InitRecord,
        /// Minor device number.
        connection: u32,
    },
    /// The mount was removed; forget it once its session ends.
    Unmounted {
        /// Which mount.
        id: String,
    },
    /// Answer with [`FromWorker::Pong`].
    Ping {
        /// To tell answers apart.
        number: u64,
    },
    /// End in order.
    Stop,
}

/// What a worker tells its keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromWorker {
    /// Tiers are open; mounts are served as they come.
    Ready,
    /// The file system is built and its store answers.
    Prepared {
        /// Which mount.
        id: String,
    },
    /// The kernel's FUSE_INIT has got this answer.
    Answered {
        /// Which mount.
        id: String,
        /// As in [`InitRecord::reply`].
        reply: Vec<u8>,
    },
    /// Requests of the mount are answered from now on.
    Mounted {
        /// Which mount.
        id: String,
    },
    /// The mount cannot be served.
    Failed {
        /// Which mount.
        id: String,
        /// Why.
        failure: Failure,
    },
    /// The kernel has ended the connection of this mount.
    Ended {
        /// Which mount.
        id: String,
    },
    /// Answer to [`ToWorker::Ping`].
    Pong {
        /// As asked.
        number: u64,
    },
    /// The worker cannot work at all and ends now.
    Fatal(Failure),
}

/// Everything a keeper (or an orphan) holds besides mounts, which follow as [`Held`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// [`PROTOCOL`].
    pub(super) protocol: u32,
    /// Number of [`Held`] messages that follow.
    pub(super) mounts: u32,
    /// Process id of the worker whose link and pidfd are attached.
    pub(super) worker_pid: Option<u32>,
    /// Configuration of the worker.
    pub(super) node: serde_json::Value,
    /// What a keeper was told besides; an orphan does not know.
    #[serde(default)]
    pub(super) keeper: Option<Inherited>,
}

/// Settings of a keeper that a keeper without settings of its own takes over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Inherited {
    /// Milliseconds until an unserved mount is aborted.
    pub(super) abort_after_ms: u64,
    /// Go on when the last mount is gone.
    pub(super) stay: bool,
}

/// One mount with its kernel state.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Held {
    /// What is mounted.
    pub(super) spec: MountSpec,
    /// The FUSE_INIT exchange.
    pub(super) init: InitRecord,
    /// Minor device number.
    pub(super) connection: u32,
}
