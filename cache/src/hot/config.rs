//! Settings of the hot tier. Sizes are in bytes, times in the units their names say.

use std::path::PathBuf;
use std::time::Duration;

/// Where the hot tier lives and how much it may use.
#[derive(Clone, Debug)]
pub struct HotConfig {
    /// Directory of the tier; created when missing, mode 0700. No default.
    pub directory: PathBuf,
    /// Most bytes the tier may hold, bytes still held by readers of evicted objects included.
    /// Default: 64 GiB.
    pub limit_bytes: u64,
    /// Bytes of the file system the tier leaves free for others. Default: 1 GiB.
    pub min_free_bytes: u64,
    /// Inodes of the file system the tier leaves free for others. Default: 1000.
    pub min_free_inodes: u64,
    /// Deadline of one operation on the disk. Default: 3 s.
    pub operation_timeout: Duration,
    /// Threads for operations on the disk. Default: 8.
    pub io_threads: usize,
    /// How long a filled object waits for the others it is synced with. Default: 500 ms.
    pub sync_interval: Duration,
    /// How often the state of partly filled objects is written down. Default: 5 s.
    pub checkpoint_interval: Duration,
    /// Bytes per second that the background scrub reads; 0 turns it off. Default: 8 MiB/s.
    pub scrub_bytes_per_second: u64,
    /// The background scrub leaves objects alone that were verified since. Default: 24 h.
    pub scrub_min_age: Duration,
    /// How long after an unclean end the search for files without a record waits, so that it does
    /// not compete with the applications that wait for the new process. Default: 2 s.
    pub sweep_after: Duration,
    /// How often a tier that is not healthy is probed. Default: 500 ms.
    pub probe_interval: Duration,
    /// What tells one boot of the machine from another. Default: `None`, the kernel's boot id.
    pub boot_id: Option<[u8; 16]>,
}

impl HotConfig {
    /// The defaults, in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            limit_bytes: 64 << 30,
            min_free_bytes: 1 << 30,
            min_free_inodes: 1000,
            operation_timeout: Duration::from_secs(3),
            io_threads: 8,
            sync_interval: Duration::from_millis(500),
            checkpoint_interval: Duration::from_secs(5),
            scrub_bytes_per_second: 8 << 20,
            scrub_min_age: Duration::from_secs(24 * 3600),
            sweep_after: Duration::from_secs(2),
            probe_interval: Duration::from_millis(500),
            boot_id: None,
        }
    }
}
