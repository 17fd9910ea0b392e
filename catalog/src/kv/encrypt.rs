//! TLS to PostgreSQL: what `sslmode` and `sslrootcert` of its address mean, as libpq documents them.
//!
//! ```text
//! disable       plain
//! prefer        encrypted where the server can; whoever answers is believed     (when absent)
//! require       encrypted; whoever answers is believed, unless sslrootcert is given: then as verify-ca
//! verify-ca     encrypted; the certificate comes from a root in sslrootcert
//! verify-full   the same, and it is for the host's name
//! ```
//!
//! Signatures of the handshake are checked in every mode: "believed" is about who has the key, not
//! about whether they have it. The driver knows only the first three modes, so both words are taken
//! out of the address before it sees it.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};

use crate::tls;

/// An address without the words of TLS, and what they said.
pub(super) struct Address {
    /// For the driver.
    pub(super) rest: String,
    /// What the driver asks the server for.
    pub(super) mode: SslMode,
    /// What makes TLS of a connection.
    pub(super) tls: Tls,
}

/// Reads the file of `sslrootcert`, if there is one; blocks. Errors say what is wrong with which word,
/// and never quote the address.
pub(super) fn address(text: &str) -> Result<Address, String> {
    let (rest, words) = split(text);
    let last = |name: &str| {
        let found = words.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    let roots = last("sslrootcert").map(PathBuf::from);
    let mode = last("sslmode").unwrap_or("prefer");
    let trust = match (mode, &roots) {
        ("disable" | "prefer", _) | ("require", None) => Trust::Anybody,
        ("require" | "verify-ca", Some(_)) => Trust::Root,
        ("verify-full", Some(_)) => Trust::RootAndName,
        ("verify-ca" | "verify-full", None) => {
            return Err(format!(
                "sslmode={mode} needs sslrootcert=FILE, the certificates that are trusted; \
                 /etc/ssl/certs/ca-certificates.crt has those of most machines"
            ));
        }
        _ => {
            let known = "disable, prefer, require, verify-ca or verify-full";
            return Err(format!("sslmode is {known}"));
        }
    };
    let mode = match mode {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        _ => SslMode::Require,
    };
    let tls = Tls::new(trust, roots).map_err(|why| format!("sslrootcert: {why}"))?;
    Ok(Address { rest, mode, tls })
}

/// The words of TLS and the rest, of both spellings of an address.
fn split(text: &str) -> (String, Vec<(String, String)>) {
    let mut taken = Vec::new();
    let ours = |name: &str| matches!(name, "sslmode" | "sslrootcert");
    if let Some((before, query)) = text.split_once('?')
        && text.starts_with("postgres")
        && text.contains("://")
    {
        let keep = |pair: &&str| match serde_urlencoded::from_str::<Vec<(String, String)>>(pair) {
            Ok(read) if read.iter().any(|(name, _)| ours(name)) => {
                taken.extend(read);
                false
            }
            _ => true,
        };
        let rest: Vec<&str> = query.split('&').filter(keep).collect();
        let mark = if rest.is_empty() { "" } else { "?" };
        return (format!("{before}{mark}{}", rest.join("&")), taken);
    }
    let mut rest = Vec::new();
    for word in words(text) {
        match word.split_once('=') {
            Some((name, value)) if ours(name.trim()) => {
                let value = value.trim().trim_matches('\'');
                taken.push((name.trim().to_owned(), value.to_owned()));
            }
            _ => rest.push(word),
        }
    }
    (rest.join(" "), taken)
}

/// `name=value` words; a value in quotes may have spaces.
fn words(text: &str) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => quoted = !quoted,
            _ if letter.is_whitespace() && !quoted => {
                found.push(&text[start..at]);
                start = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found.retain(|word| !word.is_empty());
    found
}

/// Who is believed to be the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Anybody,
    Root,
    RootAndName,
}

/// Makes TLS of the driver's connections.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    fn new(trust: Trust, roots: Option<PathBuf>) -> Result<Self, tls::TlsError> {
        let provider = tls::provider();
        let unusable = |path: &Option<PathBuf>, why: String| tls::TlsError::Unusable {
            path: path.clone().unwrap_or_default(),
            why,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|why| unusable(&roots, why.to_string()))?;
        let chain = match (&roots, trust) {
            (None, _) | (_, Trust::Anybody) => None,
            (Some(path), _) => {
                let found = Arc::new(tls::roots(path)?);
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(found, Arc::clone(&provider))
                        .build();
                Some(verifier.map_err(|why| unusable(&roots, why.to_string()))?)
            }
        };
        let verifier: Arc<dyn ServerCertVerifier> = match (chain, trust) {
            (Some(chain), Trust::RootAndName) => chain,
            (chain, _) => Arc::new(Lenient { chain, provider }),
        };
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// Believes what libpq believes below `verify-full`.
#[derive(Debug)]
struct Lenient {
    /// None: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}

/// One handshake that is to be made.
pub(super) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Handshake> {
        let name = ServerName::try_from(domain.to_owned());
        Ok(Handshake {
            connector: self.0.clone(),
            name: name.map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?,
        })
    }
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Connecting<S>;

    fn connect(self, stream: S) -> Connecting<S> {
        Box::pin(async move {
            let made = self.connector.connect(self.name, stream).await?;
            Ok(Encrypted(made))
        })
    }
}

/// A connection inside TLS.
pub(super) struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        // A server that is believed by its certificate needs no second proof by the password.
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A word that is overlooked is a connection that is plain although somebody asked for TLS.
    #[test]
    fn words_of_tls_are_found_in_both_spellings() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, rest, taken) in [
            ("host=h user=u", "host=h user=u", vec![]),
            (
                "host=h sslmode=require password='a sslmode=x'",
                "host=h password='a sslmode=x'",
                vec![pair("sslmode", "require")],
            ),
            (
                "sslrootcert='/a b/c' host=h",
                "host=h",
                vec![pair("sslrootcert", "/a b/c")],
            ),
            (
                "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=%2Fa%20b&application_name=x",
                "postgres://u:p@h/d?application_name=x",
                vec![pair("sslmode", "verify-full"), pair("sslrootcert", "/a b")],
            ),
            (
                "postgresql://h/d?sslmode=disable",
                "postgresql://h/d",
                vec![pair("sslmode", "disable")],
            ),
        ] {
            assert_eq!(split(text), (rest.to_owned(), taken), "{text}");
        }
    }

    // Half-said trust must not become none.
    #[test]
    fn unclear_words_are_refused() {
        for bad in [
            "sslmode=verify-full",
            "sslmode=verify-ca",
            "sslmode=on",
            "sslmode=",
        ] {
            assert!(address(&format!("host=h {bad}")).is_err(), "{bad}");
        }
        let absent = "host=h password=canary sslmode=verify-full sslrootcert=/nowhere";
        let said = address(absent).err().unwrap();
        assert!(
            said.contains("/nowhere") && !said.contains("canary"),
            "{said}"
        );
        let plain = address("host=h").ok().unwrap();
        assert!(plain.mode == SslMode::Prefer && plain.rest == "host=h");
    }
}
