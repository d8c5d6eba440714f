//! What tests start from: the one cluster, with the pod network that they need, and three pods on it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use beeline_tests::plan::Families;

use crate::cluster::Cluster;
use crate::logs;
use crate::network::{self, Network};
use crate::pod::Pod;
use crate::wait::{seconds, wait_for};

/// Pods that stay while tests come and go.
pub(crate) struct Pods {
    /// On the first node.
    pub(crate) a: Pod,
    /// On the first node, too.
    pub(crate) b: Pod,
    /// On the second node.
    pub(crate) c: Pod,
}

/// The names of these pods.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A cluster and what is on it.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    network: Network,
    pods: Option<Pods>,
    is_spent: bool,
}

enum Shared {
    NotYet,
    Up(Box<Lab>),
    /// What does not come up once takes minutes to fail again.
    Broken(String),
}

static SHARED: Mutex<Shared> = Mutex::new(Shared::NotYet);

/// Runs a test on the one cluster, alone, with this pod network; if it fails, says what the nodes were at.
#[track_caller]
pub(crate) fn on(network: Network, test: impl FnOnce(&mut Lab) -> Result<()>) {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Shared::NotYet = *shared {
        *shared = match Lab::new("shared", Families::V4) {
            Ok(lab) => Shared::Up(Box::new(lab)),
            Err(error) => Shared::Broken(format!("{error:#}")),
        };
    }
    let ran = match &mut *shared {
        Shared::Up(lab) => catch_unwind(AssertUnwindSafe(|| lab.run(network, test))),
        Shared::Broken(why) => panic!("{why}"),
        Shared::NotYet => unreachable!("it is up or broken"),
    };
    // The next test starts from a new cluster: what a failure left explains nothing there.
    if ran.is_err() || matches!(&*shared, Shared::Up(lab) if lab.is_spent) {
        *shared = Shared::NotYet;
    }
    ran.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Runs a test on a cluster of its own, where pods have addresses of both families.
#[track_caller]
pub(crate) fn on_dual_stack(network: Network, test: impl FnOnce(&mut Lab) -> Result<()>) {
    let mut lab = Lab::new("dual", Families::Dual).unwrap_or_else(|error| panic!("{error:#}"));
    lab.run(network, test);
}

impl Lab {
    fn new(name: &str, families: Families) -> Result<Self> {
        Ok(Self {
            cluster: Cluster::up(name, families)?,
            network: Network::None,
            pods: None,
            is_spent: false,
        })
    }

    #[track_caller]
    fn run(&mut self, network: Network, test: impl FnOnce(&mut Self) -> Result<()>) {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.change(network)
                .with_context(|| format!("pod network: change to {network:?}"))?;
            test(self)
        }));
        if !matches!(ran, Ok(Ok(()))) {
            logs::print(&self.cluster);
        }
        match ran {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("{error:#}"),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Changes the pod network; pods of the former one go.
    pub(crate) fn change(&mut self, network: Network) -> Result<()> {
        if self.network == network {
            return Ok(());
        }
        self.remove_pods()?;
        network::take_down(&self.cluster, self.network)?;
        // Whatever comes of it, it is there to be taken down.
        self.network = network;
        network::set_up(&self.cluster, network)
    }

    /// Says that a test has taken the network down; what is left of it by design goes, too.
    pub(crate) fn was_taken_down(&mut self) -> Result<()> {
        self.network = Network::None;
        self.remove_pods()?;
        self.cluster.nodes().iter().try_for_each(network::scrub)
    }

    /// Leaves the cluster to be taken down: without a network configuration containerd lets no pod go.
    pub(crate) fn spend(&mut self) {
        self.is_spent = true;
    }

    /// Deletes the pods, if there are any.
    pub(crate) fn remove_pods(&mut self) -> Result<()> {
        self.pods = None;
        self.cluster.delete_pods(&NAMES)
    }

    /// The three pods, on the fast path; makes them if need be.
    pub(crate) fn pods(&mut self) -> Result<&Pods> {
        if self.pods.is_none() {
            let (one, two) = (self.cluster.node(1), self.cluster.node(2));
            let wanted = [("a", one), ("b", one), ("c", two)];
            let [a, b, c] = self.cluster.add_pods(wanted)?;
            self.pods = Some(Pods { a, b, c });
        }
        wait_for("all on the fast path", seconds(30), || {
            settled(&self.cluster)
        })?;
        self.pods.as_ref().context("no pods")
    }

    /// The cluster and its pods.
    pub(crate) fn parts(&mut self) -> Result<(&Cluster, &Pods)> {
        self.pods()?;
        let pods = self.pods.as_ref().context("no pods")?;
        Ok((&self.cluster, pods))
    }
}

/// Whether every pod is on the fast path, and every node knows the others' subnets.
pub(crate) fn settled(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let status = node.status()?;
        let pods = status["pods"].as_array().context("no pods")?;
        if let Some(slow) = pods.iter().find(|pod| pod["path"] != "fast") {
            bail!("{}: {slow} in {status}", node.name());
        }
        for peer in cluster
            .nodes()
            .iter()
            .filter(|peer| peer.name() != node.name())
        {
            for cidr in cluster.pod_cidrs(peer)? {
                if status["peers"].get(&cidr).is_none() {
                    bail!("{}: {cidr} is not among {}", node.name(), status["peers"]);
                }
            }
        }
    }
    Ok(())
}
