//! The sidecar: the block table of an object too large to keep it in the index.
//!
//! `objects/<xx>/<digest>.<incarnation>.map`, beside the data file it describes. All integers are
//! little-endian.
//! ```text
//! 0    8  magic `TERRMAP1` (the last character is the format version)
//! 8   32  digest of the object
//! 40   8  length of the object in bytes
//! 48   8  incarnation of the data file
//! 56   4  block size in bytes (1048576)
//! 60   4  number of blocks n
//! 64   .  block table (see `blocks.rs`): bitmap, then n checksums
//! end  4  crc32c of all bytes before it
//! ```
//! A reader takes nothing from a sidecar whose magic, checksum, length, digest, incarnation or
//! block size is not what it expects: the object is then forgotten. It is written to
//! `<name>.map.new` and renamed, and never ordered with the data: a block that a sidecar calls
//! present is checked against its checksum before the first byte of it is used.

use super::BLOCK;
use super::blocks::BlockTable;
use super::codec::Reader;
use crate::identity::Digest;

const MAGIC: &[u8; 8] = b"TERRMAP1";

/// Encodes the sidecar of the data file (`digest`, `incarnation`).
pub(super) fn encode(digest: &Digest, incarnation: u64, size: u64, table: &BlockTable) -> Vec<u8> {
    let mut out = Vec::with_capacity(68 + BlockTable::encoded_length(table.count()));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&digest.0);
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&incarnation.to_le_bytes());
    out.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    out.extend_from_slice(&table.count().to_le_bytes());
    table.encode(&mut out);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Decodes a sidecar that must describe exactly this data file; says why it does not.
pub(super) fn decode(
    bytes: &[u8],
    digest: &Digest,
    incarnation: u64,
    size: u64,
) -> Result<BlockTable, &'static str> {
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err("sidecar is too short");
    };
    if !body.starts_with(MAGIC) {
        return Err("sidecar has another magic or version");
    }
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err("sidecar fails its checksum");
    }
    let mut reader = Reader(&body[MAGIC.len()..]);
    let mut fields = || {
        Some((
            reader.array::<32>()?,
            reader.u64()?,
            reader.u64()?,
            reader.u32()?,
            reader.u32()?,
        ))
    };
    let (found, found_size, found_incarnation, block, count) =
        fields().ok_or("sidecar is too short")?;
    if found != digest.0 || found_size != size || found_incarnation != incarnation {
        return Err("sidecar describes another file");
    }
    if u64::from(block) != BLOCK || count != super::blocks::block_count(size) {
        return Err("sidecar has another block size");
    }
    let table = BlockTable::decode(size, &mut reader).ok_or("sidecar contradicts itself")?;
    if !reader.0.is_empty() {
        return Err("sidecar is too long");
    }
    Ok(table)
}
