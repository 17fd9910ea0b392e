//! How messages with secrets print: every field, but of secrets, tokens and contexts their keys only.
//!
//! The code generator makes no `Debug` for these messages (`build.rs`), so that one that is forgotten
//! here does not compile instead of showing a token. A volume's context is guarded as a whole: kubelet
//! puts the tokens of service accounts into it.

use std::collections::HashMap;
use std::fmt;

use super::wire;

/// Prints the keys of a map.
struct Keys<'a>(&'a HashMap<String, String>);

impl fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys: Vec<&String> = self.0.keys().collect();
        keys.sort();
        f.debug_map()
            .entries(keys.iter().map(|key| (key, format_args!("***"))))
            .finish()
    }
}

macro_rules! redacted {
    ($($message:ty { $($shown:ident),* } hides { $($hidden:ident),+ })+) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // A field that is added to the message has to be named here too.
                let Self { $($shown,)* $($hidden),+ } = self;
                f.debug_struct(stringify!($message).rsplit("::").next().unwrap_or_default())
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($hidden), &Keys($hidden)))+
                    .finish()
            }
        }
    )+};
}

redacted! {
    wire::CreateVolumeRequest {
        name, capacity_range, volume_capabilities, parameters, volume_content_source,
        accessibility_requirements, mutable_parameters
    } hides { secrets }
    wire::Volume {
        capacity_bytes, volume_id, content_source, accessible_topology
    } hides { volume_context }
    wire::DeleteVolumeRequest { volume_id } hides { secrets }
    wire::ControllerPublishVolumeRequest {
        volume_id, node_id, volume_capability, readonly
    } hides { secrets, volume_context }
    wire::ControllerPublishVolumeResponse {} hides { publish_context }
    wire::ControllerUnpublishVolumeRequest { volume_id, node_id } hides { secrets }
    wire::ValidateVolumeCapabilitiesRequest {
        volume_id, volume_capabilities, parameters, mutable_parameters
    } hides { volume_context, secrets }
    wire::validate_volume_capabilities_response::Confirmed {
        volume_capabilities, parameters, mutable_parameters
    } hides { volume_context }
    wire::ControllerModifyVolumeRequest { volume_id, mutable_parameters } hides { secrets }
    wire::CreateSnapshotRequest { source_volume_id, name, parameters } hides { secrets }
    wire::DeleteSnapshotRequest { snapshot_id } hides { secrets }
    wire::ListSnapshotsRequest {
        max_entries, starting_token, source_volume_id, snapshot_id
    } hides { secrets }
    wire::GetSnapshotRequest { snapshot_id } hides { secrets }
    wire::ControllerExpandVolumeRequest {
        volume_id, capacity_range, volume_capability
    } hides { secrets }
    wire::NodeStageVolumeRequest {
        volume_id, staging_target_path, volume_capability
    } hides { publish_context, secrets, volume_context }
    wire::NodePublishVolumeRequest {
        volume_id, staging_target_path, target_path, volume_capability, readonly
    } hides { publish_context, secrets, volume_context }
    wire::NodeExpandVolumeRequest {
        volume_id, volume_path, capacity_range, staging_target_path, volume_capability
    } hides { secrets }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A token in a log is a token for everybody who reads logs.
    #[test]
    fn secrets_and_contexts_never_print() {
        let map = || HashMap::from([("key".to_owned(), "canary".to_owned())]);
        let publish = wire::NodePublishVolumeRequest {
            volume_id: "v1".into(),
            publish_context: map(),
            secrets: map(),
            volume_context: map(),
            ..Default::default()
        };
        let create = wire::CreateVolumeRequest {
            name: "pvc-1".into(),
            secrets: map(),
            ..Default::default()
        };
        let volume = wire::Volume {
            volume_context: map(),
            ..Default::default()
        };
        let shown = format!("{publish:?} {create:?} {volume:#?}");
        assert!(!shown.contains("canary"), "{shown}");
        for kept in ["v1", "pvc-1", "\"key\": ***", "NodePublishVolumeRequest"] {
            assert!(shown.contains(kept), "{kept} is not in {shown}");
        }
    }
}
