//! `beeline status`: what is on this node.

mod text;

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    path::PathBuf,
};

use anyhow::Result;
use beeline_common::{ABI_VERSION, Hook, Outcome};
use clap::Args;
use nix::sys::utsname::uname;
use serde::Serialize;

use super::{networks, output::Output};
use crate::{
    datapath::{
        Counter, Datapath, Kind, Usage,
        config::{Mode, OverlayConf},
    },
    net::{
        link::{Amount, Traffic},
        with_netlink,
    },
    node::{Attachment, Record, Store},
};

/// What is said where there is an agent's file, but the configuration names the peers.
const IGNORED: &str =
    "datapath.peers: the configuration names peers itself, those of the agent do not count";

/// Options of `beeline status`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    networks: networks::Options,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// A node as this command shows it.
#[derive(Debug, Serialize)]
struct Status {
    node: String,
    kernel: String,
    version: &'static str,
    networks: Vec<Network>,
}

/// A network as this command shows it.
#[derive(Debug, Serialize)]
struct Network {
    name: String,
    bridge: String,
    mode: Mode,
    /// `ebpf` or `bridge`, whichever carries the pods.
    datapath: &'static str,
    degraded: Option<String>,
    problems: Vec<String>,
    /// What the fast path would defeat, or defeats.
    firewall: Vec<String>,
    overlay: Option<OverlayConf>,
    pods: Vec<Pod>,
    peers: BTreeMap<String, String>,
    /// What an agent knows, in cluster mode.
    cluster: Option<ClusterView>,
    /// What is pinned, if the fast path is on.
    pinned: Option<Pinned>,
    /// What each program did, by program and outcome, where that is not nothing.
    counters: BTreeMap<String, Amount>,
}

/// A cluster as this command shows it.
#[derive(Debug, Serialize)]
struct ClusterView {
    /// Where the agent knows it from.
    backend: String,
    /// This node's name there.
    node: String,
    /// Whether the agent runs.
    agent: bool,
    /// The names of the peers' nodes, by CIDR.
    names: BTreeMap<String, String>,
    /// Nodes that cannot be peers.
    problems: Vec<String>,
}

/// A pod as this command shows it.
#[derive(Debug, Serialize)]
struct Pod {
    #[serde(flatten)]
    attachment: Attachment,
    /// `fast` or `slow`.
    path: &'static str,
    /// Why it is slow, if something in its way makes it so.
    slow: Option<String>,
    /// What it sent, by either path.
    sent: Option<Amount>,
    /// What the stack delivered to it; what came by the fast path is not known of single pods.
    delivered_by_stack: Option<Amount>,
}

/// The pinned programs and maps.
#[derive(Debug, Serialize)]
struct Pinned {
    directory: PathBuf,
    abi_version: u32,
    programs: Vec<Program>,
    maps: Vec<Usage>,
    monitored: Monitored,
}

/// A pinned program.
#[derive(Debug, Serialize)]
struct Program {
    name: &'static str,
    /// The kernel's number of it.
    id: u32,
    attached: Vec<Attached>,
}

/// Where a program is attached.
#[derive(Debug, Serialize)]
struct Attached {
    interface: String,
    by: Kind,
    /// The kernel's number of what is attached: the pinned program, unless it is monitored.
    id: u32,
}

/// Whether programs that tell of packets stand in for the pinned ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Monitored {
    No,
    /// A monitor runs.
    Yes,
    /// A monitor was killed, and could not put the pinned programs back.
    Abandoned,
}

/// Prints the node, and every network that was set up on it since boot.
pub(super) fn print(options: &Options, out: &mut impl Write) -> Result<()> {
    let status = status(&options.networks)?;
    options.output.print(&status, out, text::print)?;
    Ok(())
}

fn status(options: &networks::Options) -> Result<Status> {
    let links = with_netlink(async |netlink| netlink.traffic().await)?;
    let networks = options.networks()?.into_iter();
    let networks = networks.map(|(store, record)| network(&store, record, &links));
    let system = uname()?;
    Ok(Status {
        node: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION"),
        networks: networks.collect::<Result<_>>()?,
    })
}

