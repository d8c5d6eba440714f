//! The fast path of a network on a node: which programs are where, with what in their maps.

use std::{collections::HashSet, net::IpAddr};

use anyhow::Result;
use beeline_common::{
    Features, Flow, Hook, Pod,
    abi::{MAX_FLOWS, MIN_FLOWS},
    flow::End,
};

use super::{Attachment, Bridge, Plan, Store, peers::Neighbourhood};
use crate::{
    datapath::{Datapath, Settings},
    net::{conntrack, sysctl},
};

/// How many connections conntrack tracks at most.
const TRACKED: &str = "net/netfilter/nf_conntrack_max";

/// What this network's programs are made for.
pub(super) fn settings(plan: &Plan) -> Settings {
    let conf = &plan.datapath;
    Settings {
        features: Features {
            anti_spoof: conf.anti_spoof,
            vni: conf.overlay.map_or(0, |overlay| overlay.vni),
        },
        flows: conf.max_flows.unwrap_or_else(tracked_flows),
        attach: conf.attach,
    }
}

/// As many flows as the stack can track: what it has forgotten itself need not be remembered here.
fn tracked_flows() -> u32 {
    let tracked = sysctl::get(TRACKED).ok();
    let tracked = tracked.and_then(|text| text.parse().ok());
    // Without conntrack nothing is translated.
    tracked.unwrap_or(MIN_FLOWS).clamp(MIN_FLOWS, MAX_FLOWS)
}

/// Where a network's programs belong on this node.
pub(super) struct Places<'a> {
    pub(super) bridge: &'a Bridge,
    pub(super) neighbourhood: &'a Neighbourhood,
    pub(super) attachments: Vec<Attachment>,
}

impl<'a> Places<'a> {
    pub(super) fn find(
        bridge: &'a Bridge,
        neighbourhood: &'a Neighbourhood,
        store: &Store,
    ) -> Result<Self> {
        let attachments = store.attachments()?;
        Ok(Self {
            bridge,
            neighbourhood,
            attachments: attachments.into_iter().filter(|a| a.fast_path).collect(),
        })
    }

    /// The pods as the maps have them.
    pub(super) fn pods(&self) -> Vec<(&Attachment, Pod)> {
        let attachments = self.attachments.iter();
        attachments
            .filter_map(|attachment| Some((attachment, attachment.pod(self.bridge)?)))
            .collect()
    }

    /// Has the maps forget all other pods: they may outlive the interfaces, whose indices others have then.
    fn forget_others(&self, datapath: &Datapath) -> Result<()> {
        let ips = |pod: &Attachment| pod.ips().into_iter().map(|ip| (ip, pod.ifindex)).collect();
        let wanted: HashSet<_> = self.attachments.iter().flat_map::<Vec<_>, _>(ips).collect();
        for (ip, pod) in datapath.pods()? {
            if !wanted.contains(&(ip, pod.ifindex)) {
                datapath.remove_pod(pod.ifindex, &[ip])?;
            }
        }
        Ok(())
    }

    /// Has the maps know every pod, those that are new to them on the slow path.
    fn introduce(&self, datapath: &Datapath) -> Result<()> {
        let known: HashSet<u32> = datapath
            .pods()?
            .iter()
            .map(|(_, pod)| pod.ifindex)
            .collect();
        for (attachment, mut pod) in self.pods() {
            if !known.contains(&pod.ifindex) {
                pod.flags |= Pod::SLOW;
                datapath.set_pod(&attachment.ips(), pod)?;
            }
        }
        Ok(())
    }

    /// Programs that only look on.
    pub(super) fn observers(&self) -> Vec<(Hook, u32)> {
        let leaving = self.neighbourhood.links();
        let leaving = leaving.map(|link| (Hook::ToUplink, link.index));
        let pods = self.attachments.iter();
        let delivered = pods.map(|attachment| (Hook::ToPod, attachment.ifindex));
        delivered.chain(leaving).collect()
    }

