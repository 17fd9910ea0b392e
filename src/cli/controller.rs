//! `terrace controller`: the catalog and a Kubernetes cluster in step, and the webhooks of pods.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use terrace_cache::units::Span;
use terrace_catalog::tls::ServerTls;
use terrace_csi::identity::Readiness;
use terrace_csi::kube::{
    DATA_DRIVER, KubeClient, LOCAL_DRIVER, LeaseSettings, ScratchPolicy, Settings, Webhooks,
    crd_yaml, run as run_controller,
};
use terrace_csi::metrics::{ControllerNumbers, Page};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Failure, Global, pages};
use crate::catalog::cluster::ClusterCatalog;
use crate::catalog::place::CatalogArgs;
use crate::catalog::trusting;
use crate::node::report::host_name;

/// Where a pod finds what its service account needs.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the webhooks listen.
const LISTEN: &str = "0.0.0.0:9443";

/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a node must be gone before its scratch volumes count as lost.
const GONE_AFTER: Duration = Duration::from_secs(3600);

/// Keep a Kubernetes cluster and a catalog in step, and mount datasets that pods name.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Several may run: one of them leads, all answer the webhooks. In a pod the API server \
    and the account are found by themselves. See docs/KUBERNETES.md for rights, labels and annotations."
)]
pub(crate) struct ControllerArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Print the definition of the Dataset resource (YAML) and end
    #[arg(long)]
    print_crd: bool,
    /// Address of the Kubernetes API server [default: that of the cluster this pod is in]
    #[arg(long, value_name = "URL")]
    kube_api: Option<Url>,
    /// File with the token for the API server [default: that of the pod's service account]
    #[arg(long, value_name = "FILE", requires = "kube_api")]
    kube_token_file: Option<PathBuf>,
    /// Certificates (PEM) that the API server's own must come from [default: those of the pod's service
    /// account, else of the machine]
    #[arg(long, value_name = "FILE", requires = "kube_api")]
    kube_ca_file: Option<PathBuf>,
    /// Namespace of the controller: of its lease, and left alone by the webhook [default: that of the
    /// pod's service account]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Name of this replica [default: the host name and a random number]
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Address of the webhooks
    #[arg(long, value_name = "ADDR", default_value = LISTEN)]
    webhook_listen: SocketAddr,
    /// Certificate of the webhooks (PEM); it is read again when it changes. Without one there are none
    #[arg(long, value_name = "FILE", requires = "webhook_key")]
    webhook_cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "webhook_cert")]
    webhook_key: Option<PathBuf>,
    /// Refuse pods with the annotation terrace.io/mount: the nodes' driver takes no inline volumes
    #[arg(long)]
    no_inline: bool,
    /// Remove the objects of scratch volumes whose node is gone; without it, only say which
    #[arg(long)]
    clean_scratch: bool,
    /// How long a node must be gone for that
    #[arg(long, value_name = "TIME", default_value_t = Span(GONE_AFTER))]
    scratch_gone_after: Span,
    /// Take the taint terrace.io/agent-not-ready from a node once its kubelet has registered this driver;
    /// may be given again: then all of them. Without it no taint is looked at
    #[arg(long, value_name = "DRIVER", value_parser = [DATA_DRIVER, LOCAL_DRIVER])]
    untaint_after: Vec<String>,
    /// Address that serves /metrics and /readyz over plain HTTP [default: none]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

pub(crate) fn run(args: &ControllerArgs, global: &Global) -> Result<(), Failure> {
    if args.print_crd {
        let written = std::io::stdout().write_all(crd_yaml().as_bytes());
        return Ok(written.context("print the definition")?);
    }
    Ok(super::catalog::runtime()?.block_on(control(args, global))?)
}

