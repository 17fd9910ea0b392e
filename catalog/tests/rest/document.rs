//! The OpenAPI document: complete enough to be read, and walked by other tests. That it is valid is
//! checked by programs nobody here wrote, in the tests of the whole system.

use serde_json::Value;

use crate::support::Catalog;

/// An operation of the document.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: String,
    /// The path with something that could be there in each parameter.
    pub(crate) target: String,
    /// Smallest scope and over what it is asked for; none: the route is open.
    pub(crate) policy: Option<(String, String)>,
    /// As the document has it.
    pub(crate) said: Value,
}

/// Every operation of the document.
pub(crate) fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, said) in item.as_object().unwrap() {
            let required = said["security"].as_array();
            let required = required.unwrap_or_else(|| panic!("{method} {path} has no policy"));
            assert_eq!(required.len(), 1, "{method} {path} has one policy");
            let policy = said.get("x-policy").map(|policy| {
                let word = |name: &str| policy[name].as_str().unwrap().to_owned();
                assert_eq!(required[0]["token"][0], policy["scope"], "{method} {path}");
                (word("scope"), word("over"))
            });
            assert_eq!(policy.is_none(), required[0] == serde_json::json!({}));
            let target = filled(path, said);
            assert!(!target.contains('{'), "{path} has a parameter unsaid");
            let method = method.to_uppercase();
            let said = said.clone();
            found.push(Operation {
                method,
                target,
                policy,
                said,
            });
        }
    }
    found
}

fn filled(path: &str, operation: &Value) -> String {
    let mut path = path.to_owned();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
        let schema = &parameter["schema"];
        let value = match (schema["examples"][0].as_str(), schema["type"].as_str()) {
            (Some(example), _) => example,
            (None, Some("integer")) => "1",
            _ => "x1",
        };
        path = path.replace(&name, value);
    }
    path
}

fn said(value: &Value) -> bool {
    value["description"]
        .as_str()
        .is_some_and(|text| !text.is_empty())
}

// A response without a description makes the document invalid, and a parameter without one is a riddle
// for whoever writes a client.
#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_document_is_described() {
    let document = Catalog::start().await.document().await;
    let version = document["openapi"].as_str().unwrap();
    assert!(version.starts_with("3.1"), "{version}");
    let mut missing = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for operation in operations(&document) {
        let place = format!("{} {}", operation.method, operation.target);
        let of = &operation.said;
        for word in ["operationId", "summary"] {
            if of[word].as_str().is_none_or(str::is_empty) {
                missing.push(format!("{place}: {word}"));
            }
        }
        let id = of["operationId"].as_str().unwrap_or_default().to_owned();
        assert!(ids.insert(id.clone()), "two operations are {id}");
        for (status, response) in of["responses"].as_object().unwrap() {
            if !said(response) {
                let how = "add description = \"..\" to the response of its utoipa::path";
                missing.push(format!("{place}: response {status}: {how}"));
            }
        }
        let parameters = of["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|parameter| !said(parameter)) {
            missing.push(format!("{place}: parameter {}", parameter["name"]));
        }
        if of["responses"].get("default").is_none() {
            missing.push(format!("{place}: the response for every other error"));
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let properties = schema["properties"].as_object().into_iter().flatten();
        for (property, shape) in properties {
            // What is said stands at the type that is named.
            let named = shape.get("$ref").or(shape.get("oneOf")).is_some();
            if !said(shape) && !named {
                missing.push(format!("schema {name}: {property}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not described:\n  {}",
        missing.join("\n  ")
    );
}
