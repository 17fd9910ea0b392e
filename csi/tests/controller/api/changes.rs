//! Requests that change objects: created, replaced, patched, deleted, with the conditions that a client names.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Shared, Target, answered, status};

pub(super) fn create(shared: &Shared, target: &Target, mut object: Value) -> Response {
    let mut key = target.key();
    key.2 = object["metadata"]["name"].as_str().unwrap().to_owned();
    let mut world = shared.lock();
    if world.objects.contains_key(&key) {
        return status(409, "AlreadyExists", "there is one");
    }
    let metadata = &mut object["metadata"];
    if !target.namespace.is_empty() {
        metadata["namespace"] = json!(target.namespace);
    }
    metadata["uid"] = json!(format!("uid-{}", world.version + 1));
    metadata["generation"] = json!(1);
    if metadata.get("creationTimestamp").is_none() {
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let made = world.put(key, object, "ADDED");
    drop(world);
    shared.changes.send_modify(|count| *count += 1);
    (StatusCode::CREATED, answered(made)).into_response()
}

/// A condition that does not hold, or a conflict that a test asked for.
fn conflict(shared: &Shared, old: &Value, new: &Value) -> Option<Response> {
    let differs = |key: &str| {
        let wanted = new.pointer(key);
        wanted.is_some_and(|wanted| Some(wanted) != old.pointer(key))
    };
    let asked = new.pointer("/metadata/resourceVersion").is_some()
        && shared
            .faults
            .conflicts
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
    if asked {
        shared.faults.conflicted.fetch_add(1, Ordering::SeqCst);
    }
    let holds = !differs("/metadata/resourceVersion") && !differs("/metadata/uid");
    (asked || !holds).then(|| status(409, "Conflict", "the object has been modified"))
}

pub(super) fn replace(shared: &Shared, target: &Target, mut object: Value) -> Response {
    let mut world = shared.lock();
    let Some(old) = world.objects.get(&target.key()).cloned() else {
        return status(404, "NotFound", "there is none");
    };
    if let Some(refused) = conflict(shared, &old, &object) {
        return refused;
    }
    for kept in ["uid", "creationTimestamp"] {
        object["metadata"][kept] = old["metadata"][kept].clone();
    }
    let made = world.change(target.key(), object);
    drop(world);
    shared.changes.send_modify(|count| *count += 1);
    answered(made).into_response()
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(key)),
            value => merge(&mut into[key], value),
        }
    }
}

pub(super) fn patch(shared: &Shared, target: &Target, kind: &str, body: &Value) -> Response {
    let mut world = shared.lock();
    let key = target.key();
    let Some(mut object) = world.objects.get(&key).cloned() else {
        return status(404, "NotFound", "there is none");
    };
    if let Some(refused) = conflict(shared, &object, body) {
        return refused;
    }
    match (kind, target.subresource.as_deref()) {
        ("application/merge-patch+json", None) => {
            let before = object["spec"].clone();
            merge(&mut object, body);
            if object["spec"] != before {
                let generation = object["metadata"]["generation"].as_i64().unwrap();
                object["metadata"]["generation"] = json!(generation + 1);
            }
        }
        ("application/apply-patch+yaml", Some("status")) => {
            let new = body["status"].as_object().unwrap();
            let old = world.applied.insert(key.clone(), body["status"].clone());
            let mut status = object["status"].as_object().cloned().unwrap_or_default();
            for (field, _) in old
                .as_ref()
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                status.remove(field);
            }
            status.extend(new.clone());
            object["status"] = Value::Object(status);
        }
        _ => return status(405, "MethodNotAllowed", "not in this server"),
    }
    let made = world.change(key, object);
    drop(world);
    shared.changes.send_modify(|count| *count += 1);
    answered(made).into_response()
}

pub(super) fn delete(shared: &Shared, target: &Target, options: &Value) -> Response {
    let mut world = shared.lock();
    let key = target.key();
    let Some(mut object) = world.objects.get(&key).cloned() else {
        return status(404, "NotFound", "there is none");
    };
    let wanted = options.pointer("/preconditions/uid");
    if wanted.is_some() && wanted != object.pointer("/metadata/uid") {
        return status(409, "Conflict", "another uid");
    }
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let made = world.change(key, object);
    drop(world);
    shared.changes.send_modify(|count| *count += 1);
    answered(made).into_response()
}
