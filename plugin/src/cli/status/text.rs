//! The node for a person: a line for each thing, which begins with what it is.

use std::io::{self, Write};

use super::{Attached, ClusterView, Monitored, Network, Pinned, Pod, Program, Status};
use crate::{
    datapath::{
        Usage,
        config::{OverlayConf, OverlayKind},
    },
    net::link::Amount,
};

/// How many columns of interfaces there are in a line.
const WIDTH: usize = 72;

/// So many peers are listed.
const PEERS: usize = 50;

/// Prints the node and its networks.
pub(super) fn print(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let Status {
        node,
        kernel,
        version,
        networks,
    } = status;
    writeln!(out, "node {node}  kernel {kernel}  beeline {version}")?;
    if networks.is_empty() {
        writeln!(out, "no network was set up on this node since it booted")?;
    }
    networks
        .iter()
        .try_for_each(|network| self::network(network, out))
}

fn network(network: &Network, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "network {}  bridge {}  datapath {}  pods {}  peers {}",
        network.name,
        network.bridge,
        network.datapath,
        network.pods.len(),
        network.peers.len()
    )?;
    if let Some(reason) = &network.degraded {
        writeln!(out, "  on the plain bridge: {reason}")?;
    }
    for problem in &network.problems {
        writeln!(out, "  problem: {problem}")?;
    }
    for rule in &network.firewall {
        writeln!(out, "  firewall: {rule}")?;
    }
    if let Some(overlay) = &network.overlay {
        self::overlay(overlay, out)?;
    }
    network
        .pods
        .iter()
        .try_for_each(|pod| self::pod(pod, out))?;
    if let Some(cluster) = &network.cluster {
        self::cluster(cluster, out)?;
    }
    let names = network.cluster.as_ref().map(|cluster| &cluster.names);
    for (cidr, node) in network.peers.iter().take(PEERS) {
        let name = names.and_then(|names| names.get(cidr));
        let name = name.map_or(String::new(), |name| format!("  {name}"));
        writeln!(out, "  peer  {cidr:<18} via {node}{name}")?;
    }
    if network.peers.len() > PEERS {
        let more = network.peers.len() - PEERS;
        writeln!(out, "  peer  {more} more; --output json has all")?;
    }
    if let Some(pinned) = &network.pinned {
        self::pinned(pinned, out)?;
    }
    for (name, Amount { packets, bytes }) in &network.counters {
        writeln!(
            out,
            "  count {name:<32} {packets:>12} packets {:>10}",
            size(*bytes)
        )?;
    }
    Ok(())
}

fn cluster(cluster: &ClusterView, out: &mut impl Write) -> io::Result<()> {
    let ClusterView {
        backend,
        node,
        agent,
        problems,
        ..
    } = cluster;
    let agent = if *agent { "running" } else { "not running" };
    writeln!(out, "  cluster {backend}  node {node}  agent {agent}")?;
    problems
        .iter()
        .try_for_each(|problem| writeln!(out, "  problem: {problem}"))
}

fn overlay(overlay: &OverlayConf, out: &mut impl Write) -> io::Result<()> {
    let OverlayConf {
        kind, vni, port, ..
    } = overlay;
    let kind = match kind {
        OverlayKind::Vxlan => "vxlan",
    };
    writeln!(out, "  overlay {kind}  VNI {vni}  port {port}")
}

fn pod(pod: &Pod, out: &mut impl Write) -> io::Result<()> {
    let attachment = &pod.attachment;
    let addresses: Vec<String> = attachment.ips().iter().map(ToString::to_string).collect();
    write!(out, "  pod   {:<18} {}", addresses.join(","), pod.path)?;
    if let Some(reason) = &pod.slow {
        write!(out, " ({reason})")?;
    }
    write!(
        out,
        "  {}  {} {}",
        attachment.host_veth, attachment.container_id, attachment.ifname
    )?;
    match &attachment.pod_name {
        Some(name) => writeln!(out, "  {name}")?,
        None => writeln!(out)?,
    }
    if let (Some(sent), Some(delivered)) = (pod.sent, pod.delivered_by_stack) {
        writeln!(
            out,
            "        sent {} packets, {}; the stack delivered {} packets, {}",
            sent.packets,
            size(sent.bytes),
            delivered.packets,
            size(delivered.bytes)
        )?;
    }
    Ok(())
}

fn pinned(pinned: &Pinned, out: &mut impl Write) -> io::Result<()> {
    let Pinned {
        directory,
        abi_version,
        programs,
        maps,
        monitored,
    } = pinned;
    writeln!(out, "  pins  {}  ABI {abi_version}", directory.display())?;
    match monitored {
        Monitored::No => {}
        Monitored::Yes => writeln!(out, "  monitor: it is being monitored")?,
        Monitored::Abandoned => writeln!(
            out,
            "  monitor: programs are attached that were left by a monitor that was killed; they work, slower; \
             `beeline load` puts that right"
        )?,
    }
    for Program { name, id, attached } in programs {
        let attached: Vec<String> = attached
            .iter()
            .map(|Attached { interface, by, .. }| format!("{interface} ({})", by.name()))
            .collect();
        let mut lines = wrap(&attached).into_iter();
        let first = lines.next().unwrap_or_else(|| "not attached".to_owned());
        writeln!(out, "  prog  {name:<12} {id:>6}  {first}")?;
        for line in lines {
            writeln!(out, "{:29}{line}", "")?;
        }
    }
    for Usage { map, held, size } in maps {
        writeln!(out, "  map   {map:<12} {held:>9} of {size}")?;
    }
    Ok(())
}

/// The words in lines that are not too long.
fn wrap(words: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.clone()),
        }
    }
    lines
}

/// Bytes, in a unit of which there are not too many.
fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.into_iter().find(|(_, unit)| bytes >= 10 * unit) {
        Some((name, unit)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_in_a_unit_that_leaves_two_digits_or_more() {
        let said = [0, 9_999, 10_000, 9_999_999, 12_345_678_900].map(size);
        assert_eq!(said, ["0 B", "9999 B", "10 kB", "9999 kB", "12 GB"]);
    }

    #[test]
    fn many_interfaces_take_many_lines_and_none_takes_none() {
        let words: Vec<String> = (0..30).map(|n| format!("veth{n:012} (tcx)")).collect();
        let lines = wrap(&words);
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
        assert_eq!(lines.join(" "), words.join(" "));
        assert!(wrap(&[]).is_empty());
    }
}
