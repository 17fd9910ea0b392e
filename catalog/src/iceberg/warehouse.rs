//! Where a client finds the tables: below a mount of the catalog, or in the stores themselves.
//!
//! ```text
//! asked for              token       a table of version 3          its own files (FILE)
//! file:///mnt/x          at_mnt_x    file:///mnt/x/ads/clicks@v3   .../clicks@v3/.iceberg/at_mnt_x.FILE
//! store                  store       s3://bucket/ads.db/clicks     https://catalog/api/v1/datasets/..
//! ```
//!
//! The token stands in paths of URLs and in names of files: letters, digits and "-" are themselves, "/"
//! is "_", everything else "~" and two hexadecimal digits. It says where the client sees the mount, so
//! that the same mount at several places (a container's path and the node's) serves each as it sees it.

use std::fmt;
use std::str::FromStr;

use crate::DatasetName;

/// Longest token: with the longest name behind it, a file's name has at most 255 bytes.
const TOKEN_MAX: usize = 220;

/// What clients call the warehouse of store URLs.
const STORE: &str = "store";

/// How the token of a mount begins.
const AT: &str = "at";

/// See the module text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Warehouse {
    /// Where the client has mounted the tables: an absolute path without a trailing slash.
    Mount(String),
    /// URLs of the stores, for engines that have no mount.
    Store,
}

/// A text names no warehouse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WarehouseError {
    /// Not a form that is known.
    #[error(
        "the warehouse is file:///MOUNTPOINT, with the place where the tables are mounted, or store"
    )]
    Form,
    /// The path cannot be a part of a file's name.
    #[error("the mount point is too long for a warehouse; mount at a shorter path, or bind one")]
    Long,
}

impl Warehouse {
    /// Reads what a client asks for: `file:///mnt/x`, `/mnt/x` or `store`.
    pub fn asked(text: &str) -> Result<Self, WarehouseError> {
        if text == STORE {
            return Ok(Self::Store);
        }
        let path = match text.strip_prefix("file:") {
            // file:/x, file:///x and file://localhost/x are one place.
            Some(rest) => {
                let rest = rest.strip_prefix("//").unwrap_or(rest);
                rest.strip_prefix("localhost").unwrap_or(rest)
            }
            None => text,
        };
        Self::at(path)
    }

    fn at(path: &str) -> Result<Self, WarehouseError> {
        let path = path.trim_end_matches('/');
        let good = path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
        if !good || path.contains(char::is_control) {
            return Err(WarehouseError::Form);
        }
        let warehouse = Self::Mount(path.to_owned());
        if warehouse.to_string().len() > TOKEN_MAX {
            return Err(WarehouseError::Long);
        }
        Ok(warehouse)
    }
}

impl fmt::Display for Warehouse {
    /// The token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Mount(path) = self else {
            return f.write_str(STORE);
        };
        f.write_str(AT)?;
        for byte in path.bytes() {
            match byte {
                b'/' => f.write_str("_")?,
                b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => write!(f, "{}", byte as char)?,
                other => write!(f, "~{other:02x}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Warehouse {
    type Err = WarehouseError;

    /// Reads a token.
    fn from_str(token: &str) -> Result<Self, WarehouseError> {
        if token == STORE {
            return Ok(Self::Store);
        }
        let escaped = token.strip_prefix(AT).ok_or(WarehouseError::Form)?;
        let mut path = Vec::with_capacity(escaped.len());
        let mut bytes = escaped.bytes();
        while let Some(byte) = bytes.next() {
            path.push(match byte {
                b'_' => b'/',
                b'~' => {
                    let mut digit = || char::from(bytes.next()?).to_digit(16);
                    let byte = digit().zip(digit()).ok_or(WarehouseError::Form)?;
                    u8::try_from(byte.0 * 16 + byte.1).map_err(|_| WarehouseError::Form)?
                }
                other => other,
            });
        }
        let path = String::from_utf8(path).map_err(|_| WarehouseError::Form)?;
        let warehouse = Self::at(&path)?;
        // One token for one place.
        match warehouse.to_string() == token {
            true => Ok(warehouse),
            false => Err(WarehouseError::Form),
        }
    }
}

/// A warehouse as one client reaches it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which one.
    pub warehouse: Warehouse,
    /// Address of this catalog as the client knows it, without a trailing slash.
    pub catalog: String,
}

impl Place {
    /// Where the newest version of a table is. `location`: the URL of its files.
    pub(super) fn table(&self, name: &DatasetName, location: &str) -> String {
        match &self.warehouse {
            Warehouse::Mount(root) => {
                format!("file://{root}/{}/{}", name.namespace(), name.table())
            }
            Warehouse::Store => location.to_owned(),
        }
    }

    /// What paths of a version's files are below, with a trailing slash.
    pub(super) fn data(&self, name: &DatasetName, number: u64, location: &str) -> String {
        match &self.warehouse {
            Warehouse::Mount(_) => format!("{}@v{number}/", self.table(name, location)),
            Warehouse::Store => format!("{}/", location.trim_end_matches('/')),
        }
    }

    /// Where a file is that is made from a version.
    pub(super) fn made(&self, name: &DatasetName, number: u64, file: &str) -> String {
        let (catalog, warehouse) = (&self.catalog, &self.warehouse);
        match warehouse {
            Warehouse::Mount(_) => {
                let version = self.data(name, number, "");
                format!("{version}.iceberg/{warehouse}.{file}")
            }
            Warehouse::Store => format!(
                "{catalog}/api/v1/datasets/{name}/versions/v{number}/iceberg/{warehouse}.{file}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A client that is sent to another place than it asked for reads nothing, or other data.
    #[test]
    fn a_place_is_named_in_one_way() {
        for (asked, token) in [
            ("file:///mnt/x", "at_mnt_x"),
            ("file:/mnt/x/", "at_mnt_x"),
            ("/data", "at_data"),
            ("file:///a.b/c_d é", "at_a~2eb_c~5fd~20~c3~a9"),
            ("store", "store"),
        ] {
            let warehouse = Warehouse::asked(asked).unwrap();
            assert_eq!(warehouse.to_string(), token);
            assert_eq!(token.parse::<Warehouse>().unwrap(), warehouse);
        }
        for bad in ["", "/", "mnt", "s3://b", "file:///a/../b", "/a//b", "/a\nb"] {
            assert_eq!(Warehouse::asked(bad), Err(WarehouseError::Form), "{bad:?}");
        }
        let long = format!("/{}", "x".repeat(TOKEN_MAX));
        assert_eq!(Warehouse::asked(&long), Err(WarehouseError::Long));
        for bad in [
            "at", "atx", "at_a~2", "at_a~zz", "at_a~61", "at_a~ff", "at_a__b",
        ] {
            assert!(bad.parse::<Warehouse>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        // Tokens come from anybody who sends a request.
        #[test]
        fn any_token_is_answered(token in ".{0,40}") {
            if let Ok(warehouse) = token.parse::<Warehouse>() {
                prop_assert_eq!(warehouse.to_string(), token);
            }
        }
    }
}
