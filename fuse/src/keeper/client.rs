//! How other processes talk to a keeper.
//!
//! One connection, one request at a time. Every wait has a limit given by the caller; a keeper that
//! does not answer in time is told as `TimedOut`, never waited for.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::link::Link;
use super::protocol::{KeeperStatus, MountStatus, Reply, Request};
use super::rundir::RunDir;
use super::spec::{Failure, MountSpec};

/// How long connecting may take when the keeper's backlog is full.
const CONNECT: Duration = Duration::from_secs(2);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody keeps this run directory.
    #[error("no keeper runs")]
    Absent,
    /// The keeper ended or changed hands while the request was under way: ask again.
    #[error("the keeper went away")]
    Gone,
    /// No answer in time.
    #[error("the keeper did not answer within {0:?}")]
    TimedOut(Duration),
    /// The keeper's answer.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The connection failed.
    #[error("keeper connection: {0}")]
    Io(#[source] io::Error),
}

/// A connection to a keeper.
#[derive(Debug)]
pub struct KeeperClient {
    link: Link,
    limit: Duration,
}

impl KeeperClient {
    /// Connects to the keeper of a run directory; each answer is waited for at most `limit`.
    pub fn connect(run: &RunDir, limit: Duration) -> Result<Self, ClientError> {
        Self::connect_to(&run.keeper_socket(), limit)
    }

    fn connect_to(socket: &Path, limit: Duration) -> Result<Self, ClientError> {
        let link = Link::connect(socket, CONNECT).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotADirectory => ClientError::Absent,
            io::ErrorKind::WouldBlock => ClientError::TimedOut(CONNECT),
            _ => ClientError::Io(error),
        })?;
        link.set_timeouts(CONNECT, limit).map_err(ClientError::Io)?;
        Ok(Self { link, limit })
    }

    /// Mounts; returns when the worker answers requests of the mount.
    pub fn mount(&self, spec: MountSpec) -> Result<(), ClientError> {
        match self.ask(&Request::Mount(Box::new(spec)))? {
            Reply::Mounted => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Unmounts; `true` when the file system was busy and lives on, detached.
    pub fn umount(&self, mountpoint: &Path) -> Result<bool, ClientError> {
        let mountpoint = mountpoint.to_owned();
        match self.ask(&Request::Umount { mountpoint })? {
            Reply::Unmounted { busy } => Ok(busy),
            other => Err(unexpected(&other)),
        }
    }

    /// What the keeper holds.
    pub fn status(&self) -> Result<(KeeperStatus, Vec<MountStatus>), ClientError> {
        let status = match self.ask(&Request::Status)? {
            Reply::Status(status) => status,
            other => return Err(unexpected(&other)),
        };
        let mounts = (0..status.mounts)
            .map(|_| self.next())
            .collect::<Result<_, _>>()?;
        Ok((status, mounts))
    }

    /// Kills the worker and lets the keeper start it again.
    pub fn restart_worker(&self) -> Result<(), ClientError> {
        match self.ask(&Request::RestartWorker)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The connection itself, for a keeper that takes over.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn send(&self, request: &Request) -> Result<(), ClientError> {
        self.link
            .send(request, &[])
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Gone,
                io::ErrorKind::WouldBlock => ClientError::TimedOut(CONNECT),
                _ => ClientError::Io(error),
            })
    }

    fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        self.send(request)?;
        match self.next()? {
            Reply::Failed(failure) => Err(ClientError::Refused(failure)),
            reply => Ok(reply),
        }
    }

    fn next<M: serde::de::DeserializeOwned>(&self) -> Result<M, ClientError> {
        match self.link.receive() {
            Ok(Some((message, _))) => Ok(message),
            Ok(None) => Err(ClientError::Gone),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ClientError::TimedOut(self.limit))
            }
            Err(error) => Err(ClientError::Io(error)),
        }
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    let text = format!("unexpected answer {reply:?}");
    ClientError::Io(io::Error::new(io::ErrorKind::InvalidData, text))
}
