//! A pod as kubelet makes it: a sandbox, and a container in it.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use beeline_tests::datapath;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata,
};

use crate::client::{Client, image};
use crate::containerd::Containerd;
use crate::image;

/// The namespace of all pods.
pub(crate) const NAMESPACE: &str = "test";

/// The configuration of a sandbox, to change.
pub(crate) fn config(containerd: &Containerd, name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            namespace: NAMESPACE.to_owned(),
            attempt: 0,
        }),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}", containerd.cgroup()),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// What kubelet asks for by default: containers share the network, but no processes.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Pod.into(),
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    }
}

/// A pod that serves a page on port 80 and has a shell.
#[derive(Debug)]
pub(crate) struct Pod {
    client: Arc<Client>,
    sandbox: String,
    container: String,
    ips: Vec<IpAddr>,
}

impl Pod {
    /// Runs one; panics if that fails.
    #[track_caller]
    pub(crate) fn run(containerd: &Containerd, name: &str) -> Self {
        Self::with(containerd, &config(containerd, name))
    }

    /// Runs one with a configuration; panics if that fails.
    #[track_caller]
    pub(crate) fn with(containerd: &Containerd, config: &PodSandboxConfig) -> Self {
        let pod = Self::try_with(containerd.client(), config).and_then(|pod| {
            datapath::settle(containerd.node(), pod.sandbox(), "eth0").map(|_| pod)
        });
        pod.unwrap_or_else(|error| panic!("{}: pod: {error:#}", containerd.node().name()))
    }

    fn try_with(client: &Arc<Client>, config: &PodSandboxConfig) -> Result<Self> {
        let sandbox = client.run(config)?;
        let ips = addresses(client, &sandbox)?;
        let command = ["httpd", "-f", "-p", "80", "-h", image::WWW];
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: "web".to_owned(),
                attempt: 0,
            }),
            image: Some(image(image::NAME)),
            command: command.map(str::to_owned).into(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxContainerSecurityContext::default()
                }),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        };
        let container = client.start(&sandbox, config, container)?;
        Ok(Self {
            client: client.clone(),
            sandbox,
            container,
            ips,
        })
    }

    /// The ID of its sandbox, which is CNI's container ID.
    pub(crate) fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// The first address of which the runtime knows.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ips[0]
    }

    /// The addresses of which the runtime knows.
    pub(crate) fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// Runs a shell script in it; returns what that wrote. Panics unless it succeeds.
    #[track_caller]
    pub(crate) fn exec(&self, script: &str) -> String {
        let answer = self.client.exec(&self.container, script);
        let answer = answer.unwrap_or_else(|error| panic!("{script}: {error:#}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&answer.stdout), text(&answer.stderr));
        assert_eq!(answer.exit_code, 0, "{script}: {out}{error}");
        out
    }

    /// Pings from it; panics unless every request is answered.
    #[track_caller]
    pub(crate) fn ping(&self, target: IpAddr, count: usize) {
        let output = self.exec(&format!("ping -A -c {count} -W 2 {target}"));
        let expected = format!("{count} packets received");
        assert!(output.contains(&expected), "{output}");
    }

    /// Gets a page of another pod from it, by an address and port.
    #[track_caller]
    pub(crate) fn fetch(&self, ip: IpAddr, port: u16) {
        let at = std::net::SocketAddr::new(ip, port);
        // Debian's busybox crashes with the time-out of wget.
        let page = self.exec(&format!("timeout 5 wget -q -O - http://{at}/"));
        assert_eq!(page, image::PAGE, "{at}");
    }

    /// Stops and removes it; panics if that fails.
    #[track_caller]
    pub(crate) fn delete(self) {
        let ids = std::slice::from_ref(&self.sandbox);
        let deleted = self.client.delete_all(ids);
        deleted.unwrap_or_else(|error| panic!("{}: delete: {error:#}", self.sandbox));
    }
}

/// The addresses of which the runtime knows; fails if there is none.
pub(crate) fn addresses(client: &Client, sandbox: &str) -> Result<Vec<IpAddr>> {
    let (status, _) = client.sandbox(sandbox)?;
    let network = status.network.context("a sandbox without a network")?;
    let others = network.additional_ips.into_iter().map(|ip| ip.ip);
    let all = std::iter::once(network.ip).chain(others);
    all.map(|ip| ip.parse().with_context(|| format!("address {ip:?}")))
        .collect()
}
