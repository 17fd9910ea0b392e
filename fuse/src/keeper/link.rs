//! One end of a keeper connection: whole JSON messages, each with the descriptors it speaks of.
//!
//! Transport: `AF_UNIX`, `SOCK_SEQPACKET`. One packet is one message: UTF-8 JSON of at most
//! [`MAX_MESSAGE`] bytes, plus up to [`MAX_DESCRIPTORS`] descriptors as `SCM_RIGHTS`. A packet is
//! sent or received whole, so several threads may send on one link. Lists (mounts) travel as one
//! message per element, announced by a count, and so have no limit of their own.
//!
//! Received descriptors are close-on-exec from the first moment (`MSG_CMSG_CLOEXEC`). A message that
//! was cut, is not JSON, or carries more descriptors than allowed is an error of kind `InvalidData`.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, bind, connect, getsockopt, listen, recvmsg, sendmsg, setsockopt, socket, socketpair,
    sockopt,
};
use nix::sys::time::TimeVal;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message in bytes; below the default send buffer of unix sockets (208 KiB).
pub(super) const MAX_MESSAGE: usize = 128 * 1024;

/// Most descriptors in one message: a hand-over of a keeper without its mounts needs six.
pub(super) const MAX_DESCRIPTORS: usize = 8;

/// Connections that may wait for a keeper or worker to accept them.
const BACKLOG: i32 = 64;

/// A connected `SOCK_SEQPACKET` socket that carries JSON messages and descriptors.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

impl Link {
    /// Two connected ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Wraps a connected socket, for instance one that was inherited.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Connects to the listener at `path`. Waits at most `timeout` when its backlog is full.
    ///
    /// Errors: `NotFound` or `ConnectionRefused` when nobody listens.
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Self> {
        let socket = packet_socket()?;
        setsockopt(&socket, sockopt::SendTimeout, &time_value(timeout))?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self { socket })
    }

    /// The end's socket, to hand it to another process.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Limits how long [`Link::send`] and [`Link::receive`] wait (`WouldBlock` afterwards); zero:
    /// for ever.
    pub fn set_timeouts(&self, send: Duration, receive: Duration) -> io::Result<()> {
        setsockopt(&self.socket, sockopt::SendTimeout, &time_value(send))?;
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &time_value(receive))?;
        Ok(())
    }

    /// Sends one message with descriptors (they stay open here).
    ///
    /// Errors: `InvalidInput` when the message is too long; `BrokenPipe` when the peer is gone;
    /// `WouldBlock` after the send timeout.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = serde_json::to_vec(message).map_err(io::Error::other)?;
        if text.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("message of {} bytes is too long", text.len()),
            ));
        }
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() {
            &control[..0]
        } else {
            &control[..]
        };
        loop {
            let sent = sendmsg::<UnixAddr>(
                self.socket.as_raw_fd(),
                &[IoSlice::new(&text)],
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            match sent {
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Waits for the next message; `None` when the peer has gone.
    ///
    /// Errors: `WouldBlock` after the receive timeout, `InvalidData` for anything that is not a
    /// message of type `M`.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let Some((text, descriptors)) = self.receive_packet()? else {
            return Ok(None);
        };
        let message = serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        Ok(Some((message, descriptors)))
    }

    fn receive_packet(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut text = vec![0_u8; MAX_MESSAGE];
        let mut space = cmsg_space!([std::os::fd::RawFd; MAX_DESCRIPTORS]);
        let mut slices = [IoSliceMut::new(&mut text)];
        let received = loop {
            let result = recvmsg::<UnixAddr>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                MsgFlags::MSG_CMSG_CLOEXEC,
            );
            match result {
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
                Ok(received) => break received,
            }
        };
        let mut descriptors = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for this process and nobody
                // else knows their numbers.
                descriptors.extend(
                    raw.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        let (length, cut) = (
            received.bytes,
            received
                .flags
                .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC),
        );
        if cut {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "message was cut",
            ));
        }
        if length == 0 {
            return Ok(None);
        }
        text.truncate(length);
        Ok(Some((text, descriptors)))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A listening `SOCK_SEQPACKET` socket; it may be shared by several processes.
#[derive(Debug)]
pub struct LinkListener {
    socket: OwnedFd,
}

impl LinkListener {
    /// Replaces whatever lies at `path` by a listening socket. The caller holds the lock of the run
    /// directory, so what is replaced belongs to nobody.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = packet_socket()?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Self { socket })
    }

    /// Wraps a listening socket that another process bound.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// The socket, to hand it to another process.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Accepts a connection of a process of the same user or of root; others are refused with
    /// `PermissionDenied`.
    pub fn accept(&self) -> io::Result<Link> {
        let raw = nix::sys::socket::accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: accept4 has just made this descriptor and nobody else knows its number.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("peer has user id {}", peer.uid()),
            ));
        }
        Ok(Link { socket })
    }
}

impl AsFd for LinkListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn time_value(duration: Duration) -> TimeVal {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    TimeVal::new(seconds, i64::from(duration.subsec_micros()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        // Without it a worker would get no device to serve.
        let (a, b) = Link::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"terrace").unwrap();
        a.send(&("mount", 7), &[file.as_fd()]).unwrap();
        let (message, mut descriptors): ((String, u32), _) = b.receive().unwrap().unwrap();
        assert_eq!(message, ("mount".to_owned(), 7));
        assert_eq!(descriptors.len(), 1);
        let mut received = std::fs::File::from(descriptors.pop().unwrap());
        received.rewind().unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "terrace");
    }

    #[test]
    fn the_end_of_the_peer_is_not_an_error_and_junk_is() {
        // Without it a dead worker could not be told from a broken one.
        let (a, b) = Link::pair().unwrap();
        nix::unistd::write(&a, b"no json").unwrap();
        let junk = b.receive::<u32>().unwrap_err();
        assert_eq!(junk.kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert!(b.receive::<u32>().unwrap().is_none());
    }

    #[test]
    fn too_long_a_message_is_refused_and_a_silent_peer_times_out() {
        // Without it one mount with huge options, or a hung worker, would block the keeper for ever.
        let (a, b) = Link::pair().unwrap();
        let long = "x".repeat(MAX_MESSAGE);
        assert_eq!(
            a.send(&long, &[]).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        b.set_timeouts(Duration::from_millis(10), Duration::from_millis(10))
            .unwrap();
        let silent = b.receive::<u32>().unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    }
}
