//! Secrets of a request: who asks, not what or where.
//!
//! Only names on a list are taken. Addresses are none of them: where stores and the catalog are is said
//! by who runs the driver, or a volume could send the node's credentials anywhere.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use tonic::Status;

/// Name of the catalog's token.
pub const TOKEN: &str = "TERRACE_TOKEN";

/// Names of a store's credentials, as the ecosystem has them.
const STORE: [&str; 3] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];

/// Credentials that came with a request. `Debug` shows their names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// What the catalog is asked with instead of the driver's own token.
    pub token: Option<String>,
    /// What the store is asked with instead of the driver's own credentials.
    pub store: BTreeMap<String, String>,
}

impl Secrets {
    /// Reads the secrets of a request; an unknown name is INVALID_ARGUMENT.
    pub fn parse(secrets: &HashMap<String, String>) -> Result<Self, Status> {
        let mut parsed = Self::default();
        for (name, value) in secrets {
            if name == TOKEN {
                parsed.token = Some(value.trim().to_owned());
            } else if STORE.contains(&name.as_str()) {
                parsed.store.insert(name.clone(), value.trim().to_owned());
            } else {
                let shown: String = name.chars().take(40).collect();
                return Err(Status::invalid_argument(format!(
                    "secret {shown:?} is not known; known are {TOKEN}, {}",
                    STORE.join(", ")
                )));
            }
        }
        Ok(parsed)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| TOKEN);
        let store = self.store.keys().map(String::as_str);
        f.debug_set()
            .entries(token.into_iter().chain(store))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // An address among the secrets would make the node send its credentials there.
    #[test]
    fn addresses_are_no_secrets() {
        let map = |name: &str| HashMap::from([(name.to_owned(), "canary".to_owned())]);
        let secrets = Secrets::parse(&map(TOKEN)).unwrap();
        assert_eq!(secrets.token.as_deref(), Some("canary"));
        assert!(!format!("{secrets:?}").contains("canary"));
        for bad in [
            "AWS_ENDPOINT_URL",
            "HADOOP_CONF_DIR",
            "LD_PRELOAD",
            "TERRACE_CATALOG",
            "",
        ] {
            assert!(Secrets::parse(&map(bad)).is_err(), "{bad:?} was accepted");
        }
    }
}
