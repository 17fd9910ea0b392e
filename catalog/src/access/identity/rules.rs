//! From who somebody is to what they may do: rules of the configuration, and nothing else.

use serde_json::{Map, Value};

use super::config::{AccountRule, ClaimRule};
use crate::access::{Grant, Grants};

/// Most rules of one list.
const MAX_RULES: usize = 256;

/// A list of rules; the grants of all that fit count together.
#[derive(Clone, Debug)]
pub(super) struct Rules(Vec<(Condition, Grants)>);

#[derive(Clone, Debug)]
enum Condition {
    Claim {
        claim: String,
        value: String,
    },
    Account {
        namespace: String,
        name: Option<String>,
    },
}

impl Rules {
    pub(super) fn of_issuer(rules: &[ClaimRule]) -> Result<Self, String> {
        let all = rules.iter().map(|rule| {
            if rule.claim.is_empty() || rule.value.is_empty() {
                return Err("a rule names a claim and its value".to_owned());
            }
            let condition = Condition::Claim {
                claim: rule.claim.clone(),
                value: rule.value.clone(),
            };
            Ok((condition, parsed(&rule.grants)?))
        });
        limited(all.collect::<Result<_, _>>()?)
    }

    pub(super) fn of_accounts(rules: &[AccountRule]) -> Result<Self, String> {
        let all = rules.iter().map(|rule| {
            let empty = rule.account.as_deref().is_some_and(str::is_empty);
            if rule.namespace.is_empty() || empty {
                return Err("a rule names a namespace, and an account or none".to_owned());
            }
            let condition = Condition::Account {
                namespace: rule.namespace.clone(),
                name: rule.account.clone(),
            };
            Ok((condition, parsed(&rule.grants)?))
        });
        limited(all.collect::<Result<_, _>>()?)
    }

    /// What claims grant; nothing when no rule fits.
    pub(super) fn of_claims(&self, claims: &Map<String, Value>) -> Grants {
        self.granted(|condition| match condition {
            Condition::Claim { claim, value } => {
                found(claims, claim).is_some_and(|found| match found {
                    Value::String(one) => one == value,
                    Value::Array(many) => many.iter().any(|one| one.as_str() == Some(value)),
                    _ => false,
                })
            }
            Condition::Account { .. } => false,
        })
    }

    /// What a service account grants; nothing when no rule fits.
    pub(super) fn of_account(&self, of: &str, account: &str) -> Grants {
        self.granted(|condition| match condition {
            Condition::Account { namespace, name } => {
                namespace == of && name.as_deref().is_none_or(|name| name == account)
            }
            Condition::Claim { .. } => false,
        })
    }

    fn granted(&self, fits: impl Fn(&Condition) -> bool) -> Grants {
        let fitting = self.0.iter().filter(|(condition, _)| fits(condition));
        Grants::union(fitting.map(|(_, grants)| grants))
    }
}

fn parsed(texts: &[String]) -> Result<Grants, String> {
    let grants = texts.iter().map(|text| text.parse::<Grant>());
    let grants = grants.collect::<Result<_, _>>();
    let grants = grants.and_then(Grants::new);
    grants.map_err(|error| error.to_string())
}

fn limited(rules: Vec<(Condition, Grants)>) -> Result<Rules, String> {
    if rules.len() > MAX_RULES {
        return Err(format!("at most {MAX_RULES} rules"));
    }
    Ok(Rules(rules))
}

/// A claim by its name or, with a leading `/`, by its place (RFC 6901).
fn found<'a>(claims: &'a Map<String, Value>, claim: &str) -> Option<&'a Value> {
    let Some(path) = claim.strip_prefix('/') else {
        return claims.get(claim);
    };
    let mut steps = path.split('/');
    let name = |step: &str| step.replace("~1", "/").replace("~0", "~");
    let first = claims.get(&name(steps.next()?))?;
    steps.try_fold(first, |value, step| match value {
        Value::Object(map) => map.get(&name(step)),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A rule that fits where it should not hands a namespace to everybody who has an account somewhere.
    #[test]
    fn rules_fit_exactly_what_they_say() {
        let rule = |claim: &str, value: &str, grant: &str| ClaimRule {
            claim: claim.to_owned(),
            value: value.to_owned(),
            grants: vec![grant.to_owned()],
        };
        let rules = Rules::of_issuer(&[
            rule("groups", "etl", "publish:ads"),
            rule("/realm/roles", "reader", "read:*"),
            rule("https://x/role", "admin", "admin:hr"),
            rule("sub", "root", "admin:*"),
        ])
        .unwrap();
        for (claims, granted) in [
            (r#"{"groups":["x","etl"]}"#, &["publish:ads"] as &[&str]),
            (r#"{"groups":"etl"}"#, &["publish:ads"]),
            (r#"{"groups":"etl,x"}"#, &[]),
            (r#"{"groups":{"etl":true}}"#, &[]),
            (r#"{"groups":[["etl"]]}"#, &[]),
            (r#"{"group":["etl"]}"#, &[]),
            (
                r#"{"realm":{"roles":["reader"]},"https://x/role":"admin"}"#,
                &["read:*", "admin:hr"],
            ),
            (r#"{"/realm/roles":["reader"],"roles":["reader"]}"#, &[]),
            (r#"{"sub":["root "]}"#, &[]),
            ("{}", &[]),
        ] {
            let claims: Map<String, Value> = serde_json::from_str(claims).unwrap();
            assert_eq!(rules.of_claims(&claims).texts(), granted, "{claims:?}");
        }
        let of = |account: Option<&str>| AccountRule {
            namespace: "ml".to_owned(),
            account: account.map(str::to_owned),
            grants: vec!["read:ads".to_owned()],
        };
        let one = Rules::of_accounts(&[of(Some("train"))]).unwrap();
        let all = Rules::of_accounts(&[of(None)]).unwrap();
        for (namespace, account, by_one, by_all) in [
            ("ml", "train", 1, 1),
            ("ml", "other", 0, 1),
            ("ml2", "train", 0, 0),
        ] {
            assert_eq!(one.of_account(namespace, account).texts().len(), by_one);
            assert_eq!(all.of_account(namespace, account).texts().len(), by_all);
        }
        for bad in [
            rule("", "x", "read:*"),
            rule("x", "", "read:*"),
            rule("x", "y", "root:*"),
        ] {
            assert!(Rules::of_issuer(&[bad]).is_err());
        }
    }
}
