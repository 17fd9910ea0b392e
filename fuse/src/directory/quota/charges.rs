//! What is paid by the file: one that is being made, and one that has no name any more.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use super::{Quota, Sum, length, signed};

/// One file that was taken: given back when dropped, unless it was made.
#[derive(Debug)]
pub(in crate::directory) struct Charge(Option<Arc<Quota>>);

impl Charge {
    /// Takes one file of the limit; without a limit, nothing.
    ///
    /// Errors: `EDQUOT`.
    pub(in crate::directory) fn file(quota: Option<&Arc<Quota>>) -> Result<Self, Errno> {
        if let Some(quota) = quota {
            quota.take(0, 1)?;
        }
        Ok(Self(quota.map(Arc::clone)))
    }

    /// It was made.
    pub(in crate::directory) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(quota) = &self.0 {
            quota.settle(0, -1);
        }
    }
}

/// A node without a name, open as long as this lives. What it took is given back with it, as the space
/// itself is.
#[derive(Debug)]
pub(in crate::directory) struct Kept {
    /// What has its bytes: the node itself, or a file of the spool.
    bytes: Arc<OwnedFd>,
    /// The node, when that is another file.
    _node: Option<OwnedFd>,
    before: FileStat,
    /// Where it counts, and under which number.
    charged: Option<(Arc<Quota>, u64)>,
}

impl Kept {
    /// Keeps a node whose last name has just gone. `staged`: what has its bytes instead; `before`: its
    /// attributes until then.
    pub(super) fn new(
        fd: OwnedFd,
        staged: Option<OwnedFd>,
        before: FileStat,
        quota: Option<&Arc<Quota>>,
    ) -> Self {
        let (bytes, node) = match staged {
            Some(staged) => (Arc::new(staged), Some(fd)),
            None => (Arc::new(fd), None),
        };
        let charged = quota.map(|quota| {
            let number = quota.state().keep(&bytes, length(&before));
            (Arc::clone(quota), number)
        });
        Self {
            bytes,
            _node: node,
            before,
            charged,
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some((quota, number)) = &self.charged {
            // It may have been written after its name went; where nobody can say, as before.
            let now = fstat(&*self.bytes).unwrap_or(self.before);
            let mut state = quota.state();
            let kept = state.kept.remove(number);
            state.add(Sum {
                bytes: -signed(length(&now)),
                files: -1,
            });
            drop(state);
            drop(kept); // never the last one: that is here
        }
    }
}
