//! beeline beside a plain bridge: rounds interleaved, medians compared.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::cluster::Cluster;
use super::interrupt;
use super::table::Table;
use crate::pod::Pod;
use crate::{iperf, rr};

/// Odd, so that the median is a measurement.
const ROUNDS: usize = 3;

const RR_DURATION: Duration = Duration::from_millis(500);

/// A pair of pods, by where they are.
struct Path {
    name: &'static str,
    /// Node of the server, and which of its pods; the client is the first pod of node 1.
    server: (usize, usize),
}

const PATHS: [Path; 2] = [
    Path {
        name: "same node",
        server: (1, 1),
    },
    Path {
        name: "across nodes",
        server: (2, 0),
    },
];

#[derive(Default)]
struct Samples {
    gigabits: Vec<f64>,
    transactions: Vec<f64>,
}

/// Measures both clusters and prints a table.
pub(super) fn print(plain: &Cluster, beeline: &Cluster, seconds: u32) -> Result<()> {
    let cpu = last_cpu()?;
    let paths: Vec<_> = PATHS
        .iter()
        .filter(|path| ends(beeline, path).is_some())
        .collect();
    let bar = ProgressBar::new((ROUNDS * paths.len() * 2) as u64);
    bar.set_style(
        ProgressStyle::with_template("  {msg:<28} [{bar:40}] {pos}/{len}")?.progress_chars("=> "),
    );
    let mut samples: Vec<[Samples; 2]> = paths.iter().map(|_| Default::default()).collect();
    for round in 0..ROUNDS {
        for (path, samples) in paths.iter().zip(&mut samples) {
            // Who goes first changes, so that neither always meets a machine just warmed up.
            for side in [round % 2, 1 - round % 2] {
                interrupt::check()?;
                let (cluster, name) = [(plain, "plain bridge"), (beeline, "beeline")][side];
                bar.set_message(format!("{}: {name}", path.name));
                measure(cluster, path, seconds, cpu, &mut samples[side]).context("comparison")?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    println!("Comparison (both ends on one CPU; median of {ROUNDS} interleaved rounds)");
    let mut table = Table::new(1, ["", "plain bridge", "beeline", "ratio"]);
    for (path, [plain, beeline]) in paths.iter().zip(&mut samples) {
        let [a, b] = [median(&mut plain.gigabits), median(&mut beeline.gigabits)];
        let rates = [a, b].map(|gigabits| format!("{gigabits:.1} Gbit/s"));
        row(
            &mut table,
            &format!("{}, TCP stream", path.name),
            rates,
            b / a,
        );
        let [a, b] = [
            median(&mut plain.transactions),
            median(&mut beeline.transactions),
        ];
        row(
            &mut table,
            &format!("{}, TCP request/response", path.name),
            [a, b].map(|rate| format!("{rate:.0}/s")),
            b / a,
        );
    }
    table.print();
    Ok(())
}

fn row(table: &mut Table, name: &str, [plain, beeline]: [String; 2], ratio: f64) {
    table.row([name.to_owned(), plain, beeline, format!("{ratio:.2}×")]);
}

fn measure(
    cluster: &Cluster,
    path: &Path,
    seconds: u32,
    cpu: usize,
    samples: &mut Samples,
) -> Result<()> {
    let (client, server) = ends(cluster, path).context("a pod is missing")?;
    let (from, to) = (client.namespace(), server.namespace());
    samples
        .gigabits
        .push(iperf::tcp_stream(from, to, server.ip(), seconds, cpu)?.gigabits());
    samples
        .transactions
        .push(rr::tcp(from, to, server.ip(), RR_DURATION, cpu)?.rate);
    Ok(())
}

fn ends<'a>(cluster: &'a Cluster, path: &Path) -> Option<(&'a Pod, &'a Pod)> {
    let (node, pod) = path.server;
    Some((cluster.pods_of(1).next()?, cluster.pods_of(node).nth(pod)?))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The last CPU this process may use: the first is where most interrupts go.
fn last_cpu() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("CPU affinity")?;
    let last = (0..CpuSet::count())
        .rev()
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    last.context("no CPU is allowed")
}
