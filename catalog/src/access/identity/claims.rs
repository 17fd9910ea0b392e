//! Whether the claims of a token are good here and now. Says nothing about who signed them.

use serde_json::{Map, Value};

use super::jwt::Jwt;

/// Longest subject, in bytes.
const MAX_SUBJECT: usize = 256;

/// What an issuer's tokens must say.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Exactly this, byte for byte.
    pub(super) issuer: String,
    /// Among the audiences.
    pub(super) audience: String,
    /// How far two clocks may be apart.
    pub(super) skew_ms: i64,
    /// How long a token may still live.
    pub(super) lifetime_ms: i64,
}

/// What good claims say.
#[derive(Debug)]
pub(super) struct Good<'a> {
    pub(super) subject: &'a str,
    pub(super) expires_ms: i64,
}

/// The claims of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claims<'a>(&'a Map<String, Value>);

impl<'a> Claims<'a> {
    pub(super) fn of(jwt: &'a Jwt<'_>) -> Self {
        Self(&jwt.claims)
    }

    /// All of them.
    pub(super) fn all(self) -> &'a Map<String, Value> {
        self.0
    }

    pub(super) fn issuer(self) -> Result<&'a str, &'static str> {
        let issuer = self.0.get("iss").and_then(Value::as_str);
        issuer.ok_or("it names no issuer (iss)")
    }

    /// Whether the audience is among those it is for.
    pub(super) fn is_for(self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => {
                many.iter().all(Value::is_string) && many.iter().any(|one| one == audience)
            }
            _ => false,
        }
    }

    /// When it ends, in milliseconds since 1970.
    pub(super) fn expires_ms(self) -> Result<Option<i64>, &'static str> {
        self.time("exp")
    }

    /// A time in seconds since 1970, which may have a fraction.
    fn time(self, name: &str) -> Result<Option<i64>, &'static str> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let seconds = value.as_f64().ok_or("a time in it is no number")?;
        if !(0.0..=1e12).contains(&seconds) {
            return Err("a time in it is in no calendar");
        }
        Ok(Some((seconds * 1000.0) as i64))
    }

    /// Errors say what is wrong, as far as whoever sends the token may know: it is their token.
    pub(super) fn check(self, expected: &Expected, now_ms: i64) -> Result<Good<'a>, &'static str> {
        if self.issuer()? != expected.issuer {
            return Err("its issuer is another (iss)");
        }
        if !self.is_for(&expected.audience) {
            return Err("it is not for this catalog (aud)");
        }
        let skew = expected.skew_ms;
        let expires_ms = self.time("exp")?.ok_or("it never ends (exp)")?;
        if expires_ms.saturating_add(skew) <= now_ms {
            return Err("it has expired (exp)");
        }
        if expires_ms > now_ms.saturating_add(expected.lifetime_ms + skew) {
            return Err("it lives longer than tokens of its issuer may (exp)");
        }
        for name in ["nbf", "iat"] {
            if self
                .time(name)?
                .is_some_and(|from| from > now_ms.saturating_add(skew))
            {
                return Err("its time has not come (nbf, iat); check the clocks");
            }
        }
        let subject = self.0.get("sub").and_then(Value::as_str);
        let subject = subject.ok_or("it names nobody (sub)")?;
        let odd = |subject: &str| subject.chars().any(char::is_control);
        if subject.is_empty() || subject.len() > MAX_SUBJECT || odd(subject) {
            return Err("its subject is empty, too long or not printable (sub)");
        }
        Ok(Good {
            subject,
            expires_ms,
        })
    }
}
