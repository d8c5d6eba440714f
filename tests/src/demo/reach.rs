//! Every pod asks every other, while the slow path of each node is watched.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::cluster::{Cluster, short};
use super::table::Table;
use crate::datapath::{FROM_UPLINK, TO_PEER, TO_POD, growth};
use crate::icmp::Ping;
use crate::interrupt;
use crate::slowpath::{Proof, SlowPath};

/// Requests to each pod.
const PINGS: usize = 3;

/// What came of asking.
pub(super) struct Reach {
    pub(super) pairs: usize,
    pub(super) answered: usize,
    pub(super) slow: u64,
    pub(super) failures: Vec<String>,
}

/// Pings all pairs, and prints which path the packets took on each node.
pub(super) fn all_pairs(cluster: &Cluster) -> Result<Reach> {
    // Addresses are resolved by way of the bridge: that is no pod-to-pod packet, but would move its counters.
    ping_all(cluster, "resolving addresses", 1, |_, _| ())?;
    let nodes = cluster.topology.nodes();
    let proofs: Vec<_> = nodes
        .iter()
        .map(|node| Proof::begin(node))
        .collect::<Result<_>>()?;
    let counters = || {
        nodes
            .iter()
            .map(|node| node.counters())
            .collect::<Result<Vec<_>>>()
    };
    let paths = || proofs.iter().map(Proof::read).collect::<Result<Vec<_>>>();
    let (counters_before, paths_before) = (counters()?, paths()?);

    let mut reach = Reach {
        pairs: 0,
        answered: 0,
        slow: 0,
        failures: Vec::new(),
    };
    let mut rtts = Vec::new();
    ping_all(cluster, "pinging all pairs", PINGS, |from, ping| {
        reach.pairs += 1;
        reach.answered += usize::from(ping.is_complete());
        rtts.extend(&ping.rtts);
        if !ping.is_complete() {
            reach.failures.push(format!("{from}: {ping}"));
        }
    })?;
    print_answers(&reach, rtts);

    let grown = counters_before
        .iter()
        .zip(&counters()?)
        .map(|(before, after)| growth(before, after))
        .collect::<Vec<_>>();
    let slow = paths()?
        .into_iter()
        .zip(paths_before)
        .map(|(after, before)| after - before)
        .collect::<Vec<_>>();
    for (node, slow) in nodes.iter().zip(&slow) {
        reach.slow += slow.pod_to_pod();
        if !slow.is_untouched() {
            reach.failures.push(format!(
                "{}: packets took the slow path: {slow}",
                node.name()
            ));
        }
    }
    let names: Vec<_> = nodes.iter().map(|node| short(node.name())).collect();
    print_paths(&names, &grown, &slow);
    proofs.into_iter().try_for_each(Proof::end)?;
    Ok(reach)
}

fn ping_all(
    cluster: &Cluster,
    what: &str,
    count: usize,
    mut each: impl FnMut(&str, &Ping),
) -> Result<()> {
    let pods = &cluster.pods;
    let pairs = pods
        .iter()
        .flat_map(|from| pods.iter().map(move |to| (from, to)));
    let pairs: Vec<_> = pairs
        .filter(|(from, to)| from.name() != to.name())
        .collect();
    let bar = ProgressBar::new(pairs.len() as u64).with_message(what.to_owned());
    bar.set_style(
        ProgressStyle::with_template("  {msg:<20} [{bar:40}] {pos}/{len}")?.progress_chars("=> "),
    );
    for (from, to) in pairs {
        interrupt::check()?;
        each(from.name(), &from.ping(to.ip(), count));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn print_answers(reach: &Reach, mut rtts: Vec<Duration>) {
    rtts.sort_unstable();
    let Reach {
        pairs, answered, ..
    } = reach;
    print!("  {answered} of {pairs} pairs answered all {PINGS} pings");
    if let (Some(median), Some(slowest)) = (rtts.get(rtts.len() / 2), rtts.last()) {
        print!(
            "; median {} µs, slowest {} µs",
            median.as_micros(),
            slowest.as_micros()
        );
    }
    println!("\n");
}

fn print_paths(names: &[String], grown: &[BTreeMap<String, u64>], slow: &[SlowPath]) {
    println!("Path of these packets (slow path: seen by netfilter, the bridge and the host veths)");
    let headings = [
        "",
        "to pod",
        "to peer",
        "from uplink",
        "bridged",
        "routed",
        "bridge rx+tx",
        "veth tx",
    ];
    let mut table = Table::new(1, headings);
    for ((name, grown), slow) in names.iter().zip(grown).zip(slow) {
        // A node without a datapath counts nothing at all.
        let fast = |counter: &str| {
            grown
                .get(counter)
                .map_or_else(|| "-".to_owned(), u64::to_string)
        };
        table.row([
            name.clone(),
            fast(TO_POD),
            fast(TO_PEER),
            fast(FROM_UPLINK),
            slow.bridged.to_string(),
            slow.routed.to_string(),
            (slow.bridge_rx + slow.bridge_tx).to_string(),
            slow.to_pods.to_string(),
        ]);
    }
    table.print();
}
