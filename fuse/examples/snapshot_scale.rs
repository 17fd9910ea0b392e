//! How a snapshot scales: builds one of N entries (default one million) and prints the time to
//! build, the time to mount, the time per lookup, and the resident memory per entry once all of it
//! was touched.
//!
//! `cargo run -p terrace-fuse --example snapshot_scale -- [ENTRIES] [DIRECTORY]`
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::time::Instant;

use terrace_cache::{Token, Version};
use terrace_fuse::namespace::{Ino, Namespace as _};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::{Builder, Entry, EntryKind, Snapshot, Surplus};

/// Files per directory, as in a large image folder.
const PER_DIRECTORY: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let files: u64 = arguments.next().as_deref().unwrap_or("1000000").parse()?;
    let directory = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let path = directory.join(format!("terrace-scale-{}.snapshot", std::process::id()));
    let result = build(files, &path).and_then(|()| measure(&path));
    std::fs::remove_file(&path)?;
    result
}

fn build(files: u64, path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let before = resident()?;
    let mut builder = Builder::new("s3://bucket", "train", Surplus::Refuse);
    for number in 0..files {
        // A permutation: neighbours in the input are not neighbours in the tree.
        let number = number * 7_919 % files;
        let path = format!("n{:08}/image_{number:010}.JPEG", number / PER_DIRECTORY);
        let digest = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let etag = format!("\"{digest:032x}\"").into();
        let token = Token::ETag {
            etag,
            version_id: None,
        };
        let version = Version {
            token,
            size: 110_000 + number % 7,
            mtime_ns: number as i64,
        };
        builder.push(&Entry {
            path: &path,
            mode: None,
            kind: EntryKind::File(&version),
        })?;
    }
    let memory = resident()?.saturating_sub(before);
    let built = builder.finish(path)?;
    let entries = built.entries;
    println!("entries        {entries}");
    println!("build          {:.2} s", start.elapsed().as_secs_f64());
    println!("build memory   {} bytes per entry", memory / entries);
    println!(
        "file           {:.1} bytes per entry",
        built.file_len as f64 / entries as f64
    );
    Ok(())
}

fn measure(path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let before = resident()?;
    let start = Instant::now();
    let snapshot = Snapshot::open(path, Ownership::default())?;
    snapshot.attr(Ino::ROOT)?;
    println!(
        "mount          {:.2} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    let entries = snapshot.entries();
    let start = Instant::now();
    for number in 1..=entries {
        snapshot.attr(Ino(number))?;
        snapshot.node(Ino(number))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "first scan     {:.0} ns per entry, checksums included",
        seconds * 1e9 / entries as f64
    );
    let start = Instant::now();
    let lookups = entries.min(1_000_000);
    for number in 0..lookups {
        let node = snapshot.node(Ino(number * 7_907 % (entries - 1) + 2))?;
        let found = snapshot
            .try_lookup(node.parent, &node.name)
            .ok_or("a snapshot always knows")??;
        assert_eq!(found.ino, node.ino);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("lookup         {:.0} ns", seconds * 1e9 / lookups as f64);
    snapshot.object(Ino(entries))?;
    snapshot.verify()?;
    println!(
        "resident       {:.1} bytes per entry",
        (resident()? - before) as f64 / entries as f64
    );
    Ok(())
}

/// Resident bytes of this process, mapped files included.
fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .ok_or("no VmRSS")?
        .parse()?;
    Ok(kib * 1024)
}
