//! Where tables and partitions lie below a root: pure functions of paths.
//!
//! ```text
//! hive         ROOT/ele.db/orders/dt=2026-11-20/hr=07/part-0.parquet
//!              namespace ele (or the root's own), table orders, partition dt=2026-11-20/hr=07
//! flat         ROOT/clicks/anything/part-0.parquet
//!              namespace of the root, table clicks, no partitions
//! descriptor   any directory with `_dataset.yaml` or `_dataset.json`: the file names the dataset;
//!              partitions as hive when its directories are written `key=value`
//! ```
//!
//! A partition directory is a leading run of `key=value` components. Values are percent-decoded as Hive
//! encodes them (`dt=2026-11-20 07%3A00`), and `__HIVE_DEFAULT_PARTITION__` means "no value". The raw
//! directory stays the partition's path: it is what the store and the mount show.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names::{self, HIVE_DEFAULT_PARTITION, Refusal};
use crate::name::{DatasetName, shortened};

/// How datasets lie below a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RootLayout)]
pub enum Layout {
    /// `db.db/table/key=value/.../file`.
    Hive,
    /// `table/.../file`, no partitions.
    Flat,
    /// Directories with a descriptor file.
    Descriptor,
}

/// Namespace of tables that no `db.db` directory holds, as Hive calls it.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The columns of a partition and their values, outermost first; `None` is Hive's default partition.
pub type Values = Vec<(Arc<str>, Option<Arc<str>>)>;

/// What a directory below a root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A table of this name.
    Table(DatasetName),
    /// Tables lie below it: the namespace they get.
    Database(String),
}

/// What the directory `name` directly below a root is in the hive layout. `namespace` is the root's
/// own, which wins over the directory's.
pub fn hive_place(name: &str, namespace: Option<&str>) -> Result<Place, Refusal> {
    if let Some(database) = name.strip_suffix(".db") {
        let folded = names::fold(database)?;
        return Ok(Place::Database(namespace.map_or(folded, str::to_owned)));
    }
    table_name(name, namespace.unwrap_or(DEFAULT_NAMESPACE)).map(Place::Table)
}

/// The dataset that the directory `name` is in a namespace.
pub fn table_name(name: &str, namespace: &str) -> Result<DatasetName, Refusal> {
    let table = names::fold(name)?;
    let full = format!("{namespace}.{table}");
    full.parse().map_err(|_| Refusal::Name(shortened(&full)))
}

/// Splits a path below a table into its partition directory and the rest: the longest leading run of
/// `key=value` directories, empty for none.
pub fn split_partition(path: &str) -> (&str, &str) {
    let mut end = 0;
    while let Some(length) = path[end..].find('/') {
        if !is_partition_component(&path[end..end + length]) {
            break;
        }
        end += length + 1;
    }
    (path[..end].trim_end_matches('/'), &path[end..])
}

fn is_partition_component(component: &str) -> bool {
    component.find('=').is_some_and(|at| at > 0)
}

/// The values of a partition directory; empty for the empty path.
pub fn partition_values(directory: &str) -> Result<Values, Refusal> {
    if directory.is_empty() {
        return Ok(Values::new());
    }
    let parse = |component: &str| {
        let (key, value) = component
            .split_once('=')
            .ok_or_else(|| Refusal::Escape(shortened(component)))?;
        let key = decode(key).ok_or_else(|| Refusal::Escape(shortened(component)))?;
        if value == HIVE_DEFAULT_PARTITION {
            return Ok((Arc::from(key), None));
        }
        let value = decode(value).ok_or_else(|| Refusal::Escape(shortened(component)))?;
        if key.chars().chain(value.chars()).any(char::is_control) {
            return Err(Refusal::Control(shortened(component)));
        }
        Ok((Arc::from(key), Some(Arc::from(value))))
    };
    directory.split('/').map(parse).collect()
}

/// Hive's percent escapes. A `%` without two hexadecimal digits is taken as it is, as Hive does; bytes
/// that are not UTF-8 are refused.
fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let hex = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

/// Whether two sets of values have the same columns in the same order.
pub fn same_columns(one: &Values, other: &Values) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.0 == b.0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A table under a wrong name is read by nobody or, worse, by the wrong job.
    #[test]
    fn directories_become_names() {
        let table = |text: &str| Place::Table(text.parse().unwrap());
        assert_eq!(
            hive_place("ele.db", None).unwrap(),
            Place::Database("ele".into())
        );
        assert_eq!(
            hive_place("Ele.db", Some("eu")).unwrap(),
            Place::Database("eu".into())
        );
        assert_eq!(hive_place("Orders", None).unwrap(), table("default.orders"));
        assert_eq!(
            hive_place("orders", Some("ele")).unwrap(),
            table("ele.orders")
        );
        assert!(hive_place("ordérs", None).is_err());
        assert!(hive_place(".db", None).is_err());
        assert!(hive_place("..", None).is_err());
    }

    // A value that is decoded wrongly puts rows under the wrong day.
    #[test]
    fn partitions_are_split_and_decoded() {
        let check = |path: &str, partition: &str, rest: &str, values: &[(&str, Option<&str>)]| {
            assert_eq!(split_partition(path), (partition, rest), "{path}");
            let found = partition_values(partition).unwrap();
            let found: Vec<_> = found.iter().map(|(k, v)| (&**k, v.as_deref())).collect();
            assert_eq!(found, values, "{path}");
        };
        check(
            "dt=2026-11-20/f",
            "dt=2026-11-20",
            "f",
            &[("dt", Some("2026-11-20"))],
        );
        check(
            "ts=2026-11-20 07%3A00/c=__HIVE_DEFAULT_PARTITION__/x/f",
            "ts=2026-11-20 07%3A00/c=__HIVE_DEFAULT_PARTITION__",
            "x/f",
            &[("ts", Some("2026-11-20 07:00")), ("c", None)],
        );
        check("f", "", "f", &[]);
        check("a=b", "", "a=b", &[]);
        check("=x/f", "", "=x/f", &[]);
        check("k=a%2Fb%3D/f", "k=a%2Fb%3D", "f", &[("k", Some("a/b="))]);
        check("k=100%/f", "k=100%", "f", &[("k", Some("100%"))]);
        check("k=%E4%B8%AD/f", "k=%E4%B8%AD", "f", &[("k", Some("中"))]);
        check("k=/f", "k=", "f", &[("k", Some(""))]);
        assert!(partition_values("k=%FF").is_err());
        assert!(partition_values("k=a%0Ab").is_err());
    }

    proptest! {
        // Paths come from a store that anybody may write to: none may panic, and no byte gets lost.
        #[test]
        fn any_path_is_split(path in any::<String>()) {
            let (partition, rest) = split_partition(&path);
            let joined = if partition.is_empty() { rest.to_owned() } else { format!("{partition}/{rest}") };
            if !path.starts_with('/') && !path.contains("//") {
                prop_assert_eq!(&joined, &path);
            }
            let _ = partition_values(partition);
        }
    }
}
