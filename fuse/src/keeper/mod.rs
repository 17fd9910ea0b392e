//! The keeper: the process that holds the mounts of a node while workers come and go.
//!
//! It opens `/dev/fuse`, calls mount(2), reads and records FUSE_INIT, and keeps per mount the device
//! and the memory of the handle table. While it holds a device, the connection lives: requests wait
//! in the kernel until the next worker takes them. One thread, one poll(2) loop ([`keeper`]), no
//! tier and no store opened, nothing on disk but sockets, a lock and logs ([`rundir`]).
//!
//! Who may die, and what then:
//! - **worker**: started again ([`process`]); applications notice a pause. If none comes up for
//!   `abort_after`, or it crashes again and again for so long, connections are aborted.
//! - **keeper**: the worker holds the devices too and goes on serving as an *orphan* ([`worker`]).
//!   The next keeper of the run directory adopts it. Only both dying at once ends the mounts.
//! - **keeper, planned**: a new keeper takes everything over a socket, then starts a worker of its
//!   own version ([`takeover`]).
//!
//! A mount request goes client -> keeper -> worker (build, reach the store) -> keeper (mount(2)) ->
//! worker (serve) -> client ([`mounts`]).

mod client;
mod clients;
mod heard;
#[expect(
    clippy::module_inception,
    reason = "the keeper proper, beside its parts"
)]
mod keeper;
pub mod kernel;
mod link;
mod mounts;
mod process;
mod protocol;
mod rundir;
mod spec;
mod supervise;
mod takeover;
pub mod worker;

pub use client::{ClientError, KeeperClient};
pub use keeper::{End, KeeperConfig, KeeperError, run};
pub use link::{Link, LinkListener};
pub use process::WorkerCommand;
pub use protocol::{KeeperStatus, MountStatus, WorkerStatus};
pub use rundir::RunDir;
pub use spec::{Failure, InitRecord, KernelOptions, MountSpec, Secrets};