fn network(store: &Store, record: Record, links: &HashMap<u32, Traffic>) -> Result<Network> {
    let mut problems = record.problems.clone();
    problems.extend(record.unmet().map(str::to_owned));
    if store.is_clustered() && !record.plan.peers().is_empty() {
        problems.push(IGNORED.to_owned());
    }
    let plan = record.plan;
    let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network);
    let is_on = datapath.is_some();
    let pods = store.attachments()?.into_iter();
    let mut network = Network {
        name: plan.network,
        bridge: plan.bridge.name,
        mode: plan.datapath.mode,
        datapath: if is_on { "ebpf" } else { "bridge" },
        degraded: record.degraded,
        problems,
        firewall: record.firewall,
        overlay: plan.datapath.overlay,
        pods: pods
            .map(|attachment| pod(attachment, is_on, links))
            .collect(),
        peers: BTreeMap::new(),
        cluster: cluster(store)?,
        pinned: None,
        counters: BTreeMap::new(),
    };
    if let Some(datapath) = datapath
        && let Err(error) = look_at(&datapath, store, links, &mut network)
    {
        // All else is worth knowing then.
        network.problems.push(format!("{error:#}"));
    }
    Ok(network)
}

/// Adds what the pins tell.
fn look_at(
    datapath: &Datapath,
    store: &Store,
    links: &HashMap<u32, Traffic>,
    network: &mut Network,
) -> Result<()> {
    for (cidr, peer) in datapath.peers()? {
        let node = std::net::IpAddr::from(peer.node);
        network.peers.insert(cidr.to_string(), node.to_string());
    }
    network.counters = counters(&datapath.counters()?);
    network.pinned = Some(pinned(store, datapath, links)?);
    Ok(())
}

fn cluster(store: &Store) -> Result<Option<ClusterView>> {
    let Some(cluster) = store.cluster() else {
        return Ok(None);
    };
    let peers = cluster.peers.into_iter();
    Ok(Some(ClusterView {
        backend: cluster.backend,
        node: cluster.node,
        agent: store.has_agent()?,
        names: peers
            .map(|peer| (peer.cidr.to_string(), peer.name))
            .collect(),
        problems: cluster.problems,
    }))
}

fn pod(attachment: Attachment, is_on: bool, links: &HashMap<u32, Traffic>) -> Pod {
    let is_fast = is_on && attachment.fast_path && attachment.slow.is_none();
    let traffic = links.get(&attachment.ifindex);
    Pod {
        path: if is_fast { "fast" } else { "slow" },
        slow: match attachment.waits() && is_on {
            true => Some("new: joins the fast path in a moment".to_owned()),
            false => attachment.slow.clone(),
        },
        sent: traffic.map(|traffic| traffic.received),
        delivered_by_stack: traffic.map(|traffic| traffic.sent),
        attachment,
    }
}

fn pinned(store: &Store, datapath: &Datapath, links: &HashMap<u32, Traffic>) -> Result<Pinned> {
    let places = datapath.places()?;
    let programs = datapath.programs()?;
    let program = |(hook, id): (Hook, u32)| Program {
        name: hook.name(),
        id,
        attached: places
            .iter()
            .filter(|place| place.hook == hook)
            .map(|place| Attached {
                interface: links
                    .get(&place.ifindex)
                    .map_or_else(|| place.ifindex.to_string(), |link| link.name.clone()),
                by: place.by,
                id: place.program,
            })
            .collect(),
    };
    let is_pinned =
        |place: &crate::datapath::Place| programs.contains(&(place.hook, place.program));
    let monitored = if places.iter().all(is_pinned) {
        Monitored::No
    } else if store.lock_monitor()?.is_some() {
        Monitored::Abandoned
    } else {
        Monitored::Yes
    };
    Ok(Pinned {
        directory: datapath.pins().to_owned(),
        abi_version: ABI_VERSION,
        programs: programs.into_iter().map(program).collect(),
        maps: datapath.usage()?,
        monitored,
    })
}

fn counters(counters: &[Counter]) -> BTreeMap<String, Amount> {
    let name = |hook: Hook, outcome: Outcome| format!("{}/{}", hook.name(), outcome.name());
    let counted = counters.iter().filter(|counter| counter.count.packets != 0);
    counted
        .map(|counter| {
            let amount = Amount {
                packets: counter.count.packets,
                bytes: counter.count.bytes,
            };
            (name(counter.hook, counter.outcome), amount)
        })
        .collect()
}
