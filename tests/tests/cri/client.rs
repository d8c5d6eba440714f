//! The container runtime interface, as kubelet calls it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    ImageStatusRequest, ListPodSandboxRequest, PodSandboxConfig, PodSandboxStatus,
    PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StatusRequest, StopPodSandboxRequest, VersionRequest,
};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// How long any call may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client that waits for each answer.
#[derive(Debug)]
pub(crate) struct Client {
    tokio: Runtime,
    channel: Channel,
}

impl Client {
    /// Makes one for a socket; each call connects if need be, so it survives a restart.
    pub(crate) fn new(socket: &Path) -> Result<Self> {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let channel = {
            let _inside = tokio.enter();
            endpoint.timeout(TIMEOUT).connect_lazy()
        };
        Ok(Self { tokio, channel })
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
    }

    /// The runtime's name and version.
    pub(crate) fn version(&self) -> Result<String> {
        let request = VersionRequest::default();
        let answer = self.tokio.block_on(self.runtime().version(request))?;
        let answer = answer.into_inner();
        Ok(format!(
            "{} {}",
            answer.runtime_name, answer.runtime_version
        ))
    }

    /// Why the runtime says that pods get no network; nothing if they do.
    pub(crate) fn network_problem(&self) -> Result<Option<String>> {
        let request = StatusRequest::default();
        let answer = self.tokio.block_on(self.runtime().status(request))?;
        let status = answer.into_inner().status.context("no status")?;
        let conditions = status.conditions.into_iter();
        let mut network = conditions.filter(|condition| condition.r#type == "NetworkReady");
        let network = network.next().context("no condition NetworkReady")?;
        Ok((!network.status).then_some(network.message))
    }

    /// Whether the runtime knows an image.
    pub(crate) fn has_image(&self, name: &str) -> Result<bool> {
        let image = Some(image(name));
        let request = ImageStatusRequest {
            image,
            verbose: false,
        };
        let mut images = ImageServiceClient::new(self.channel.clone());
        let answer = self.tokio.block_on(images.image_status(request))?;
        Ok(answer.into_inner().image.is_some())
    }

    /// Runs a sandbox; returns its ID.
    pub(crate) fn run(&self, config: &PodSandboxConfig) -> Result<String> {
        self.tokio.block_on(run(self.runtime(), config.clone()))
    }

    /// Runs sandboxes, all at once; returns their IDs in the same order.
    pub(crate) fn run_all(&self, configs: &[PodSandboxConfig]) -> Result<Vec<String>> {
        self.all(configs, |client, config| run(client, config.clone()))
    }

    /// Stops a sandbox and its containers.
    pub(crate) fn stop(&self, id: &str) -> Result<()> {
        self.tokio.block_on(stop(self.runtime(), id.to_owned()))
    }

    /// Stops and then removes sandboxes, all at once.
    pub(crate) fn delete_all(&self, ids: &[String]) -> Result<()> {
        let delete = |client: RuntimeServiceClient<Channel>, id: &String| {
            let id = id.clone();
            async {
                stop(client.clone(), id.clone()).await?;
                remove(client, id).await
            }
        };
        self.all(ids, delete).map(drop)
    }

    /// Removes a sandbox; that stops it, if it runs.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.tokio.block_on(remove(self.runtime(), id.to_owned()))
    }

    /// The IDs of all sandboxes, running or not.
    pub(crate) fn sandboxes(&self) -> Result<Vec<String>> {
        let request = ListPodSandboxRequest::default();
        let answer = self
            .tokio
            .block_on(self.runtime().list_pod_sandbox(request))?;
        let items = answer.into_inner().items.into_iter();
        Ok(items.map(|sandbox| sandbox.id).collect())
    }

    /// What the runtime says of a sandbox, and what only containerd says: its process, its namespaces …
    pub(crate) fn sandbox(&self, id: &str) -> Result<(PodSandboxStatus, Value)> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let answer = self
            .tokio
            .block_on(self.runtime().pod_sandbox_status(request))?;
        let answer = answer.into_inner();
        let info = answer.info.get("info").context("no verbose status")?;
        let status = answer.status.context("no status")?;
        Ok((status, serde_json::from_str(info)?))
    }

    /// Starts a container in a sandbox; returns its ID.
    pub(crate) fn start(
        &self,
        sandbox: &str,
        config: &PodSandboxConfig,
        container: ContainerConfig,
    ) -> Result<String> {
        let mut client = self.runtime();
        let create = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(container),
            sandbox_config: Some(config.clone()),
        };
        self.tokio.block_on(async {
            let created = client.create_container(create).await?.into_inner();
            let container_id = created.container_id;
            let request = StartContainerRequest {
                container_id: container_id.clone(),
            };
            client.start_container(request).await?;
            Ok(container_id)
        })
    }

    /// Runs a shell script in a container to its end.
    pub(crate) fn exec(&self, container: &str, script: &str) -> Result<ExecSyncResponse> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).into(),
            timeout: TIMEOUT.as_secs() as i64,
        };
        let answer = self.tokio.block_on(self.runtime().exec_sync(request))?;
        Ok(answer.into_inner())
    }

    /// Does something with each of many at once; fails if one does.
    fn all<'a, In, Out, F>(
        &self,
        items: &'a [In],
        call: impl Fn(RuntimeServiceClient<Channel>, &'a In) -> F,
    ) -> Result<Vec<Out>>
    where
        Out: Send + 'static,
        F: Future<Output = Result<Out>> + Send + 'static,
    {
        self.tokio.block_on(async {
            let mut calls = JoinSet::new();
            for (index, item) in items.iter().enumerate() {
                let call = call(self.runtime(), item);
                calls.spawn(async move { (index, call.await) });
            }
            let mut answers = calls.join_all().await;
            answers.sort_by_key(|(index, _)| *index);
            answers.into_iter().map(|(_, answer)| answer).collect()
        })
    }
}

/// An image by its name.
pub(crate) fn image(name: &str) -> ImageSpec {
    ImageSpec {
        image: name.to_owned(),
        ..ImageSpec::default()
    }
}

async fn run(
    mut client: RuntimeServiceClient<Channel>,
    config: PodSandboxConfig,
) -> Result<String> {
    let request = RunPodSandboxRequest {
        config: Some(config),
        runtime_handler: String::new(),
    };
    let answer = client.run_pod_sandbox(request).await?;
    Ok(answer.into_inner().pod_sandbox_id)
}

async fn stop(mut client: RuntimeServiceClient<Channel>, pod_sandbox_id: String) -> Result<()> {
    let request = StopPodSandboxRequest { pod_sandbox_id };
    client.stop_pod_sandbox(request).await?;
    Ok(())
}

async fn remove(mut client: RuntimeServiceClient<Channel>, pod_sandbox_id: String) -> Result<()> {
    let request = RemovePodSandboxRequest { pod_sandbox_id };
    client.remove_pod_sandbox(request).await?;
    Ok(())
}
