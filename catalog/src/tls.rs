//! TLS by rustls: the server's certificate, read anew when its files change, and roots that clients of
//! this crate trust.
//!
//! ```text
//! certificate   PEM: the server's own first, then those between it and a root
//! key           PEM: PKCS#8, PKCS#1 or SEC1; held in memory only, in no message and no log
//! ```
//!
//! A change is seen within [`LOOK`]. Two files cannot be replaced at one moment, so a pair that does not
//! match is left alone until it does; connections keep what they began with. The one lock is held for
//! the copy of a pointer. Sources: RFC 8446; RFC 7468 for the files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// How often the files are looked at: renewals come hours before the end of what they replace.
const LOOK: Duration = Duration::from_secs(5);

/// Why a certificate cannot be used. Never has a part of a key in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// No certificate in a file.
    #[error("{} has no certificate in PEM (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// No private key in a file.
    #[error("{} has no private key in PEM (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// The two do not belong together, or nobody here can use them.
    #[error("the certificate in {} cannot be used with its key: {why}", path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// What rustls says.
        why: String,
    },
}

/// The cryptography of every connection of this crate: no global, so nobody else decides about it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// The certificates of a PEM file as roots of trust.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, &read(path)?)? {
        let unusable = |why: tokio_rustls::rustls::Error| unusable(path, why);
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let refused = |why| TlsError::Read {
        path: path.to_owned(),
        why,
    };
    std::fs::read(path).map_err(refused)
}

fn unusable(path: &Path, why: impl fmt::Display) -> TlsError {
    TlsError::Unusable {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|why| unusable(path, why))?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(found)
}

/// A certificate and its key, as they are in two files now. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    files: Arc<Files>,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ServerTls");
        shown.field("files", &self.files).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What both files held, as one digest, to see a change by.
type Seen = [u8; 32];

impl Files {
    /// Reads both; blocks.
    fn load(&self) -> Result<(CertifiedKey, Seen), TlsError> {
        let (chain, key) = (read(&self.certificate)?, read(&self.key)?);
        let mut hash = Sha256::new();
        hash.update((chain.len() as u64).to_be_bytes());
        hash.update(&chain);
        hash.update(&key);
        Ok((self.pair(&chain, &key)?, hash.finalize().into()))
    }

    fn pair(&self, chain: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate, chain)?;
        // What the parser says may quote a line of the key.
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey(self.key.clone()))?;
        CertifiedKey::from_der(chain, key, &provider())
            .map_err(|why| unusable(&self.certificate, why))
    }
}

/// The pair that new connections get.
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn replace(&self, pair: CertifiedKey) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(pair);
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(..)")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

impl ServerTls {
    /// Reads both files; blocks.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let (pair, _) = files.load()?;
        let current = Arc::new(Current(RwLock::new(Arc::new(pair))));
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|why| unusable(certificate, why))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(&current);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            files: Arc::new(files),
            current,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// What makes TLS of a connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Takes changes of the files over, for ever; drop it to end. A change that cannot be used is
    /// logged once and changes nothing.
    pub(crate) async fn follow(&self) {
        let mut seen: Option<Seen> = None;
        let mut said = String::new();
        loop {
            let files = Arc::clone(&self.files);
            match tokio::task::spawn_blocking(move || files.load()).await {
                Ok(Ok((_, now))) if seen == Some(now) => said.clear(),
                Ok(Ok((pair, now))) => {
                    if seen.is_some() {
                        let file = self.files.certificate.display();
                        tracing::info!(%file, "the certificate is renewed");
                    }
                    seen = Some(now);
                    self.current.replace(pair);
                }
                Ok(Err(error)) => {
                    let error = error.to_string();
                    if error != said {
                        tracing::warn!(error, "the certificate in use stays");
                        said = error;
                    }
                }
                Err(error) => tracing::warn!(%error, "the certificate's files are not read"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
