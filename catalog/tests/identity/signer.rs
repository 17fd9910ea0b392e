//! Issuers that sign, with keys of this run. Also used by the tests of the whole system.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that signs.
pub(crate) enum Signer {
    Rsa(KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(KeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    /// The public key, as an issuer publishes it.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        let point = |key: &EcdsaKeyPair, length: usize| {
            let point = &key.public_key().as_ref()[1..];
            (encode(&point[..length]), encode(&point[length..]))
        };
        match self {
            Self::Rsa(key) => {
                let (n, e) = components(key.public_key().as_ref());
                json!({"kty": "RSA", "kid": id, "use": "sig", "n": encode(n), "e": encode(e)})
            }
            Self::P256(key) => {
                let (x, y) = point(key, 32);
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y})
            }
            Self::P384(key) => {
                let (x, y) = point(key, 48);
                json!({"kty": "EC", "crv": "P-384", "kid": id, "x": x, "y": y})
            }
            Self::Ed25519(key) => {
                let x = encode(key.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x, "alg": "EdDSA"})
            }
        }
    }

    /// Signs bytes, RSA by PSS when the algorithm says so.
    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                if algorithm.starts_with("PS") {
                    key.sign(&RSA_PSS_SHA256, &random, message, &mut signature)
                } else {
                    key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                }
                .unwrap();
                signature
            }
            Self::P256(key) | Self::P384(key) => {
                key.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token of these two texts, which may be anything.
    pub(crate) fn raw(&self, header: &str, claims: &str) -> String {
        let algorithm = serde_json::from_str::<Value>(header)
            .ok()
            .and_then(|header| header["alg"].as_str().map(str::to_owned));
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.as_bytes())
        );
        let signature = self.sign(&algorithm.unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }

    /// A token.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.raw(&header.to_string(), &claims.to_string())
    }
}

/// Modulus and exponent of a DER `RSAPublicKey` of 2048 bits (RFC 8017, A.1.1).
fn components(der: &[u8]) -> (&[u8], &[u8]) {
    // SEQUENCE (82 ll ll), INTEGER (82 01 01, a zero, 256 bytes), INTEGER (03, 01 00 01).
    assert_eq!(der[4..9], [0x02, 0x82, 0x01, 0x01, 0x00], "another form");
    (&der[9..265], &der[267..])
}
