//! The peers of cluster mode: an agent keeps them, in a file beside the node's record, and in what leads to them.
//!
//! ```text
//! reconcile   all of the node, from the file on: at the agent's start, and where a change needs more than entries
//! follow      what a change of some peers changes: masquerade, neighbours, routes, maps
//! ```

use std::collections::{HashMap, HashSet};

use anyhow::{Result, ensure};
use beeline_common::Hook;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{Bridge, Plan, Record, Store, bridge, peers::Neighbourhood, routes, setup};
use crate::{
    datapath::{
        Datapath,
        config::{Mode, PeerConf},
    },
    net::Netlink,
    nft::Masquerade,
};

/// What an agent knows of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Where it knows it from: `kubernetes` or `etcd`.
    pub backend: String,
    /// The name of this node in the cluster.
    pub node: String,
    /// The other nodes' pod CIDRs, none of which overlap.
    pub peers: Vec<ClusterPeer>,
    /// Nodes that cannot be peers, each with the reason.
    pub problems: Vec<String>,
}

/// A pod CIDR of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPeer {
    /// The name of the node.
    pub name: String,
    /// The pod CIDR.
    pub cidr: IpNetwork,
    /// The address of the node.
    pub node: std::net::IpAddr,
}

impl ClusterPeer {
    fn conf(&self) -> PeerConf {
        PeerConf {
            cidr: self.cidr,
            node: self.node,
        }
    }
}

impl Cluster {
    /// The plan with the peers in it.
    pub(super) fn complete(&self, plan: &Plan) -> Plan {
        with_peers(plan, self.peers.iter().map(ClusterPeer::conf).collect())
    }
}

fn with_peers(plan: &Plan, peers: Vec<PeerConf>) -> Plan {
    let mut plan = plan.clone();
    plan.datapath.peers = peers;
    plan
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// All of it was made.
    Entirely,
    /// It takes more than entries; nothing was changed but the file.
    NeedsReconcile,
}

/// Makes the node what the plan and the cluster want, loading this build's programs; pods go on.
///
/// # Errors
///
/// The configuration names peers itself, or what pods cannot do without is missing. What they can is in the record.
pub async fn reconcile(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    cluster: &Cluster,
) -> Result<Record> {
    ensure!(
        plan.peers().is_empty(),
        "datapath.peers: must not be there in cluster mode, the agent keeps the peers"
    );
    let _lock = store.lock_exclusive()?;
    store.save_cluster(cluster)?;
    let former = store.record().map(|record| record.plan);
    let (bridge, record, _) = setup::set_up(netlink, plan, store).await?;
    if let Some(former) = former {
        leave_former_cidrs(netlink, &bridge, &former, plan).await?;
    }
    Ok(record)
}

/// Takes the gateway's addresses in pod CIDRs that the node has no more off the bridge: another node's pods may have these.
async fn leave_former_cidrs(
    netlink: &Netlink,
    bridge: &Bridge,
    former: &Plan,
    plan: &Plan,
) -> Result<()> {
    let (index, name) = bridge.gateway();
    for held in netlink.addresses(index).await? {
        let held = held.network;
        if former.holds(held.ip()) && !plan.holds(held.ip()) {
            tracing::warn!("bridge {name}: {held} is of a pod CIDR that is this node's no more");
            netlink.delete_address(index, held).await?;
        }
    }
    Ok(())
}

/// Makes what differs between two states of the cluster, on a node that is as the first says.
///
/// # Errors
///
/// The kernel refuses; then [`reconcile`] is needed.
pub async fn follow(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    before: &Cluster,
    after: &Cluster,
) -> Result<Followed> {
    let _lock = store.lock_exclusive()?;
    store.save_cluster(after)?;
    let Some(record) = store.record().filter(|record| record.plan == *plan) else {
        return Ok(Followed::NeedsReconcile);
    };
    let change = Change::between(before, after);
    let peers = change.set.iter().map(ClusterPeer::conf).collect();
    let found = Neighbourhood::find(netlink, &with_peers(plan, peers)).await?;
    let fast = plan.datapath.mode != Mode::Bridge && record.degraded.is_none();
    let datapath = fast
        .then(|| Datapath::open(&plan.datapath.bpffs, &plan.network))
        .flatten();
    let prepared = fast == datapath.is_some()
        && bridge::find(netlink, &plan.bridge).await?.is_some()
        && is_prepared(&found, &record, datapath.as_ref(), after);
    if !prepared {
        return Ok(Followed::NeedsReconcile);
    }
    change
        .make(netlink, plan, &found, datapath.as_ref())
        .await?;
    note_problems(store, record, &change, found.problems)?;
    Ok(Followed::Entirely)
}

