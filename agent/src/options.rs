//! The command line.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;

/// The node daemon of beeline's cluster mode.
#[derive(Debug, Parser)]
#[command(name = "beeline-agent", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// How to log
    #[arg(long, global = true, env = "BEELINE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Keeps this node in step with a Kubernetes cluster
    Kubernetes(Kubernetes),
    /// Keeps this node in step with others by an etcd, for clusters without Kubernetes
    Etcd(Etcd),
    /// Copies the plugin to where runtimes look for it
    Install(Install),
    /// Takes beeline off this node
    Uninstall(Node),
    /// Runs a program of the host's
    #[command(hide = true)]
    ExecIn {
        /// The host's root directory
        root: PathBuf,
        /// The program, and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// Where things are on the node.
#[derive(Clone, Debug, Args)]
pub(crate) struct Node {
    /// The network's configuration without what differs between nodes: a conflist
    #[arg(
        long,
        env = "BEELINE_TEMPLATE",
        default_value = "/etc/beeline/beeline.conflist"
    )]
    pub(crate) template: PathBuf,
    /// Where the runtime looks for network configurations
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub(crate) conf_dir: PathBuf,
    /// The name of the node's network configuration
    #[arg(long, default_value = "10-beeline.conflist")]
    pub(crate) conf_name: String,
    /// Where the runtime looks for plugins
    #[arg(long, default_value = "/opt/cni/bin")]
    pub(crate) bin_dir: PathBuf,
    /// The host's root directory, if the agent has another one
    #[arg(long)]
    pub(crate) host_root: Option<PathBuf>,
}

/// What the daemon does whatever the backend.
#[derive(Clone, Debug, Args)]
pub(crate) struct Daemon {
    #[command(flatten)]
    pub(crate) node: Node,
    /// This node's name in the cluster
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// Where to serve metrics and health
    #[arg(long, default_value = "0.0.0.0:9474")]
    pub(crate) listen: SocketAddr,
    /// The runtime's socket, to collect what pods left that it does not know any more; tried where runtimes have it by
    /// default if not given
    #[arg(long, env = "CONTAINER_RUNTIME_ENDPOINT")]
    pub(crate) runtime_endpoint: Option<PathBuf>,
    /// How old what a pod left must be to be collected, in seconds
    #[arg(long, default_value = "300", value_parser = seconds)]
    pub(crate) gc_age: Duration,
    /// How often to look whether the node still is as it should be, in seconds
    #[arg(long, default_value = "60", value_parser = seconds)]
    pub(crate) resync: Duration,
}

/// Options of `kubernetes`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Kubernetes {
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    /// How to reach the cluster; the pod's service account if not given
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The DaemonSet that runs the agent, `namespace/name`: once that is deleted, the agent takes beeline off the node as it
    /// ends
    #[arg(long, env = "BEELINE_DAEMONSET")]
    pub(crate) daemon_set: Option<String>,
}

/// Options of `etcd`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Etcd {
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    /// The members of the etcd, such as `https://10.0.0.1:2379`
    #[arg(long, env = "ETCD_ENDPOINTS", value_delimiter = ',', required = true)]
    pub(crate) endpoints: Vec<String>,
    /// Which authority has signed the members' certificates (PEM)
    #[arg(long)]
    pub(crate) cacert: Option<PathBuf>,
    /// The agent's certificate (PEM)
    #[arg(long, requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The key of the agent's certificate (PEM)
    #[arg(long, requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// What keys begin with
    #[arg(long, default_value = "/beeline")]
    pub(crate) prefix: String,
    /// What the nodes' pod CIDRs are cut from: one of IPv4, one of IPv6, or both
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) cluster_cidr: Vec<IpNetwork>,
    /// The length of a node's pod CIDR of IPv4
    #[arg(long, default_value_t = 24)]
    pub(crate) subnet_length_v4: u8,
    /// The length of a node's pod CIDR of IPv6
    #[arg(long, default_value_t = 64)]
    pub(crate) subnet_length_v6: u8,
    /// How long a node keeps its pod CIDRs when its agent does not reach the etcd, in seconds
    #[arg(long, default_value = "86400", value_parser = seconds)]
    pub(crate) lease: Duration,
    /// Give the node's pod CIDRs back, for other nodes to take, and end; no agent may run on the node
    #[arg(long)]
    pub(crate) release: bool,
    /// Where other nodes reach this one; the address towards the etcd if not given
    #[arg(long, value_delimiter = ',')]
    pub(crate) node_address: Vec<IpAddr>,
}

/// Options of `install`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Install {
    /// The plugin
    #[arg(long, default_value = "/beeline")]
    pub(crate) plugin: PathBuf,
    /// Where the runtime looks for plugins
    #[arg(long, default_value = "/opt/cni/bin")]
    pub(crate) bin_dir: PathBuf,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u64 = text.parse().map_err(|error| format!("{error}"))?;
    match seconds {
        0 => Err("must not be 0".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_and_their_options_go_together() {
        Options::command().debug_assert();
    }
}
