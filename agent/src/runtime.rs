//! The container runtime's list of pods, by the CRI.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_cri::v1::{ListPodSandboxRequest, runtime_service_client::RuntimeServiceClient};
use tonic::transport::Endpoint;

/// Where runtimes have their sockets.
const DEFAULTS: [&str; 2] = ["/run/containerd/containerd.sock", "/run/crio/crio.sock"];

const TIMEOUT: Duration = Duration::from_secs(10);

/// The container IDs of all pods that the runtime knows, whether they run or not; none if there is no runtime to ask.
///
/// # Errors
///
/// The runtime does not answer.
pub(crate) async fn pods(socket: Option<&Path>) -> Result<Option<HashSet<String>>> {
    let Some(socket) = socket.map(PathBuf::from).or_else(found) else {
        return Ok(None);
    };
    let list = async || -> Result<HashSet<String>> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let channel = endpoint
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .connect()
            .await?;
        let mut runtime = RuntimeServiceClient::new(channel);
        let listed = runtime
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await?;
        Ok(listed
            .into_inner()
            .items
            .into_iter()
            .map(|pod| pod.id)
            .collect())
    };
    let listed = list().await;
    listed
        .map(Some)
        .with_context(|| format!("runtime {}: list pods", socket.display()))
}

fn found() -> Option<PathBuf> {
    DEFAULTS
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}
