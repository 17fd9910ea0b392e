//! Scopes, and over which namespaces a token has them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DatasetName;
use crate::name::shortened;

/// Most grants of one token: a request is checked against each of them.
const MAX_GRANTS: usize = 64;

/// What may be done; each contains those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// See that datasets exist: names, versions, sizes, why one is not published.
    List,
    /// See what is in them: the files of a version, and with them where the bytes are.
    Read,
    /// Make versions, tags and datasets.
    Publish,
    /// Remove datasets; over every namespace also tokens and what is watched for new tables.
    Admin,
}

impl Scope {
    /// The word of this scope in grants and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not `scope:namespace`.
    #[error(
        "{0:?} is not a grant: write list, read, publish or admin, a colon, and a namespace or *"
    )]
    Shape(String),
    /// None, or too many.
    #[error("a token has 1 to {MAX_GRANTS} grants, and not {0}")]
    Count(usize),
}

/// One scope over one namespace or, with `*`, over all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    scope: Scope,
    /// None is every namespace.
    namespace: Option<String>,
}

impl Grant {
    /// A scope over every namespace.
    pub fn everywhere(scope: Scope) -> Self {
        Self {
            scope,
            namespace: None,
        }
    }

    fn covers(&self, scope: Scope, namespace: &str) -> bool {
        self.scope >= scope && self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let refused = || GrantError::Shape(shortened(text));
        let (scope, namespace) = text.split_once(':').ok_or_else(refused)?;
        let scope = match scope {
            "list" => Scope::List,
            "read" => Scope::Read,
            "publish" => Scope::Publish,
            "admin" => Scope::Admin,
            _ => return Err(refused()),
        };
        if namespace == "*" {
            return Ok(Self::everywhere(scope));
        }
        // A namespace is what comes before the dot of a name, so a name decides what one is.
        let name: DatasetName = format!("{namespace}.x").parse().map_err(|_| refused())?;
        Ok(Self {
            scope,
            namespace: Some(name.namespace().to_owned()),
        })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_deref().unwrap_or("*");
        write!(f, "{}:{namespace}", self.scope)
    }
}

/// Everything a token grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// Errors when there are none or too many.
    pub fn new(grants: Vec<Grant>) -> Result<Self, GrantError> {
        match grants.len() {
            1..=MAX_GRANTS => Ok(Self(grants)),
            count => Err(GrantError::Count(count)),
        }
    }

    /// Errors at the first text that is not a grant.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, GrantError> {
        let grants = texts.iter().map(|text| text.as_ref().parse());
        Self::new(grants.collect::<Result<_, _>>()?)
    }

    /// The grants of all of these together, each once; possibly none, which is a caller who may do
    /// nothing.
    pub(super) fn union<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut grants: Vec<Grant> = Vec::new();
        for grant in all.flat_map(|own| &own.0) {
            if !grants.contains(grant) {
                grants.push(grant.clone());
            }
        }
        Self(grants)
    }

    /// Whether the scope is granted over this namespace.
    pub fn cover(&self, scope: Scope, namespace: &str) -> bool {
        self.0.iter().any(|grant| grant.covers(scope, namespace))
    }

    /// Whether the scope is granted over every namespace.
    pub fn cover_all(&self, scope: Scope) -> bool {
        let mut all = self.0.iter().filter(|grant| grant.namespace.is_none());
        all.any(|grant| grant.scope >= scope)
    }

    /// Whether the scope is granted over any namespace at all.
    pub fn cover_some(&self, scope: Scope) -> bool {
        self.0.iter().any(|grant| grant.scope >= scope)
    }

    /// The texts of all of them.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(Grant::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A scope that reaches further than its words gives one tenant the data of another.
    #[test]
    fn grants_reach_exactly_as_far_as_they_say() {
        let grants = Grants::parse(&["publish:ads", "list:*"]).unwrap();
        let cases = [
            (Scope::List, "ads", true),
            (Scope::Read, "ads", true),
            (Scope::Publish, "ads", true),
            (Scope::Admin, "ads", false),
            (Scope::List, "hr", true),
            (Scope::Read, "hr", false),
            (Scope::Read, "ads2", false),
            (Scope::Read, "", false),
        ];
        for (scope, namespace, expected) in cases {
            assert_eq!(
                grants.cover(scope, namespace),
                expected,
                "{scope}:{namespace}"
            );
        }
        assert!(grants.cover_all(Scope::List) && !grants.cover_all(Scope::Read));
        assert!(grants.cover_some(Scope::Publish) && !grants.cover_some(Scope::Admin));
    }

    // A grant that is misread as a wider one is an open door.
    #[test]
    fn refuses_what_is_not_a_grant() {
        for bad in [
            "",
            "read",
            "read:",
            ":ads",
            "READ:ads",
            "read:*x",
            "read:a.b",
            "read:a:b",
            "root:*",
            "read:../x",
            "read: ads",
        ] {
            assert!(bad.parse::<Grant>().is_err(), "{bad:?} was accepted");
        }
        assert!(Grants::new(Vec::new()).is_err());
        let many = vec![Grant::everywhere(Scope::List); MAX_GRANTS + 1];
        assert!(Grants::new(many).is_err());
    }

    proptest! {
        // Grants are written by people and kept as text: what is accepted must read back the same.
        #[test]
        fn text_and_grant_agree(text in "(list|read|publish|admin):(\\*|[a-z0-9_-]{1,8})") {
            if let Ok(grant) = text.parse::<Grant>() {
                prop_assert_eq!(grant.to_string(), text);
            }
        }
    }
}
