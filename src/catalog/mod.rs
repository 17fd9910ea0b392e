//! The catalog's parts wired to this program's stores.

mod upstream;

pub(crate) use upstream::StoreUpstream;
