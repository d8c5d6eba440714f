//! `beeline status`: what is on this node.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::networks;
use crate::{
    datapath::{Datapath, config::Mode},
    node::{Attachment, Record, Store},
};

/// Options of `beeline status`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    networks: networks::Options,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
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
    pods: Vec<Attachment>,
    peers: BTreeMap<String, String>,
    /// Packets by program and outcome, those that are not zero.
    counters: BTreeMap<String, u64>,
}

/// Prints every network that was set up on this node since boot.
pub(super) fn print(options: &Options, out: &mut impl Write) -> Result<()> {
    let networks = networks(&options.networks)?;
    match options.output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &networks)?;
            writeln!(out)?;
        }
        Output::Text if networks.is_empty() => {
            writeln!(out, "no network was set up on this node since it booted")?;
        }
        Output::Text => networks.iter().try_for_each(|network| text(network, out))?,
    }
    Ok(())
}

fn networks(options: &networks::Options) -> Result<Vec<Network>> {
    let networks = options.networks()?.into_iter();
    networks
        .map(|(store, record)| network(&store, record))
        .collect()
}

fn network(store: &Store, record: Record) -> Result<Network> {
    let mut problems = record.problems.clone();
    problems.extend(record.unmet().map(str::to_owned));
    let plan = record.plan;
    let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network);
    let mut network = Network {
        name: plan.network,
        bridge: plan.bridge.name,
        mode: plan.datapath.mode,
        datapath: if datapath.is_some() { "ebpf" } else { "bridge" },
        degraded: record.degraded,
        problems,
        pods: store.attachments()?,
        peers: BTreeMap::new(),
        counters: BTreeMap::new(),
    };
    let Some(datapath) = datapath else {
        return Ok(network);
    };
    for (cidr, peer) in datapath.peers()? {
        let node = std::net::IpAddr::from(peer.node);
        network.peers.insert(cidr.to_string(), node.to_string());
    }
    for counter in datapath.counters()? {
        let name = format!("{}/{}", counter.hook.name(), counter.outcome.name());
        if counter.count.packets != 0 {
            network.counters.insert(name, counter.count.packets);
        }
    }
    Ok(network)
}

fn text(network: &Network, out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "network {}  bridge {}  datapath {}  pods {}",
        network.name,
        network.bridge,
        network.datapath,
        network.pods.len()
    )?;
    if let Some(reason) = &network.degraded {
        writeln!(out, "  on the plain bridge: {reason}")?;
    }
    for problem in &network.problems {
        writeln!(out, "  problem: {problem}")?;
    }
    for pod in &network.pods {
        let addresses: Vec<String> = pod.addresses.iter().map(|a| a.ip().to_string()).collect();
        let path = if pod.fast_path { "fast" } else { "slow" };
        writeln!(
            out,
            "  pod   {:<18} {path}  {}  {} {}",
            addresses.join(","),
            pod.host_veth,
            pod.container_id,
            pod.ifname
        )?;
    }
    for (cidr, node) in &network.peers {
        writeln!(out, "  peer  {cidr:<18} via {node}")?;
    }
    for (name, packets) in &network.counters {
        writeln!(out, "  count {name:<32} {packets:>12}")?;
    }
    Ok(())
}
