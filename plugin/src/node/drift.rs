//! Whether a node of a cluster still is as its agent has set it up.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use anyhow::Result;
use beeline_common::Hook;

use super::{
    Attachment, Plan, Store, Whole,
    peers::{Neighbourhood, installed_routes},
    routes, setup,
};
use crate::{datapath::Datapath, net::Netlink, nft::Masquerade};

/// Something that is missing, or left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// What kind of thing: `node`, `peer`, `masquerade`, `route`, `neighbour`, `map`, `program` or `pod`.
    pub kind: &'static str,
    /// Which, and how it differs.
    pub what: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.what)
    }
}

impl Drift {
    pub(super) fn new(kind: &'static str, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }
}

/// Looks for what differs from the plan, and from the cluster as it was written down; nothing if all is as it should be.
/// Changes nothing.
pub async fn find(netlink: &Netlink, plan: &Plan, store: &Store) -> Result<Vec<Drift>> {
    let mut drifts = pods(plan, store)?;
    let _lock = store.lock_shared()?;
    let whole = Whole::of(plan, store);
    if !whole.is_clustered() {
        return Ok(vec![Drift::new("node", "has lost its cluster.json")]);
    }
    if setup::ready(netlink, plan, store).await?.is_none() {
        drifts.push(Drift::new("node", "is not as it was set up"));
    } else {
        drifts.extend(of_masquerade(&whole.plan)?);
    }
    let found = Neighbourhood::find(netlink, &whole.plan).await?;
    let Some(record) = store.record() else {
        return Ok(drifts);
    };
    let known: HashSet<&String> = record.problems.iter().collect();
    if known != found.problems.iter().collect() {
        drifts.push(Drift::new("peer", "is reached otherwise than before"));
    }
    if found.needs_overlay() && found.overlay.is_none() {
        drifts.push(Drift::new("node", "has lost its overlay's device"));
    }
    let installed = installed_routes(netlink).await?;
    drifts.extend(routes::drift(netlink, plan, store, &found, &installed).await?);
    let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network);
    if let Some(datapath) = datapath.filter(|_| record.is_fast()) {
        drifts.extend(on_fast_path(&datapath, &found)?);
    }
    Ok(drifts)
}

/// Of its table the set-up tells only whether it is there.
fn of_masquerade(plan: &Plan) -> Result<Option<Drift>> {
    if !plan.masquerade {
        return Ok(None);
    }
    let masquerade = Masquerade {
        network: &plan.network,
    };
    let differs = masquerade.compare_cluster(&plan.cluster_cidrs())?;
    let drift = |_| Drift::new("masquerade", "exempts other pod CIDRs than the cluster's");
    Ok(differs.map(drift))
}

fn on_fast_path(datapath: &Datapath, found: &Neighbourhood) -> Result<Vec<Drift>> {
    let held: HashMap<_, _> = datapath.peers()?.into_iter().collect();
    let wanted: HashMap<_, _> = found.entries().into_iter().collect();
    let mut drifts = Vec::new();
    if held != wanted {
        let (held, wanted) = (held.len(), wanted.len());
        drifts.push(Drift::new(
            "map",
            format!("PEERS: other entries than it should have: {held}, not {wanted}"),
        ));
    }
    let to = found.links().map(|link| (Hook::ToUplink, link));
    let from = found.uplinks.iter().map(|link| (Hook::FromUplink, link));
    let overlay = found.overlay.iter().map(|overlay| &overlay.link);
    let over = overlay.map(|link| (Hook::FromOverlay, link));
    for (hook, link) in to.chain(from).chain(over) {
        if !datapath.is_attached(hook, link.index) {
            let what = format!("{} is not attached to {}", hook.name(), link.name);
            drifts.push(Drift::new("program", what));
        }
    }
    Ok(drifts)
}

/// Pods that are on the fast path by their records, and are not. No ADD or DEL is half done meanwhile.
fn pods(plan: &Plan, store: &Store) -> Result<Vec<Drift>> {
    let _lock = store.lock_exclusive()?;
    let fast = store.record().is_some_and(|record| record.is_fast());
    let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network);
    let Some(datapath) = datapath.filter(|_| fast) else {
        return Ok(Vec::new());
    };
    let entries = datapath.pods()?.into_iter();
    let known: HashSet<_> = entries.map(|(ip, pod)| (ip, pod.ifindex)).collect();
    let is_there = |pod: &Attachment| {
        let mut ips = pod.ips().into_iter();
        let mut hooks = Attachment::HOOKS.into_iter();
        ips.all(|ip| known.contains(&(ip, pod.ifindex)))
            && hooks.all(|hook| datapath.is_attached(hook, pod.ifindex))
    };
    let pods = store.attachments()?.into_iter();
    let lost = pods.filter(|pod| pod.fast_path && !is_there(pod));
    Ok(lost
        .map(|pod| Drift::new("pod", format!("{}: is not on the fast path", pod.host_veth)))
        .collect())
}
