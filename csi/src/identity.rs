//! The Identity service, the same for every driver and on every socket.
//!
//! What [`Plugin`] says is answered on the controller's and on the node's socket alike: tools ask
//! either of them, and one that hears less on one socket skips what it would check. Not to be ready is
//! no error; it is an answer, given until [`Readiness::set`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic::{Request, Response, Status};

use crate::wire::identity_server::Identity as Service;
use crate::wire::plugin_capability::{self, Type};
use crate::wire::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};

/// What a driver is.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its name, `data.terrace.io` for instance.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// A volume is not reachable from everywhere: volumes and nodes have a topology.
    pub topology: bool,
    /// Volumes can be made larger while they are used.
    pub expansion: bool,
}

/// Whether a driver takes calls yet.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on, or no more.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// As it was set last; false at first.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct Identity {
    plugin: Plugin,
    ready: Readiness,
}

impl Identity {
    /// Answers for a driver.
    pub fn new(plugin: Plugin, ready: Readiness) -> Self {
        Self { plugin, ready }
    }
}

#[tonic::async_trait]
impl Service for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.plugin.name.to_owned(),
            vendor_version: self.plugin.version.clone(),
            manifest: Default::default(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        use plugin_capability::service::Type as Offered;
        let service = |offered: Offered| {
            Type::Service(plugin_capability::Service {
                r#type: offered.into(),
            })
        };
        let mut types = vec![service(Offered::ControllerService)];
        if self.plugin.topology {
            types.push(service(Offered::VolumeAccessibilityConstraints));
        }
        if self.plugin.expansion {
            types.push(Type::VolumeExpansion(plugin_capability::VolumeExpansion {
                r#type: plugin_capability::volume_expansion::Type::Online.into(),
            }));
        }
        let capabilities = types
            .into_iter()
            .map(|kind| PluginCapability { r#type: Some(kind) })
            .collect();
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse {
            ready: Some(self.ready.get()),
        }))
    }
}
