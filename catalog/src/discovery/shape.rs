//! How a table's directory is read: which files are data, and of which partition.

use std::sync::Arc;

use super::layout::{self, Layout};
use super::names::{self, Role};
use crate::upstream::UpFile;

/// How a table's directory is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) layout: Layout,
    /// Name of the marker file.
    pub(crate) marker: Arc<str>,
}

impl Shape {
    /// Splits a path below a table into its partition's directory and the rest.
    pub(crate) fn split<'a>(&self, path: &'a str) -> (&'a str, &'a str) {
        match self.layout {
            Layout::Flat => ("", path),
            Layout::Hive | Layout::Descriptor => layout::split_partition(path),
        }
    }

    /// The partition that a file is data of; none for what is no data or may not enter.
    pub(crate) fn data_of<'a>(&self, file: &'a UpFile) -> Option<&'a str> {
        let (directory, rest) = self.split(&file.path);
        let placeholder = file.path.ends_with('/') && file.size == 0;
        let data = !placeholder
            && self.roles(rest) == (Role::Data, Role::Data)
            && !(directory.is_empty() && names::is_iceberg_log(rest))
            && names::check_path(&file.path).is_ok();
        data.then_some(directory)
    }

    /// The role of the directories of a path below its partition, and of its own name.
    pub(crate) fn roles(&self, rest: &str) -> (Role, Role) {
        let (directories, name) = rest.rsplit_once('/').unwrap_or(("", rest));
        let mut above = Role::Data;
        for component in directories
            .split('/')
            .filter(|component| !component.is_empty())
        {
            match names::role(component, false) {
                Role::Data => {}
                role @ (Role::Staging | Role::TableLog) => return (role, Role::Data),
                _ => above = Role::Hidden,
            }
        }
        let own = match names::role(name, true) {
            _ if *name == *self.marker => Role::Marker,
            Role::Marker => Role::Hidden,
            role => role,
        };
        (above, own)
    }
}
