//! Sizes, as requests have them: a least and a most.

use tonic::Status;

use crate::wire::CapacityRange;

/// Bounds of a size in bytes; `most` is 0 when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Size {
    /// Reads a range; an absent one bounds nothing.
    ///
    /// Errors: OUT_OF_RANGE for what no size can be.
    pub(super) fn parse(range: Option<&CapacityRange>) -> Result<Self, Status> {
        let range = range.copied().unwrap_or_default();
        let bytes = |bytes: i64| {
            u64::try_from(bytes).map_err(|_| Status::out_of_range("a size cannot be negative"))
        };
        let size = Self {
            least: bytes(range.required_bytes)?,
            most: bytes(range.limit_bytes)?,
        };
        if size.most != 0 && size.least > size.most {
            return Err(Status::out_of_range("the required size is above the limit"));
        }
        Ok(size)
    }

    /// Whether a volume of so many bytes is within.
    pub(super) fn fits(self, bytes: u64) -> bool {
        bytes >= self.least && (self.most == 0 || bytes <= self.most)
    }

    /// What a volume of so many bytes grows to: never less than it has.
    ///
    /// Errors: OUT_OF_RANGE when that is too much for who asks.
    pub(super) fn grown(self, bytes: u64) -> Result<u64, Status> {
        let wanted = bytes.max(self.least);
        if self.most != 0 && wanted > self.most {
            return Err(Status::out_of_range(format!(
                "the volume has {bytes} bytes and does not shrink; copy it into a smaller one"
            )));
        }
        Ok(wanted)
    }
}

/// As answers have them.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
