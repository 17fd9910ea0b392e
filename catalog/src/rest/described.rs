//! What the document says of every route alike, so that no handler repeats it: who may use the route,
//! how it fails, and what the parameters of its path look like.
//!
//! ```text
//! security      the scope, under the one scheme of the document; none: the route is open
//! x-policy      { "scope": list|read|publish|admin, "over": dataset|namespace|some|all }
//! 401, 403      on every route that is not open
//! default       every other error
//! ```
//!
//! What a handler says itself stays as it is.

use serde_json::json;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{Object, SchemaType, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{RefOr, Response, Schema};

use super::policy::{Policy, SCHEME};

/// Parameters of paths that mean the same in every route: name, pattern, longest text, an example.
/// The patterns say what the types that parse them take.
const PARAMETERS: [(&str, &str, usize, &str); 9] = [
    (
        "dataset",
        r"^[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9][a-z0-9_-]{0,63}$",
        129,
        "ads.clicks",
    ),
    (
        "prefix",
        r"^(store|at(_[A-Za-z0-9-]+([A-Za-z0-9-]|~2[0-9a-ce]|~5f)*)+)$",
        120,
        "store",
    ),
    ("namespace", r"^[a-z0-9][a-z0-9_-]{0,63}$", 64, "ads"),
    (
        "table",
        r"^[a-z0-9][a-z0-9_-]{0,63}(@(latest|v[1-9][0-9]{0,17}|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(?!v[0-9]+$)[a-z]([a-z0-9_.-]{0,62}[a-z0-9_-])?))?$",
        129,
        "clicks",
    ),
    (
        "version",
        r"^(latest|v?[1-9][0-9]{0,17}|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(?!v[0-9]+$)[a-z]([a-z0-9_.-]{0,62}[a-z0-9_-])?)$",
        64,
        "v1",
    ),
    (
        "tag",
        r"^(?!latest$)(?!v[0-9]+$)[a-z]([a-z0-9_.-]{0,62}[a-z0-9_-])?$",
        64,
        "prod",
    ),
    (
        "batch",
        r"^[A-Za-z0-9][A-Za-z0-9._:=-]{0,199}$",
        200,
        "etl-2026-11-20",
    ),
    (
        "save",
        r"^[A-Za-z0-9][A-Za-z0-9._:=-]{0,189}$",
        190,
        "run-41",
    ),
    ("node", r"^[A-Za-z0-9][A-Za-z0-9._-]{0,189}$", 190, "gpu-7"),
];

/// Completes what the document says of an operation.
pub(super) fn complete(operation: &mut Operation, policy: Policy) {
    let required = match policy.scope() {
        // An empty requirement is how the format says that none is needed.
        None => SecurityRequirement::default(),
        Some(scope) => SecurityRequirement::new(SCHEME, [scope.as_str()]),
    };
    operation.security = Some(vec![required]);
    if let Some((scope, over)) = policy.scope().zip(policy.over()) {
        let said = json!({"scope": scope.as_str(), "over": over});
        let own = Extensions::from_iter([("x-policy", said)]);
        operation
            .extensions
            .get_or_insert_with(Extensions::default)
            .merge(own);
    }
    failures(operation, policy);
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            shape(parameter);
        }
    }
}

/// The errors that come before any handler, in the shape of the route's other errors.
fn failures(operation: &mut Operation, policy: Policy) {
    let responses = &mut operation.responses.responses;
    let Some(RefOr::T(default)) = responses.get_mut("default") else {
        return;
    };
    if default.description.is_empty() {
        default.description = "What went wrong, and what to try".to_owned();
    }
    let template = default.clone();
    let Some(scope) = policy.scope() else {
        return;
    };
    let refused = |description: String| {
        let mut response: Response = template.clone();
        response.description = description;
        RefOr::T(response)
    };
    for (status, description) in [
        ("401", "No token, or one that is not valid here".to_owned()),
        ("403", format!("The token does not grant {scope} here")),
    ] {
        responses
            .entry(status.to_owned())
            .or_insert_with(|| refused(description));
    }
}

fn shape(parameter: &mut Parameter) {
    let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema else {
        return;
    };
    match parameter.parameter_in {
        ParameterIn::Path => {
            let known = PARAMETERS.iter().find(|known| known.0 == parameter.name);
            if let Some((_, pattern, longest, example)) = known
                && schema.pattern.is_none()
            {
                schema.pattern = Some((*pattern).to_owned());
                schema.max_length = Some(*longest);
                schema.examples = vec![json!(example)];
            }
        }
        // Absent is how a parameter has no value: there is no way to write null there.
        _ => without_null(schema),
    }
}

fn without_null(schema: &mut Object) {
    if let SchemaType::Array(types) = &mut schema.schema_type {
        types.retain(|kind| *kind != Type::Null);
        if let [only] = &types[..] {
            schema.schema_type = SchemaType::Type(only.clone());
        }
    }
}
