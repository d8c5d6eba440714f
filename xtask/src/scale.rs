//! `scale`: measures an agent among thousands of nodes, whose objects a real API server has.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self as std_process, Command};

use anyhow::{Context, Result};

use crate::process;
use crate::{build, build_ebpf, interrupt, kubernetes, packages, workspace};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where Kubernetes' programs are or shall be, instead of BEELINE_KUBE_DIR or ~/.cache/beeline-kube
    #[arg(long, value_name = "DIR")]
    kube_dir: Option<PathBuf>,
    /// Where to write the results
    #[arg(long, value_name = "FILE", default_value = "scale.json")]
    output: PathBuf,
    /// How many other nodes there are, one measurement each
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 5000])]
    nodes: Vec<u32>,
    /// How many nodes change a second
    #[arg(long, default_value_t = 10)]
    rate: u32,
}

/// The network that the agent is to set up.
const TEMPLATE: &str = r#"{
  "cniVersion": "1.0.0", "name": "pods",
  "plugins": [{
    "type": "beeline", "bridge": "cni0", "isGateway": true, "ipMasq": true,
    "ipam": {"type": "host-local"}, "datapath": {"overlay": {"type": "vxlan"}}
  }]
}"#;

/// Puts all nodes that are made up on the node's own link.
const LINK: &str = "172.19.255.254/14";

/// Builds, brings a cluster up, measures, and takes it down.
pub(crate) fn run(args: &Args) -> Result<()> {
    interrupt::survive()?;
    let directory = kubernetes::prepare(args.kube_dir.as_deref())?;
    packages::require(&[packages::BUILD_AGENT, packages::BUILD_TESTS])?;
    build_ebpf::run()?;
    build::host(true)?;
    build::agent(true)?;
    let mut cargo = workspace::cargo();
    process::run(cargo.args(["build", "--package", "beeline-agent", "--example", "scale"]))?;
    kubernetes::clean(&directory)?;
    let name = format!("test-{}-scale", std_process::id());
    let cluster = Cluster {
        state: directory.join("clusters").join(name),
        directory,
    };
    let measured = measure(&cluster, args);
    let down = process::run(cluster.script("down.sh").arg("--purge").process_group(0));
    measured.and(down)
}

struct Cluster {
    directory: PathBuf,
    state: PathBuf,
}

impl Cluster {
    fn script(&self, name: &str) -> Command {
        let mut script = kubernetes::script(name);
        script
            .env("KUBE_DIR", &self.directory)
            .env("KUBE_STATE", &self.state);
        script
    }

    /// A command inside the node.
    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.script("node.sh");
        command.arg("1").arg(program.as_ref());
        command
    }
}

fn measure(cluster: &Cluster, args: &Args) -> Result<()> {
    process::run_quietly(cluster.script("up.sh").env("NODES", "1").env("PROXY", "0"))?;
    // They would give the nodes that are made up subnets and taints.
    process::run(
        cluster
            .script("stop.sh")
            .args(["controller-manager", "scheduler"]),
    )?;
    process::run(
        cluster
            .inside("ip")
            .args(["address", "add", LINK, "dev", "eth0"]),
    )?;
    let plugin = workspace::release_bin("beeline");
    process::run(cluster.inside("cp").arg(plugin).arg("/opt/cni/bin/"))?;
    let template = cluster.state.join("template.conflist");
    fs::write(&template, TEMPLATE).with_context(|| template.display().to_string())?;
    let nodes: Vec<_> = args.nodes.iter().map(ToString::to_string).collect();
    let mut driver = cluster.inside("env");
    driver.args(["MALLOC_ARENA_MAX=1", "BEELINE_LOG=warn"]);
    driver.arg(workspace::target().join("debug/examples/scale"));
    driver
        .arg("--kubeconfig")
        .arg(cluster.state.join("etc/admin.kubeconfig"));
    driver
        .arg("--agent")
        .arg(workspace::release_bin("beeline-agent"));
    driver.arg("--template").arg(template);
    driver.args(["--bin-dir", "/opt/cni/bin", "--node-name", "node1"]);
    driver.arg("--nodes").arg(nodes.join(","));
    driver.arg("--rate").arg(args.rate.to_string());
    driver
        .arg("--output")
        .arg(std::path::absolute(&args.output)?);
    process::run(&mut driver)
}
