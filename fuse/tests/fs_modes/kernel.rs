//! A model of the kernel that says where an application would have seen EIO.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use terrace_fuse::fs::Kernel;
use terrace_fuse::handles::Mode;

/// What the kernel remembers of one mount.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) next_id: u32,
    pub(crate) ids: BTreeSet<u32>,
    /// Bytes behind each id ever registered.
    pub(crate) contents: HashMap<u32, (u64, u64)>,
    pub(crate) inodes: HashMap<u64, Inode>,
    pub(crate) names: HashMap<String, u64>,
    pub(crate) most_ids: usize,
}

/// `iocachectr` and the backing file of a kernel inode.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inode {
    pub(crate) cached: u32,
    pub(crate) passthrough: u32,
    pub(crate) backing: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FakeKernel(pub(crate) Arc<Mutex<Model>>);

impl Kernel for FakeKernel {
    fn open_backing(&self, file: &File) -> io::Result<u32> {
        let mut model = self.0.lock().unwrap();
        model.next_id += 1;
        let id = model.next_id;
        model.ids.insert(id);
        model.most_ids = model.most_ids.max(model.ids.len());
        let mut head = [0; 8];
        let size = file.metadata()?.len();
        let read = file.read_at(&mut head, 0)?;
        model
            .contents
            .insert(id, (size, u64::from_le_bytes(head) * u64::from(read == 8)));
        Ok(id)
    }

    fn close_backing(&self, id: u32) -> io::Result<()> {
        let known = self.0.lock().unwrap().ids.remove(&id);
        if known {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOENT))
        }
    }

    fn forget_attributes(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn forget_name(&self, parent: u64, name: &[u8]) -> io::Result<()> {
        assert_eq!(parent, 1);
        self.0
            .lock()
            .unwrap()
            .names
            .remove(std::str::from_utf8(name).unwrap());
        Ok(())
    }
}

impl Model {
    /// A reply to OPEN as fs/fuse/iomode.c takes it; an error is what the application gets.
    pub(crate) fn opened(&mut self, node: u64, mode: Mode) -> Result<(), String> {
        let inode = self.inodes.entry(node).or_default();
        match mode {
            Mode::Cached if inode.passthrough > 0 => {
                Err(format!("EIO: cached beside passthrough {inode:?}"))
            }
            Mode::Cached => {
                inode.cached += 1;
                Ok(())
            }
            Mode::Passthrough(id) if !self.ids.contains(&id) => {
                Err(format!("EIO: id {id} is not registered"))
            }
            Mode::Passthrough(_) if inode.cached > 0 => {
                Err(format!("EIO: passthrough beside cached {inode:?}"))
            }
            Mode::Passthrough(id) if inode.backing.is_some_and(|other| other != id) => {
                Err(format!("EIO: id {id} beside another {inode:?}"))
            }
            Mode::Passthrough(id) => {
                inode.passthrough += 1;
                inode.backing = Some(id);
                Ok(())
            }
        }
    }

    /// What the kernel does before it sends RELEASE.
    pub(crate) fn closed(&mut self, node: u64, mode: Mode) {
        let inode = self.inodes.get_mut(&node).unwrap();
        match mode {
            Mode::Cached => inode.cached -= 1,
            Mode::Passthrough(_) => inode.passthrough -= 1,
        }
        if inode.passthrough == 0 {
            inode.backing = None;
        }
    }
}
