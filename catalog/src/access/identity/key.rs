//! One public key, and what it has signed.
//!
//! ```text
//! kty  RSA  n e          RS256 RS384 RS512 PS256 PS384 PS512     2048 to 8192 bits
//!      EC   crv x y      ES256 (P-256), ES384 (P-384)
//!      OKP  crv x        EdDSA (Ed25519)
//! ```
//!
//! A key verifies only what its kind can sign, and only its own algorithm where it names one. Sources:
//! RFC 7517, 7518, 8037. The cryptography is that of `aws-lc-rs`, which TLS uses too.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::config::Algorithm;

/// Members of a key that only its owner may have.
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// A public key of an issuer.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Its name.
    pub(super) id: Option<String>,
    /// The one algorithm it says it is for.
    algorithm: Option<Algorithm>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// None: a key for something else, or of a kind that is not known here. Errors: a key that nobody
    /// should have published.
    pub(super) fn parse(value: &Value) -> Result<Option<Self>, String> {
        let Some(jwk) = value.as_object() else {
            return Ok(None);
        };
        let word = |name: &str| jwk.get(name).and_then(Value::as_str);
        let family = word("kty").unwrap_or_default();
        if family != "oct" && PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
            let why = "it has a private key in it; publish the public parts only";
            return Err(why.to_owned());
        }
        let signs = word("use").is_none_or(|of| of == "sig");
        let verifies = jwk.get("key_ops").and_then(Value::as_array);
        let verifies = verifies.is_none_or(|all| all.iter().any(|one| one == "verify"));
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(named) => match serde_json::from_value(named.clone()) {
                Ok(known) => Some(known),
                Err(_) => return Ok(None),
            },
        };
        let kind = kind(jwk, family).filter(|_| signs && verifies);
        Ok(kind.map(|kind| Self {
            id: word("kid").map(str::to_owned),
            algorithm,
            kind,
        }))
    }

    /// Whether it can have signed with this algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA};
        let kind = match self.kind {
            Kind::Rsa { .. } => rsa(algorithm).is_some(),
            Kind::P256(_) => algorithm == ES256,
            Kind::P384(_) => algorithm == ES384,
            Kind::Ed25519(_) => algorithm == EdDSA,
        };
        kind && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whether it has signed this.
    pub(super) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        let curve = |by: &'static dyn VerificationAlgorithm, point: &[u8]| {
            let key = UnparsedPublicKey::new(by, point);
            key.verify(signed, signature).is_ok()
        };
        match &self.kind {
            Kind::Rsa { n, e } => rsa(algorithm).is_some_and(|by| {
                let key = PublicKeyComponents { n, e };
                key.verify(by, signed, signature).is_ok()
            }),
            Kind::P256(point) => curve(&ECDSA_P256_SHA256_FIXED, point),
            Kind::P384(point) => curve(&ECDSA_P384_SHA384_FIXED, point),
            Kind::Ed25519(point) => curve(&ED25519, point),
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => return None,
    })
}

fn kind(jwk: &Map<String, Value>, family: &str) -> Option<Kind> {
    let word = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(word(name)?).ok();
    let point = |length: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        // An uncompressed point: SEC 1, 2.3.3.
        (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), &y].concat())
    };
    match (family, word("crv")) {
        ("RSA", _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            Some(Kind::Rsa { n, e }).filter(|_| word("crv").is_none())
        }
        ("EC", Some("P-256")) => point(32).map(Kind::P256),
        ("EC", Some("P-384")) => point(48).map(Kind::P384),
        ("OKP", Some("Ed25519")) => bytes("x").filter(|x| x.len() == 32).map(Kind::Ed25519),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    /// Signed texts of the specifications: RFC 7515, A.2 and A.3; RFC 8037, A.4.
    fn published() -> [(Algorithm, Value, &'static str, &'static str); 3] {
        let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let rsa = json!({"kty": "RSA", "e": "AQAB", "n":
            "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
        let ec = json!({"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        let ed = json!({"kty": "OKP", "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let signed = |header: &str| -> &'static str { format!("{header}.{claims}").leak() };
        [
            (
                Algorithm::RS256,
                rsa,
                signed("eyJhbGciOiJSUzI1NiJ9"),
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                Algorithm::ES256,
                ec,
                signed("eyJhbGciOiJFUzI1NiJ9"),
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                Algorithm::EdDSA,
                ed,
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ]
    }

    // Keys and signatures that only this program makes would agree with it however wrong it were.
    #[test]
    fn published_signatures_are_verified() {
        for (algorithm, jwk, signed, signature) in published() {
            let key = Key::parse(&jwk).unwrap().unwrap();
            let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            assert!(
                key.verifies(algorithm, signed.as_bytes(), &signature),
                "{algorithm:?}"
            );
            assert!(!key.verifies(algorithm, &signed.as_bytes()[1..], &signature));
            signature[10] ^= 1;
            assert!(!key.verifies(algorithm, signed.as_bytes(), &signature));
            assert!(!key.verifies(algorithm, signed.as_bytes(), b""));
        }
    }

    // A key that is taken for another kind verifies what its owner never signed.
    #[test]
    fn keys_of_other_kinds_are_left_out() {
        let good = json!({"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        let changed = |name: &str, value: Value| {
            let mut jwk = good.clone();
            jwk[name] = value;
            Key::parse(&jwk)
        };
        for (name, value) in [
            ("kty", json!("RSA")),
            ("kty", json!("oct")),
            ("kty", json!(1)),
            ("crv", json!("P-384")),
            ("crv", json!("secp256k1")),
            ("x", json!("")),
            ("x", json!("!!")),
            ("use", json!("enc")),
            ("key_ops", json!(["sign"])),
            ("alg", json!("HS256")),
            ("alg", json!("none")),
        ] {
            assert!(
                changed(name, value.clone()).unwrap().is_none(),
                "{name} {value}"
            );
        }
        assert!(
            changed("d", json!("AAAA")).is_err(),
            "a private key is taken"
        );
        let other = changed("alg", json!("ES384")).unwrap().unwrap();
        assert!(!other.fits(Algorithm::ES256), "it is for another algorithm");
        assert!(Key::parse(&json!("text")).unwrap().is_none());
    }
}
