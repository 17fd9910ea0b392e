//! Integers as differences (DELTA_BINARY_PACKED).
//!
//! ```text
//! head    varints: values in a block, parts in a block, values at all; zigzag: the first value
//! block   zigzag: least difference; one byte per part: its width in bits; the parts, packed in bits
//! ```

use super::hybrid::bits;
use super::thrift::Reader;

/// Most parts of a block, and most values of a part: writers have 4 and 32.
const PARTS_MAX: u64 = 256;
const PART_MAX: u64 = 1 << 16;

/// The values of one encoded run of bytes.
#[derive(Debug)]
pub(super) struct Delta<'a> {
    reader: Reader<'a>,
    per_part: u64,
    parts: u64,
    /// Values that are still to come.
    left: u64,
    value: i64,
    is_first: bool,
    least: i64,
    widths: &'a [u8],
    packed: &'a [u8],
    at: u64,
    /// Differences left in the part.
    in_part: u64,
}

impl<'a> Delta<'a> {
    /// None when the head is none.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let block = reader.varint().ok()?;
        let parts = reader.varint().ok()?;
        let left = reader.varint().ok()?;
        let value = reader.zigzag().ok()?;
        let fits = (1..=PARTS_MAX).contains(&parts) && block.is_multiple_of(parts);
        let per_part = if fits { block / parts } else { 0 };
        if !(1..=PART_MAX).contains(&per_part) || !per_part.is_multiple_of(8) {
            return None;
        }
        Some(Self {
            reader,
            per_part,
            parts,
            left,
            value,
            is_first: true,
            least: 0,
            widths: &[],
            packed: &[],
            at: 0,
            in_part: 0,
        })
    }

    /// Values that are still to come, as the head says.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The bytes behind the values; every value has to be read before.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    fn next_part(&mut self) -> Option<()> {
        if self.widths.is_empty() {
            self.least = self.reader.zigzag().ok()?;
            self.widths = self.reader.take(self.parts).ok()?;
        }
        let (width, rest) = self.widths.split_first()?;
        self.widths = rest;
        let width = u64::from(*width);
        if width > 64 {
            return None;
        }
        self.packed = self.reader.take(self.per_part * width / 8).ok()?;
        self.at = 0;
        self.in_part = self.per_part;
        Some(())
    }
}

impl Iterator for Delta<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        self.left = self.left.checked_sub(1)?;
        if self.is_first {
            self.is_first = false;
            return Some(self.value);
        }
        if self.in_part == 0 {
            self.next_part()?;
        }
        let width = (self.packed.len() as u64 * 8 / self.per_part) as u32;
        let difference = bits(self.packed, self.at, width)?;
        self.at += u64::from(width);
        self.in_part -= 1;
        // The format adds without regard to overflow.
        let step = self.least.wrapping_add(difference as i64);
        self.value = self.value.wrapping_add(step);
        Some(self.value)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // The first example of the format's specification: 1 to 5, each one more than the one before.
    #[test]
    fn the_specification_is_followed() {
        let bytes = [0x80, 0x01, 0x04, 0x05, 0x02, 0x02, 0, 0, 0, 0];
        let values: Vec<i64> = Delta::new(&bytes).unwrap().collect();
        assert_eq!(values, [1, 2, 3, 4, 5]);
    }

    proptest! {
        // The bytes are a stranger's.
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(values) = Delta::new(&bytes) {
                let _ = values.take(1000).count();
            }
        }
    }
}
