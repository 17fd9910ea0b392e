//! Why a catalog did not do what it was asked, with what to try.

/// Why a request to the catalog failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    /// The catalog answered, and did not do it.
    #[error("{message}; {hint}")]
    Refused {
        /// Status of HTTP.
        status: u16,
        /// Kind of error; see `rest::wire`.
        code: String,
        /// What failed, on what, and why.
        message: String,
        /// What to try.
        hint: String,
    },
    /// No answer.
    #[error(
        "the catalog at {url} does not answer: {why}; check the address (--catalog or \
         TERRACE_CATALOG) and that terrace catalog serve runs there"
    )]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// What answers cannot show that it is who the address names.
    #[error(
        "the catalog at {url} is not believed: {why}; name the certificates to trust with --ca-file or \
         TERRACE_CA_FILE"
    )]
    Unbelieved {
        /// Where it should be.
        url: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// An answer that is not a catalog's.
    #[error("what answers at {url} is not a catalog of this version: {why}")]
    Strange {
        /// Where it came from.
        url: String,
        /// What was wrong with it.
        why: String,
    },
    /// The address cannot be used.
    #[error(
        "{url:?} cannot be used as a catalog: {why}; write http://host:port or https://host:port"
    )]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl CatalogError {
    /// Whether it says that there is no such dataset, version, tag or route.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}
