//! The part of Thrift's compact protocol that a Parquet footer is written in.
//!
//! ```text
//! field    delta of the id (4 bits, 0: zigzag varint follows) | kind (4 bits);  0x00 ends a structure
//! list     length (4 bits, 15: varint follows) | kind of its elements (4 bits)
//! kinds    1 true  2 false  3 byte  4 5 6 zigzag varint  7 double  8 bytes with a varint length
//!          9 list  10 set  11 map  12 structure
//! ```
//!
//! The reader walks and skips; it builds nothing, so hostile bytes cost no more than their length, and
//! nesting is limited.

/// Deepest nesting: a footer needs seven levels.
const DEPTH_MAX: u8 = 32;

/// The bytes are not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// Type of a value, as in the module text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) const TRUE: Self = Self(1);
    const FALSE: Self = Self(2);
    pub(super) const BINARY: Self = Self(8);
    pub(super) const LIST: Self = Self(9);
    pub(super) const STRUCT: Self = Self(12);

    pub(super) fn is_integer(self) -> bool {
        (3..=6).contains(&self.0)
    }
}

/// Reads values from the front of a slice.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    depth: u8,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, depth: 0 }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.bytes.split_first().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A signed integer, small ones in few bytes.
    pub(super) fn zigzag(&mut self) -> Result<i64> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// An integer of any width.
    pub(super) fn integer(&mut self, kind: Kind) -> Result<i64> {
        match kind.0 {
            3 => Ok(i64::from(self.byte()? as i8)),
            4..=6 => self.zigzag(),
            _ => Err(Malformed),
        }
    }

    pub(super) fn binary(&mut self, kind: Kind) -> Result<&'a [u8]> {
        if kind != Kind::BINARY {
            return Err(Malformed);
        }
        let length = self.varint()?;
        self.take(length)
    }

    pub(super) fn text(&mut self, kind: Kind) -> Result<String> {
        Ok(String::from_utf8_lossy(self.binary(kind)?).into_owned())
    }

    /// Calls `element` for each element of a list.
    pub(super) fn list(
        &mut self,
        kind: Kind,
        mut element: impl FnMut(&mut Self, Kind) -> Result<()>,
    ) -> Result<()> {
        if kind != Kind::LIST {
            return Err(Malformed);
        }
        let (length, inner) = self.list_head()?;
        self.enter()?;
        for _ in 0..length {
            element(self, inner)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn list_head(&mut self) -> Result<(u64, Kind)> {
        let head = self.byte()?;
        let length = match head >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        // Every element takes at least a byte.
        if length > self.bytes.len() as u64 {
            return Err(Malformed);
        }
        Ok((length, Kind(head & 15)))
    }

    /// Calls `field` for each field of a structure, with its id and kind. It must read the value, or
    /// call [`Reader::skip`].
    pub(super) fn structure(
        &mut self,
        kind: Kind,
        mut field: impl FnMut(&mut Self, i64, Kind) -> Result<()>,
    ) -> Result<()> {
        if kind != Kind::STRUCT {
            return Err(Malformed);
        }
        self.enter()?;
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                break;
            }
            id = match head >> 4 {
                0 => self.integer(Kind(4))?,
                delta => id.checked_add(i64::from(delta)).ok_or(Malformed)?,
            };
            field(self, id, Kind(head & 15))?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            Err(Malformed)
        } else {
            Ok(())
        }
    }

    /// Passes over a value. A boolean field has its value in its kind; in a list it has a byte.
    pub(super) fn skip(&mut self, kind: Kind) -> Result<()> {
        match kind.0 {
            1 | 2 => Ok(()),
            3..=6 => self.integer(kind).map(drop),
            7 => self.take(8).map(drop),
            8 => self.binary(kind).map(drop),
            9 | 10 => self.list(Kind::LIST, Self::skip_element),
            11 => self.skip_map(),
            12 => self.structure(kind, |reader, _, kind| reader.skip(kind)),
            _ => Err(Malformed),
        }
    }

    fn skip_element(&mut self, kind: Kind) -> Result<()> {
        if kind == Kind::TRUE || kind == Kind::FALSE {
            return self.byte().map(drop);
        }
        self.skip(kind)
    }

    fn skip_map(&mut self) -> Result<()> {
        let length = self.varint()?;
        if length == 0 {
            return Ok(());
        }
        if length > self.bytes.len() as u64 {
            return Err(Malformed);
        }
        let kinds = self.byte()?;
        self.enter()?;
        for _ in 0..length {
            self.skip_element(Kind(kinds >> 4))?;
            self.skip_element(Kind(kinds & 15))?;
        }
        self.depth -= 1;
        Ok(())
    }
}
