//! The server: it answers, and does nothing else.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Length of each file.
pub(crate) const SIZE: usize = 110_000;
/// Longest request: of 1 MiB, with its head.
const REQUEST_MAX: usize = (1 << 20) + 4096;

/// How OPEN is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Kept,
    Anew,
    Cached,
    None,
}

/// One mount: files `0..` of the directory, node id = number + 2.
pub(crate) struct Server {
    pub(crate) device: File,
    pub(crate) answer: Answer,
    pub(crate) files: Vec<File>,
    pub(crate) ids: Vec<AtomicU32>,
    pub(crate) requests: AtomicU64,
}

mod ioctl {
    //! `FUSE_DEV_IOC_BACKING_OPEN` and `_CLOSE`.

    /// `struct fuse_backing_map`.
    #[repr(C)]
    #[derive(Debug)]
    pub(super) struct BackingMap {
        pub(super) fd: i32,
        pub(super) flags: u32,
        pub(super) padding: u64,
    }

    nix::ioctl_write_ptr!(backing_open, 229, 1, BackingMap);
    nix::ioctl_write_ptr!(backing_close, 229, 2, u32);
}

/// Native-endian bytes of a message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// `struct fuse_attr`.
    fn attr(self, node: u64) -> Self {
        let (mode, links, size) = if node == 1 {
            (0o040_755, 2, 0)
        } else {
            (0o100_644, 1, SIZE as u64)
        };
        let head = self
            .u64(node)
            .u64(size)
            .u64(size.div_ceil(512))
            .zeros(24 + 12);
        head.u32(mode).u32(links).zeros(12).u32(4096).u32(0)
    }
}

const FOREVER: u64 = 1 << 30;
const ENOSYS: i32 = -libc::ENOSYS;

impl Server {
    /// Answers requests until the connection ends.
    pub(crate) fn serve(&self) -> io::Result<()> {
        let mut buffer = vec![0; REQUEST_MAX];
        loop {
            let length = match (&self.device).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(error) => return Err(error),
            };
            self.requests.fetch_add(1, Relaxed);
            let request = &buffer[..length];
            let unique = word64(request, 8);
            if let Some((error, body)) = self.reply(request) {
                let length = 16 + body.0.len() as u32;
                let head = Message::default()
                    .u32(length)
                    .u32(error.cast_unsigned())
                    .u64(unique);
                let parts = [io::IoSlice::new(&head.0), io::IoSlice::new(&body.0)];
                match (&self.device).write_vectored(&parts) {
                    Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                    _ => {}
                }
            }
        }
    }

    fn reply(&self, request: &[u8]) -> Option<(i32, Message)> {
        let node = word64(request, 16);
        let nothing = Message::default;
        Some(match word32(request, 4) {
            1 => {
                let name = request[40..]
                    .split(|byte| *byte == 0)
                    .next()
                    .unwrap_or_default();
                let number = std::str::from_utf8(name)
                    .ok()
                    .and_then(|name| name.parse::<u64>().ok());
                let Some(number) = number else {
                    return Some((-libc::ENOENT, nothing()));
                };
                let node = number + 2;
                let entry = nothing()
                    .u64(node)
                    .u64(0)
                    .u64(FOREVER)
                    .u64(FOREVER)
                    .zeros(8);
                (0, entry.attr(node))
            }
            2 | 36 | 42 => return None,
            3 => (0, nothing().u64(FOREVER).zeros(8).attr(node)),
            14 => self.open(node),
            15 => {
                let (offset, size) = (word64(request, 48), word32(request, 56));
                let mut data = vec![0; size as usize];
                let file = &self.files[node as usize - 2];
                let length = std::os::unix::fs::FileExt::read_at(file, &mut data, offset);
                data.truncate(length.unwrap_or(0));
                (0, Message(data))
            }
            18 => {
                if self.answer == Answer::Anew {
                    self.close(word64(request, 40) as u32);
                }
                (0, nothing())
            }
            26 => {
                // ASYNC_READ, BIG_WRITES, NO_OPEN_SUPPORT, MAX_PAGES, INIT_EXT; PASSTHROUGH.
                let flags = 1 | 1 << 5 | 1 << 17 | 1 << 22 | 1 << 30;
                let flags2 = if self.answer == Answer::None {
                    0
                } else {
                    1 << (37 - 32)
                };
                let init = nothing()
                    .u32(7)
                    .u32(40)
                    .u32(1 << 20)
                    .u32(flags)
                    .u32(48 << 16 | 64);
                let init = init
                    .u32(1 << 20)
                    .u32(1)
                    .u32(256)
                    .u32(flags2)
                    .u32(1)
                    .zeros(24);
                (0, init)
            }
            _ => (ENOSYS, nothing()),
        })
    }

    fn open(&self, node: u64) -> (i32, Message) {
        const KEEP_CACHE: u32 = 2;
        const NOFLUSH: u32 = 32;
        const PASSTHROUGH: u32 = 128;
        let opened = |fh: u32, flags: u32, id: u32| {
            let reply = Message::default().u64(u64::from(fh));
            (0, reply.u32(flags | NOFLUSH).u32(id))
        };
        let at = node as usize - 2;
        match self.answer {
            Answer::None => (ENOSYS, Message::default()),
            Answer::Cached => opened(0, KEEP_CACHE, 0),
            Answer::Anew => {
                let id = self.register(at);
                opened(id, PASSTHROUGH, id)
            }
            Answer::Kept => {
                let mut id = self.ids[at].load(Relaxed);
                if id == 0 {
                    id = self.register(at);
                    self.ids[at].store(id, Relaxed);
                }
                opened(0, PASSTHROUGH, id)
            }
        }
    }

    fn register(&self, at: usize) -> u32 {
        let map = ioctl::BackingMap {
            fd: self.files[at].as_raw_fd(),
            flags: 0,
            padding: 0,
        };
        // SAFETY: the request takes a `fuse_backing_map`, which `map` is.
        let id = unsafe { ioctl::backing_open(self.device.as_raw_fd(), &raw const map) };
        id.map_or(0, i32::cast_unsigned)
    }

    fn close(&self, id: u32) {
        // SAFETY: the request takes a pointer to a backing id.
        let _ = unsafe { ioctl::backing_close(self.device.as_raw_fd(), &raw const id) };
    }
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes)
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes)
}
