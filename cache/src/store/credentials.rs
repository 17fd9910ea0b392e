//! Credentials and endpoints, under the names the ecosystem gives them.
//!
//! The binary reads the environment (and, later, mounted secrets) and passes the pairs on; this
//! crate never reads the environment itself. `Debug` shows names, never values, so a credential
//! cannot reach a log by accident.

use std::collections::BTreeMap;
use std::fmt;

/// Name -> value: `AWS_*` for S3, `HADOOP_*` for HDFS. Unknown names are ignored.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, String>);

impl Credentials {
    /// Keeps the pairs whose name starts with `AWS_` or `HADOOP_`; empty values count as unset.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let known = |name: &str| name.starts_with("AWS_") || name.starts_with("HADOOP_");
        Self(
            pairs
                .into_iter()
                .filter(|(name, value)| known(name) && !value.is_empty())
                .collect(),
        )
    }

    /// Value of `name`, when set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// True when `name` is set to `true`, `1` or `yes`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(
            self.get(name).map(str::to_ascii_lowercase).as_deref(),
            Some("true" | "1" | "yes")
        )
    }

    /// All pairs, for handing them to another process of the same node.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Credentials {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Self::new(pairs)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")?;
        f.debug_map()
            .entries(self.0.keys().map(|name| (name, "***")))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a secret key could be printed by a debug line, or unrelated variables be kept.
    #[test]
    fn debug_is_masked_and_names_are_filtered() {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        let credentials = Credentials::new([
            pair("AWS_SECRET_ACCESS_KEY", "hush"),
            pair("AWS_ALLOW_HTTP", "True"),
            pair("AWS_REGION", ""),
            pair("PATH", "/bin"),
        ]);
        assert!(!format!("{credentials:?}").contains("hush"));
        assert!(credentials.flag("AWS_ALLOW_HTTP"));
        assert_eq!(credentials.get("AWS_REGION"), None);
        assert_eq!(credentials.iter().count(), 2);
    }
}
