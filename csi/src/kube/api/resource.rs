//! Where each kind of object is on an API server.
//!
//! ```text
//! core    /api/v1[/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]
//! others  /apis/GROUP/VERSION[/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]
//! ```

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
}

impl Resource {
    const fn core(plural: &'static str, kind: &'static str) -> Self {
        Self {
            group: "",
            version: "v1",
            plural,
            kind,
        }
    }

    /// What `apiVersion` of its objects says.
    pub(crate) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The parts of the path of a collection, or of an object in it. An empty namespace is none.
    pub(crate) fn path<'a>(&self, namespace: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
        let mut parts = match self.group {
            "" => vec!["api", self.version],
            group => vec!["apis", group, self.version],
        };
        if !namespace.is_empty() {
            parts.extend(["namespaces", namespace]);
        }
        parts.push(self.plural);
        parts.extend(rest);
        parts
    }
}

/// Namespaces.
pub(crate) const NAMESPACES: Resource = Resource::core("namespaces", "Namespace");
/// Nodes.
pub(crate) const NODES: Resource = Resource::core("nodes", "Node");
/// Pods.
pub(crate) const PODS: Resource = Resource::core("pods", "Pod");
/// Volumes of the cluster.
pub(crate) const VOLUMES: Resource = Resource::core("persistentvolumes", "PersistentVolume");
/// Claims of namespaces to them.
pub(crate) const VOLUME_CLAIMS: Resource =
    Resource::core("persistentvolumeclaims", "PersistentVolumeClaim");
/// Small data of namespaces.
pub(crate) const CONFIG_MAPS: Resource = Resource::core("configmaps", "ConfigMap");
/// Who leads.
pub(crate) const LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    version: "v1",
    plural: "leases",
    kind: "Lease",
};
/// Which drivers the kubelet of a node has registered.
pub(crate) const CSI_NODES: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    plural: "csinodes",
    kind: "CSINode",
};
/// Our own kind.
pub(crate) const DATASETS: Resource = Resource {
    group: "terrace.io",
    version: "v1alpha1",
    plural: "datasets",
    kind: "Dataset",
};

#[cfg(test)]
mod tests {
    use super::*;

    // A wrong path is a 404, which reads as "there is none".
    #[test]
    fn paths_are_those_of_the_api() {
        let path = |resource: Resource, namespace, rest: &[&'static str]| {
            resource.path(namespace, rest).join("/")
        };
        assert_eq!(path(PODS, "", &[]), "api/v1/pods");
        assert_eq!(
            path(VOLUME_CLAIMS, "ml", &["a"]),
            "api/v1/namespaces/ml/persistentvolumeclaims/a"
        );
        assert_eq!(
            path(DATASETS, "ml", &["a", "status"]),
            "apis/terrace.io/v1alpha1/namespaces/ml/datasets/a/status"
        );
        assert_eq!(LEASES.api_version(), "coordination.k8s.io/v1");
        assert_eq!(NODES.api_version(), "v1");
    }
}
