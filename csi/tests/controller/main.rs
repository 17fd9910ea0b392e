//! The controller against an API server and a catalog of the test: what it keeps in step, what it answers,
//! and what becomes of both when something fails.
//!
//! The same against a real API server is `tests/kubernetes`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod catalog;
mod datasets;
mod faults;
mod pods;
mod scratch;
mod taints;
mod volumes;
mod world;

/// Where resources of a namespace are.
pub(crate) fn resource(namespace: &str, name: &str) -> String {
    format!("/apis/terrace.io/v1alpha1/namespaces/{namespace}/datasets/{name}")
}

/// Where claims of a namespace are.
pub(crate) fn claim(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
}

// A chart that installs another definition than the program speaks is found out by its users.
#[test]
fn the_definition_that_is_installed_is_ours() {
    let kept = include_str!("../../../deploy/helm/terrace/crds/datasets.terrace.io.yaml");
    let hint =
        "run terrace controller --print-crd > deploy/helm/terrace/crds/datasets.terrace.io.yaml";
    assert_eq!(kept, terrace_csi::kube::crd_yaml(), "{hint}");
}
