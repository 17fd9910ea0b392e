//! Small integers as Parquet packs them: runs of one value, and groups of eight packed in bits.
//!
//! ```text
//! run      varint: length << 1          then the value in (width + 7) / 8 bytes, little-endian
//! packed   varint: groups << 1 | 1      then groups * width bytes, least significant bit first
//! ```

use super::thrift::Reader;

/// Widest value.
const WIDTH_MAX: u32 = 32;

/// The values of one encoded run of bytes, one after the other. Ends where the bytes end.
#[derive(Debug)]
pub(super) struct Hybrid<'a> {
    reader: Reader<'a>,
    width: u32,
    state: State<'a>,
}

#[derive(Debug)]
enum State<'a> {
    Run { left: u64, value: u32 },
    Packed { bytes: &'a [u8], at: u64, left: u64 },
}

impl<'a> Hybrid<'a> {
    /// None for a width that no value has.
    pub(super) fn new(bytes: &'a [u8], width: u32) -> Option<Self> {
        (width <= WIDTH_MAX).then(|| Self {
            reader: Reader::new(bytes),
            width,
            state: State::Run { left: 0, value: 0 },
        })
    }

    fn refill(&mut self) -> Option<()> {
        let head = self.reader.varint().ok()?;
        let count = head >> 1;
        if head & 1 == 0 {
            let bytes = self.reader.take(u64::from(self.width.div_ceil(8))).ok()?;
            let mut value = [0; 4];
            value[..bytes.len()].copy_from_slice(bytes);
            let value = u32::from_le_bytes(value);
            self.state = State::Run { left: count, value };
        } else {
            // The last group may be cut where the values end.
            let wanted = count.checked_mul(u64::from(self.width))?;
            let there = wanted.min(self.reader.rest().len() as u64);
            let bytes = self.reader.take(there).ok()?;
            let left = match self.width {
                0 => count.saturating_mul(8),
                width => there * 8 / u64::from(width),
            };
            self.state = State::Packed { bytes, at: 0, left };
        }
        Some(())
    }
}

impl Iterator for Hybrid<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            match &mut self.state {
                State::Run { left, value } if *left > 0 => {
                    *left -= 1;
                    return Some(*value);
                }
                State::Packed { bytes, at, left } if *left > 0 => {
                    *left -= 1;
                    let value = bits(bytes, *at, self.width)?;
                    *at += u64::from(self.width);
                    return u32::try_from(value).ok();
                }
                _ => self.refill()?,
            }
        }
    }
}

/// `width` bits (at most 64) from bit `at` on, the least significant first.
pub(super) fn bits(bytes: &[u8], at: u64, width: u32) -> Option<u64> {
    let mut value = 0u64;
    let mut done = 0;
    while done < width {
        let bit = at + u64::from(done);
        let byte = *bytes.get(usize::try_from(bit / 8).ok()?)?;
        let inside = u32::try_from(bit % 8).ok()?;
        let taken = (8 - inside).min(width - done);
        let mask = (1u32 << taken) - 1;
        value |= u64::from((u32::from(byte) >> inside) & mask) << done;
        done += taken;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // The example of the format's specification: 0 to 7 in three bits each.
    #[test]
    fn the_specification_is_followed() {
        let packed = [0x03, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        let values: Vec<u32> = Hybrid::new(&packed, 3).unwrap().collect();
        assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7]);
        let run = [0x0a, 0x07, 0x02, 0x01];
        let values: Vec<u32> = Hybrid::new(&run, 3).unwrap().collect();
        assert_eq!(values, [7, 7, 7, 7, 7, 1]);
    }

    proptest! {
        // The bytes are a stranger's.
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..64), width in 0u32..40) {
            if let Some(values) = Hybrid::new(&bytes, width) {
                let _ = values.take(1000).count();
            }
        }
    }
}
