//! The FUSE_INIT exchange on the wire, as far as a take-over must understand it.
//!
//! Layout (linux/fuse.h, protocol 7.36 and later, native byte order):
//! ```text
//! request  0 len u32 | 4 opcode u32 = 26 | 8 unique u64 | 16..40 nodeid, ids | then init_in:
//!         40 major u32 | 44 minor u32 | 48 max_readahead u32 | 52 flags u32 | 56 flags2 u32 | ...
//! reply    0 len u32 | 4 error i32 | 8 unique u64 | then init_out:
//!         16 major u32 | 20 minor u32 | 24 max_readahead u32 | 28 flags u32 |
//!         32 max_background u16, congestion u16 | 36 max_write u32 | 40 time_gran u32 |
//!         44 max_pages u16, map_alignment u16 | 48 flags2 u32 | ...
//! ```
//! What the first worker agreed to binds the mount for ever. So a later worker is offered only the
//! flags of the first answer: whatever its version, it cannot believe in a feature the kernel has
//! not switched on for this mount.

use std::io;

use crate::keeper::InitRecord;

const OPCODE_INIT: u32 = 26;
const REQUEST_FLAGS: usize = 52;
const REQUEST_FLAGS2: usize = 56;
const REPLY_FLAGS: usize = 28;
const REPLY_FLAGS2: usize = 48;

/// `FUSE_INIT_EXT`: flags2 is valid. It says how to read the rest, so it is always offered.
const INIT_EXT: u32 = 1 << 30;

/// The request to feed a worker with: the kernel's own at first, later restricted to what was agreed.
pub(super) fn offer(record: &InitRecord) -> io::Result<Vec<u8>> {
    let mut request = record.request.clone();
    if word(&request, 4)? != OPCODE_INIT {
        return Err(invalid("the record is not a FUSE_INIT request"));
    }
    let Some(reply) = &record.reply else {
        return Ok(request);
    };
    let agreed = word(reply, REPLY_FLAGS)?;
    // Old kernels send no flags2, and then an answer that has some means nothing.
    let agreed2 = word(reply, REPLY_FLAGS2).unwrap_or(0);
    let flags = word(&request, REQUEST_FLAGS)? & (agreed | INIT_EXT);
    put(&mut request, REQUEST_FLAGS, flags);
    if let Ok(flags2) = word(&request, REQUEST_FLAGS2) {
        put(&mut request, REQUEST_FLAGS2, flags2 & agreed2);
    }
    Ok(request)
}

/// Refuses an answer by which the worker refuses the mount.
pub(super) fn check_reply(reply: &[u8]) -> io::Result<()> {
    match word(reply, 4)?.cast_signed() {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    }
}

fn word(bytes: &[u8], offset: usize) -> io::Result<u32> {
    bytes
        .get(offset..offset + 4)
        .and_then(|word| word.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or_else(|| invalid("the FUSE_INIT record is too short"))
}

fn put(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn request(flags: u32, flags2: u32) -> Vec<u8> {
        let mut bytes = vec![0; 104];
        put(&mut bytes, 4, OPCODE_INIT);
        put(&mut bytes, REQUEST_FLAGS, flags);
        put(&mut bytes, REQUEST_FLAGS2, flags2);
        bytes
    }

    #[test]
    fn a_later_worker_is_offered_only_what_the_first_one_agreed_to() {
        // Without it a new version would use features that the mount does not have: EIO, or worse.
        let mut record = InitRecord {
            request: request(INIT_EXT | 0b1111, 0b1100),
            reply: None,
        };
        assert_eq!(offer(&record).unwrap(), record.request);
        let mut reply = vec![0; 80];
        put(&mut reply, REPLY_FLAGS, 0b0101);
        put(&mut reply, REPLY_FLAGS2, 0b0110);
        record.reply = Some(reply);
        assert_eq!(offer(&record).unwrap(), request(INIT_EXT | 0b0101, 0b0100));
    }

    #[test]
    fn records_that_are_cut_or_of_another_kind_are_errors() {
        // Without it a broken hand-over would panic the worker in a loop.
        for length in 0..56 {
            let record = InitRecord {
                request: request(1, 1)[..length].to_vec(),
                reply: Some(vec![0; length]),
            };
            assert!(offer(&record).is_err());
        }
        assert!(
            offer(&InitRecord {
                request: vec![0; 104],
                reply: None
            })
            .is_err()
        );
        assert!(check_reply(&[0; 4]).is_err());
        let refused = [16_i32, -95, 0, 0].map(i32::to_ne_bytes).concat();
        assert_eq!(check_reply(&refused).unwrap_err().raw_os_error(), Some(95));
    }
}
