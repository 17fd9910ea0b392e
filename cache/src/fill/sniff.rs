//! Recognises files that are read whole, from their first bytes.
//!
//! Model weights are opened by reading a header and then mapping or reading everything, in an
//! order that looks random. Waiting for a pattern would cost most of the file one block at a time,
//! so the header decides. Columnar files (Parquet, ORC, Arrow) are left out on purpose: their
//! readers take a few columns.
//!
//! - safetensors: `u64` LE length N of a JSON header, then `{` (format of Hugging Face, 2022).
//! - GGUF: magic `GGUF`, then a `u32` LE version.

/// Whether an object of `size` bytes that begins with `head` is one that readers take whole.
pub(super) fn wants_whole(head: &[u8], size: u64) -> bool {
    safetensors(head, size) || gguf(head)
}

fn safetensors(head: &[u8], size: u64) -> bool {
    /// The format's own limit on the header.
    const LONGEST_HEADER: u64 = 100_000_000;
    let Some((length, rest)) = head.split_first_chunk::<8>() else {
        return false;
    };
    let length = u64::from_le_bytes(*length);
    rest.first() == Some(&b'{')
        && (2..=LONGEST_HEADER).contains(&length)
        && length.checked_add(8).is_some_and(|end| end < size)
}

fn gguf(head: &[u8]) -> bool {
    let Some((magic, rest)) = head.split_first_chunk::<4>() else {
        return false;
    };
    let Some((version, _)) = rest.split_first_chunk::<4>() else {
        return false;
    };
    magic == b"GGUF" && (1..100).contains(&u32::from_le_bytes(*version))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a model's weights would be fetched one page fault at a time, or a table of which
    // two columns are read would be fetched whole.
    #[test]
    fn weights_are_taken_whole_and_tables_are_not() {
        let mut weights = 4096_u64.to_le_bytes().to_vec();
        weights.extend_from_slice(b"{\"__metadata__\":");
        let cases: [(&[u8], u64, bool); 8] = [
            (&weights, 1 << 30, true),
            (&weights, 4096, false),
            (&weights[..8], 1 << 30, false),
            (b"GGUF\x03\0\0\0", 1 << 30, true),
            (b"GGUFFAWK", 1 << 30, false),
            (b"PAR1....", 1 << 30, false),
            (b"{\"a\": 1}{", 1 << 30, false),
            (b"", 0, false),
        ];
        for (head, size, expected) in cases {
            assert_eq!(wants_whole(head, size), expected, "{head:?} of {size}");
        }
    }
}
