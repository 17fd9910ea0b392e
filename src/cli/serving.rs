//! How a catalog serves: what `terrace catalog serve` and `terrace up` both take.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::Global;
use crate::catalog::serve::{CatalogConfig, TlsFiles};
use crate::node::config::Config;

/// Where a catalog listens when nothing else is said: this machine only.
const LISTEN: &str = "127.0.0.1:7420";

/// Where a catalog is reached, and where it keeps files of its own.
#[derive(Debug, Args)]
pub(super) struct ServingArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = LISTEN)]
    listen: SocketAddr,
    /// Where models and managed copies are kept: s3://bucket/prefix or file:///dir, the catalog's own;
    /// may be repeated, the first is the usual one [default: DATA/cold]
    #[arg(long, value_name = "URL")]
    cold: Vec<String>,
    /// The server's certificate (PEM, its own first, then those between it and a root): speak TLS. It
    /// is read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Speak plain HTTP also on addresses that other machines reach
    #[arg(long, conflicts_with = "tls_cert")]
    allow_http: bool,
}

impl ServingArgs {
    /// Certificate and key, when there are both.
    pub(super) fn tls(&self) -> Option<TlsFiles> {
        let both = self.tls_cert.clone().zip(self.tls_key.clone());
        both.map(|(certificate, key)| TlsFiles { certificate, key })
    }

    /// What a catalog that keeps everything in `data` is started with, by the arguments, the
    /// configuration file and, for credentials, the environment.
    pub(super) fn config(&self, data: &Path, global: &Global) -> Result<CatalogConfig> {
        let section = Config::load(global.config.as_deref())?.catalog;
        Ok(CatalogConfig {
            data: data.to_owned(),
            database: None,
            credentials: super::credential_environment(),
            listen: self.listen,
            mount: None,
            cold: self.cold.clone(),
            tls: self.tls(),
            allow_http: self.allow_http,
            schedule: section.upkeep.schedule(),
            identity: section.identity,
        })
    }
}
