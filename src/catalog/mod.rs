//! The catalog as the commands and the daemons of this binary use it: its HTTP client, where the
//! catalog is, running one, and its parts wired to this program's stores.

mod bearer;
pub(crate) mod client;
pub(crate) mod cluster;
mod error;
pub(crate) mod place;
pub(crate) mod serve;
mod upstream;
mod vault;
pub(crate) mod view;
mod web;

pub(crate) use upstream::StoreUpstream;
pub(crate) use vault::StoreVault;
pub(crate) use web::trusting;
