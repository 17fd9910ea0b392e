//! What the file system asks of the kernel outside of replies.

use std::fmt::Debug;
use std::fs::File;
use std::io;

/// One connection to the kernel. Methods may block for as long as the kernel needs.
pub trait Kernel: Send + Sync + Debug + 'static {
    /// Registers a file for passthrough; returns its backing id, which is never 0.
    ///
    /// Errors: EPERM without CAP_SYS_ADMIN or when passthrough was not agreed on, ELOOP when the
    /// file lies on a stacked file system, and those of a file that cannot be read and mapped.
    fn open_backing(&self, file: &File) -> io::Result<u32>;

    /// Ends a registration. Open handles that use it go on.
    fn close_backing(&self, id: u32) -> io::Result<()>;

    /// Makes the kernel ask for the attributes of `node` again. Waits for nothing.
    fn forget_attributes(&self, node: u64) -> io::Result<()>;

    /// Makes the kernel ask again what `name` in directory `parent` is. Waits for lookups in that
    /// directory, so it must not be called by a thread that answers requests.
    fn forget_name(&self, parent: u64, name: &[u8]) -> io::Result<()>;
}