async fn control(args: &ControllerArgs, global: &Global) -> Result<()> {
    let ends = super::catalog::Ends::watch()?;
    let catalog = args.catalog.client(&global.run_base())?;
    let client = args.client()?;
    let namespace = args.namespace()?;
    let lease = LeaseSettings::new(&namespace, "terrace-controller", &args.identity());
    let webhooks = args.webhooks().await?;
    let (numbers, ready) = (ControllerNumbers::default(), Readiness::default());
    let mut page = Page::new(ready.clone());
    numbers.show(&mut page);
    let settings = Settings {
        own_namespace: namespace,
        lease,
        scratch: ScratchPolicy {
            gone_after: args.scratch_gone_after.0,
            delete: args.clean_scratch,
        },
        untaint: args.untaint_after.clone(),
        webhooks,
        numbers,
        ready,
    };
    tracing::info!(catalog = catalog.address(), "the controller runs");
    let stop = CancellationToken::new();
    let _shown = pages::show(page, args.metrics, &stop).await?;
    let catalog = Arc::new(ClusterCatalog::new(catalog));
    let running = run_controller(client, catalog, settings, stop.clone());
    let mut running = std::pin::pin!(running);
    tokio::select! {
        ended = running.as_mut() => return ended.context("run the controller"),
        () = ends.wait() => stop.cancel(),
    }
    running.await.context("end the controller")
}

impl ControllerArgs {
    /// The API server that was named, or that of the cluster.
    fn client(&self) -> Result<KubeClient> {
        let builder = reqwest::Client::builder().connect_timeout(CONNECT);
        let account = PathBuf::from(ACCOUNT);
        let (url, token, ca) = match &self.kube_api {
            Some(url) => (
                url.clone(),
                self.kube_token_file.clone(),
                self.kube_ca_file.clone(),
            ),
            None => (
                in_cluster()?,
                Some(account.join("token")),
                Some(account.join("ca.crt")),
            ),
        };
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            bail!("{url} cannot be used as an API server; write https://host:port");
        }
        if url.scheme() == "http" && token.is_some() {
            bail!("{url} is plain HTTP, where others can read the token; write https://");
        }
        let builder = match &ca {
            Some(file) => trusting(builder, file)?,
            None => builder,
        };
        // A cluster's API server is not beyond a proxy of the environment.
        let http = builder.no_proxy().build().context("open HTTPS")?;
        Ok(KubeClient::new(http, url, token))
    }

    fn namespace(&self) -> Result<String> {
        if let Some(name) = &self.namespace {
            return Ok(name.clone());
        }
        let file = PathBuf::from(ACCOUNT).join("namespace");
        let text = std::fs::read_to_string(&file);
        let text = text.with_context(|| {
            format!(
                "read {}; outside of a pod name a --namespace",
                file.display()
            )
        })?;
        Ok(text.trim().to_owned())
    }

    /// Never the same for two processes: who restarts is another candidate, and waits as others do.
    fn identity(&self) -> String {
        match &self.identity {
            Some(name) => name.clone(),
            None => format!("{}_{:08x}", host_name(), rand::random::<u32>()),
        }
    }

    async fn webhooks(&self) -> Result<Option<Webhooks>> {
        let both = self.webhook_cert.clone().zip(self.webhook_key.clone());
        let Some((certificate, key)) = both else {
            tracing::info!("no webhooks: there is no --webhook-cert");
            return Ok(None);
        };
        let load = move || ServerTls::load(&certificate, &key);
        let tls = tokio::task::spawn_blocking(load).await;
        let tls = tls.context("read the certificate")?;
        let tls = tls.context("use --webhook-cert and --webhook-key")?;
        let listen = self.webhook_listen;
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("listen on {listen}"))?;
        let address = listener.local_addr().context("read the own address")?;
        tracing::info!(%address, "the webhooks answer");
        Ok(Some(Webhooks {
            listener,
            tls: Some(tls),
            inline: !self.no_inline,
        }))
    }
}

/// The address that Kubernetes gives to every pod.
fn in_cluster() -> Result<Url> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST");
    let Some((host, port)) = host.zip(variable("KUBERNETES_SERVICE_PORT")) else {
        bail!("this is no pod of a cluster: name the API server with --kube-api URL");
    };
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host,
    };
    let text = format!("https://{host}:{port}");
    text.parse()
        .with_context(|| format!("use {text} as the API server"))
}
