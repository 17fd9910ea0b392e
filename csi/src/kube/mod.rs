//! The Kubernetes controller: datasets as resources, volumes and mounts, and the cluster's view of them.
//!
//! ```text
//! api/         what is asked of an API server: objects, lists, watches, the lease of the leader
//! catalog.rs   what is asked of a catalog, as a trait
//! keep/        the leader's passes: resources <-> catalog, volumes and claims, warm-up of nodes that pods
//!              were bound to, scratch volumes of nodes that are gone, taints of nodes that wait for drivers
//! admission/   the webhooks, answered by every replica
//! names.rs, wanted.rs, mounts.rs, dataset.rs   what users write: labels, annotations, resources
//! crd.rs       the definition of the resource
//! run.rs       all of it, until it is asked to end
//! ```
//!
//! Level-triggered throughout: what is wanted and what is there are compared again and again, nothing is
//! queued, and whatever is remembered can be found again. So it may be killed at any instant, run as
//! several replicas, and be without the API server or the catalog for as long as it takes; pods that run
//! need none of the three.

mod admission;
mod api;
mod catalog;
mod clock;
mod crd;
mod dataset;
mod keep;
mod mounts;
mod names;
mod pause;
mod run;
mod wanted;

pub use api::{KubeClient, KubeError, LeaseSettings};
pub use catalog::{Catalog, CatalogFault, Heat, Listed, Reporting, Resolved, WarmUpJob};
pub use crd::yaml as crd_yaml;
pub use keep::ScratchPolicy;
pub use names::{DATA_DRIVER, LOCAL_DRIVER};
pub use run::{ControllerError, Settings, Webhooks, run};
