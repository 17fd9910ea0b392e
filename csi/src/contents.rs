//! Contents that are not where their file is: what whoever copies a tree has to know of a file before.
//!
//! A file of a directory volume may be empty because its contents are in a cold store, with an attribute that
//! says where. Which attributes those are, and how movers are kept away from a file, is the business of who
//! moves contents and is not known in this crate: a copy asks ([`Contents`]).
//!
//! Invariant: a file is copied only between the question and the end of its descriptor. Until then nobody moves
//! what it has, so that a copy never is empty, or a part, where its source was neither.

use std::ffi::CStr;
use std::fmt;
use std::fs::File;

/// What a copy of a file does about its contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The object that has the contents, by its key: the copy names it too, so it has to stay.
    pub object: Option<String>,
    /// Attributes that mean nothing on a copy.
    pub omitted: &'static [&'static CStr],
}

/// Why a file is not copied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// Its contents are on their way; they may have arrived at the next try.
    #[error("its contents are being moved; ask again")]
    Moving,
    /// A copy would not have its contents. One line, with what to do.
    #[error("{0}")]
    Refused(String),
}

/// Who knows where the contents of files are.
pub trait Contents: Send + Sync + fmt::Debug {
    /// Looks at a regular file that is open for reading, and keeps movers away from it until the file is
    /// closed. Blocks.
    fn look(&self, file: &File) -> Result<Standing, ContentsError>;

    /// Attributes of the top of a tree that are its own.
    fn of_tops(&self) -> &'static [&'static CStr];
}

/// Every file has its contents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllHere;

impl Contents for AllHere {
    fn look(&self, _: &File) -> Result<Standing, ContentsError> {
        Ok(Standing::default())
    }

    fn of_tops(&self) -> &'static [&'static CStr] {
        &[]
    }
}
