//! What the kernel's FUSE costs when the server does nothing: the floor under every open of a small file.
//!
//! ```text
//! cargo run -p terrace-fuse --example open_floor -- DIRECTORY [FILES] [ROUNDS]
//! ```
//!
//! Needs root. DIRECTORY is on the file system to compare with (its own files are made and removed).
//! The server below speaks the protocol of linux/fuse.h (7.40) itself: no library, no tables but an
//! array, no counters, no tracing. Each kind of answer to OPEN is a mount of its own and is measured
//! in turns with the native directory: files opened, read and closed by 4 threads in shuffled order,
//! everything in the page cache.
//!
//! | answer | what the kernel does then |
//! | --- | --- |
//! | `kept` | passthrough, by an id registered once for each file |
//! | `anew` | passthrough, by an id registered for each open and closed with it |
//! | `cached` | its own page cache, kept from open to open |
//! | `none` | ENOSYS once: no OPEN and no RELEASE at all |
//!
//! Printed: files each second, ratio to native, and microseconds of processor time of reader and
//! server together for each file.

mod server;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use server::{Answer, SIZE, Server};

const READERS: usize = 4;

const ANSWERS: [(&str, Answer); 4] = [
    ("kept", Answer::Kept),
    ("anew", Answer::Anew),
    ("cached", Answer::Cached),
    ("none", Answer::None),
];

/// Reads all files; files each second and microseconds of processor time for each.
fn measure(directory: &Path, order: &[usize]) -> io::Result<(f64, f64)> {
    let next = AtomicUsize::new(0);
    let reader = || -> io::Result<()> {
        let mut buffer = Vec::with_capacity(SIZE + 1);
        while let Some(number) = order.get(next.fetch_add(1, Relaxed)) {
            buffer.clear();
            File::open(directory.join(number.to_string()))?.read_to_end(&mut buffer)?;
            assert_eq!(buffer.len(), SIZE, "file {number}");
        }
        Ok(())
    };
    let (begun, used) = (Instant::now(), processor_time());
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
        readers.into_iter().try_for_each(|reader| {
            reader
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a reader died")))
        })
    })?;
    let count = order.len() as f64;
    let rate = count / begun.elapsed().as_secs_f64();
    Ok((rate, (processor_time() - used).as_secs_f64() * 1e6 / count))
}

/// Of this process, which is reader and server.
fn processor_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.map_or(Duration::ZERO, |usage| {
        let sum = usage.user_time() + usage.system_time();
        Duration::from_micros((sum.tv_sec() * 1_000_000 + sum.tv_usec()).cast_unsigned())
    })
}

/// Mounts at `mountpoint` and compares with `native`.
fn compare(
    (name, answer): (&str, Answer),
    threads: usize,
    [native, mountpoint]: [&Path; 2],
    order: &[usize],
    rounds: usize,
) -> io::Result<()> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,max_read=1048576",
        device.as_raw_fd()
    );
    mount(
        Some("open_floor"),
        mountpoint,
        Some("fuse"),
        MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
        Some(options.as_str()),
    )?;
    let files = (0..order.len()).map(|number| File::open(native.join(number.to_string())));
    let server = Server {
        device,
        answer,
        files: files.collect::<Result<_, _>>()?,
        ids: order.iter().map(|_| AtomicU32::new(0)).collect(),
        requests: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let served: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| server.serve()))
            .collect();
        let measured = rounds_of([native, mountpoint], order, rounds, &server.requests);
        umount2(mountpoint, MntFlags::MNT_DETACH)?;
        for thread in served {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the server died")))?;
        }
        let [ratio, native_rate, rate, native_time, time, requests] = measured?;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{name:<8} {threads} thread(s): native {native_rate:7.0}/s {native_time:5.1} us   \
             here {rate:7.0}/s {time:5.1} us {requests:4.2} requests   ratio {ratio:.3}   \
             by processor time {:.3}",
            native_time / time
        )
    })
}

/// Medians of: ratio, both rates, both processor times, requests for each file.
fn rounds_of(
    [native, mountpoint]: [&Path; 2],
    order: &[usize],
    rounds: usize,
    requests: &AtomicU64,
) -> io::Result<[f64; 6]> {
    measure(mountpoint, order)?;
    measure(native, order)?;
    let mut columns: [Vec<f64>; 6] = Default::default();
    for round in 0..rounds {
        let first = (round % 2 == 0)
            .then(|| measure(native, order))
            .transpose()?;
        let before = requests.load(Relaxed);
        let ours = measure(mountpoint, order)?;
        let asked = (requests.load(Relaxed) - before) as f64 / order.len() as f64;
        let native = first.map_or_else(|| measure(native, order), Ok)?;
        let row = [ours.0 / native.0, native.0, ours.0, native.1, ours.1, asked];
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    Ok(columns.map(|mut column| {
        column.sort_by(f64::total_cmp);
        column.get(column.len() / 2).copied().unwrap_or(f64::NAN)
    }))
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = || io::Error::other("usage: open_floor DIRECTORY [FILES] [ROUNDS]");
    let base = arguments.next().map(PathBuf::from).ok_or_else(usage)?;
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse());
    let files: usize = number(8000).map_err(|_| usage())?;
    let rounds: usize = number(5).map_err(|_| usage())?;
    let limit = files as u64 + 1024;
    let resource = nix::sys::resource::Resource::RLIMIT_NOFILE;
    nix::sys::resource::setrlimit(resource, limit, limit)?;

    let work = tempfile::tempdir_in(&base)?;
    let (native, mountpoint) = (work.path().join("native"), work.path().join("mount"));
    std::fs::create_dir(&native)?;
    std::fs::create_dir(&mountpoint)?;
    for number in 0..files {
        std::fs::write(native.join(number.to_string()), vec![number as u8; SIZE])?;
    }
    let mut order: Vec<usize> = (0..files).collect();
    order.shuffle(&mut StdRng::seed_from_u64(1));
    for answer in ANSWERS {
        for threads in [1, 2] {
            compare(answer, threads, [&native, &mountpoint], &order, rounds)?;
        }
    }
    Ok(())
}