/// Whether the node has the devices and programs for what leads to these peers.
fn is_prepared(
    found: &Neighbourhood,
    record: &Record,
    datapath: Option<&Datapath>,
    cluster: &Cluster,
) -> bool {
    let attached = |hook, ifindex| datapath.is_none_or(|d| d.is_attached(hook, ifindex));
    let mut uplinks = found.uplinks.iter();
    let mut links = found.links();
    let fits = match (found.pod_mtu(), record.pod_mtu) {
        (Some(needed), given) => given.is_some_and(|given| given <= needed),
        (None, _) => true,
    };
    uplinks.all(|link| attached(Hook::FromUplink, link.index))
        && links.all(|link| attached(Hook::ToUplink, link.index))
        && fits
        && found.has_overlay_for_all()
        // The overlay joins nodes by addresses of one family; with two about, all peers have to be looked at.
        && (!found.needs_overlay() || cluster.is_of_one_family())
}

impl Cluster {
    fn is_of_one_family(&self) -> bool {
        let mut v4 = self.peers.iter().map(|peer| peer.node.is_ipv4());
        let first = v4.next();
        v4.all(|v4| Some(v4) == first)
    }

    fn by_cidr(&self) -> HashMap<IpNetwork, &ClusterPeer> {
        self.peers.iter().map(|peer| (peer.cidr, peer)).collect()
    }
}

/// The peers that differ.
struct Change {
    /// New, or with another node.
    set: Vec<ClusterPeer>,
    /// The CIDRs among these that there were before.
    known: HashSet<IpNetwork>,
    /// What was there before, where it is gone or has another node now.
    gone: Vec<ClusterPeer>,
    removed: Vec<IpNetwork>,
}

impl Change {
    fn between(before: &Cluster, after: &Cluster) -> Self {
        let (old, new) = (before.by_cidr(), after.by_cidr());
        let node = |peer: &&ClusterPeer| peer.node;
        let differs = |one: &&ClusterPeer, others: &HashMap<IpNetwork, &ClusterPeer>| {
            others.get(&one.cidr).map(node) != Some(one.node)
        };
        let set = after.peers.iter().filter(|peer| differs(peer, &old));
        let gone = before.peers.iter().filter(|peer| differs(peer, &new));
        let gone: Vec<ClusterPeer> = gone.cloned().collect();
        let removed = gone.iter().map(|peer| peer.cidr);
        Self {
            set: set.cloned().collect(),
            known: old.keys().copied().collect(),
            removed: removed.filter(|cidr| !new.contains_key(cidr)).collect(),
            gone,
        }
    }

    /// Peers that go leave the fast path first, peers that come get there last: what a path leads to is there.
    async fn make(
        &self,
        netlink: &Netlink,
        plan: &Plan,
        found: &Neighbourhood,
        datapath: Option<&Datapath>,
    ) -> Result<()> {
        if let Some(datapath) = datapath {
            datapath.change_peers(&[], &self.removed)?;
        }
        if plan.masquerade {
            let set = self.set.iter().map(|peer| peer.cidr);
            let added: Vec<IpNetwork> = set.filter(|cidr| !self.known.contains(cidr)).collect();
            let masquerade = Masquerade {
                network: &plan.network,
            };
            masquerade.change_cluster(&added, &self.removed)?;
        }
        routes::remove(netlink, plan, &self.removed).await?;
        routes::forget_neighbours(netlink, plan, &self.gone).await?;
        routes::add(netlink, found).await?;
        if let Some(datapath) = datapath {
            datapath.change_peers(&found.entries(), &[])?;
        }
        Ok(())
    }
}

/// What did not work of peers that have changed, in the place of what was said of them before.
fn note_problems(
    store: &Store,
    record: Record,
    change: &Change,
    problems: Vec<String>,
) -> Result<()> {
    let set = change.set.iter().map(|peer| peer.cidr);
    let cidrs = set.chain(change.removed.iter().copied());
    let about: Vec<String> = cidrs.map(|cidr| format!("peer {cidr}:")).collect();
    let stays = |problem: &String| {
        !about
            .iter()
            .any(|about| problem.starts_with(about.as_str()))
    };
    let mut all: Vec<String> = record
        .problems
        .iter()
        .filter(|p| stays(p))
        .cloned()
        .collect();
    all.extend(problems);
    if all == record.problems {
        return Ok(());
    }
    store.save_record(&Record {
        problems: all,
        ..record
    })
}

#[cfg(test)]
mod netns_tests;