    /// Programs that redirect.
    pub(super) fn redirectors(&self) -> Vec<(Hook, u32)> {
        let uplinks = self.neighbourhood.uplinks.iter();
        let uplinks = uplinks.map(|link| (Hook::FromUplink, link.index));
        let overlay = self.neighbourhood.overlay.iter();
        let overlay = overlay.map(|overlay| (Hook::FromOverlay, overlay.link.index));
        let pods = self.attachments.iter();
        let pods = pods.map(|attachment| (Hook::FromPod, attachment.ifindex));
        uplinks.chain(overlay).chain(pods).collect()
    }
}

/// Brings the fast path up, or up to date: loads this build's programs, fills their maps, and attaches them or swaps
/// them for those that are attached.
///
/// Flows go on. Packets find the old program or the new one. A pod that was on the plain bridge is first looked upon
/// only; when what the stack translates for it is known, all that it sends and receives changes the path at once.
pub(super) fn bring_up(plan: &Plan, places: &Places<'_>) -> Result<()> {
    let settings = settings(plan);
    let (bpffs, network) = (&plan.datapath.bpffs, &plan.network);
    let datapath = Datapath::load(bpffs, network, &settings)?;
    datapath.set_peers(&places.neighbourhood.entries())?;
    let attached = datapath.attached()?;
    places.forget_others(&datapath)?;
    let was_on = !datapath.pods()?.is_empty();
    places.introduce(&datapath)?;
    for (hook, ifindex) in places.observers() {
        attach_if_there(&datapath, hook, ifindex, &settings)?;
    }
    let pods = datapath.pods()?.into_iter().map(|(ip, _)| ip);
    let translated = remember_translated(&datapath, &pods.collect())?;
    for (hook, ifindex) in places.redirectors() {
        attach_if_there(&datapath, hook, ifindex, &settings)?;
    }
    for (attachment, pod) in places.pods() {
        datapath.set_pod(&attachment.ips(), pod)?;
    }
    if !was_on {
        // Until just now everything was the stack's; what it does not translate need not stay with it.
        datapath.retain_flows(|flow| translated.contains(flow))?;
    }
    let wanted = [places.observers(), places.redirectors()].concat();
    for (hook, ifindex) in attached {
        if !wanted.contains(&(hook, ifindex)) {
            datapath.detach(hook, ifindex)?;
        }
    }
    datapath.forget_other_versions()
}

/// A pod's interface may go at any time; all others must be there.
fn attach_if_there(
    datapath: &Datapath,
    hook: Hook,
    ifindex: u32,
    settings: &Settings,
) -> Result<()> {
    match datapath.attach(hook, ifindex, settings.attach) {
        Err(error) if matches!(hook, Hook::FromPod | Hook::ToPod) => {
            tracing::warn!("{error:#}");
            datapath.detach(hook, ifindex)
        }
        attached => attached,
    }
}

/// Has the stack keep the flows that it translates for these pods of the node; returns the flows.
pub(super) fn remember_translated(
    datapath: &Datapath,
    pods: &HashSet<IpAddr>,
) -> Result<HashSet<Flow>> {
    // Without conntrack nothing is translated.
    let connections = match sysctl::get(TRACKED) {
        Ok(_) if !pods.is_empty() => conntrack::translated()?,
        _ => Vec::new(),
    };
    // Of the one the pod that began it knows the addresses, of the other the pod that answers.
    let tuples = connections
        .iter()
        .flat_map(|connection| [&connection.original, &connection.reply]);
    let flows: HashSet<Flow> = tuples
        .filter(|tuple| pods.contains(&tuple.source) || pods.contains(&tuple.destination))
        .map(flow)
        .collect();
    datapath.remember(flows.iter().copied())?;
    Ok(flows)
}

fn flow(tuple: &conntrack::Tuple) -> Flow {
    let end = |address: IpAddr, port: u16| End {
        address: address.into(),
        port: port.to_be_bytes(),
    };
    let source = end(tuple.source, tuple.source_port);
    let destination = end(tuple.destination, tuple.destination_port);
    Flow::new(tuple.protocol, source, destination).0
}
