//! beeline beside a plain bridge: rounds interleaved, medians compared.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::cluster::Cluster;
use super::table::Table;
use crate::pod::Pod;
use crate::{interrupt, iperf, rr};

/// Odd, so that the median is a measurement.
const ROUNDS: usize = 3;

/// Odd as well.
const ADDS: usize = 11;

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

/// The two clusters, in the order of the columns.
pub(super) struct Contest<'a> {
    pub(super) clusters: [&'a Cluster; 2],
    pub(super) names: [&'a str; 2],
    /// Of each iperf3 run.
    pub(super) seconds: u32,
}

impl Contest<'_> {
    /// Measures both and prints a table.
    pub(super) fn print(&self) -> Result<()> {
        let known = |path: &&Path| {
            self.clusters
                .iter()
                .all(|cluster| ends(cluster, path).is_some())
        };
        let paths: Vec<_> = PATHS.iter().filter(known).collect();
        let mut adds = self.time_adds().context("timing of ADD")?;
        let mut samples = self.measure(&paths).context("comparison")?;

        println!("Comparison (both ends on one CPU; median of {ROUNDS} interleaved rounds)");
        let mut table = Table::new(1, ["", self.names[0], self.names[1], "ratio"]);
        for (path, samples) in paths.iter().zip(&mut samples) {
            let [a, b] = samples.each_mut().map(|side| median(&mut side.gigabits));
            let cells = [a, b].map(|gigabits| format!("{gigabits:.1} Gbit/s"));
            row(
                &mut table,
                &format!("{}, TCP stream", path.name),
                cells,
                b / a,
            );
            let [a, b] = samples
                .each_mut()
                .map(|side| median(&mut side.transactions));
            let cells = [a, b].map(|rate| format!("{rate:.0}/s"));
            row(
                &mut table,
                &format!("{}, TCP request/response", path.name),
                cells,
                b / a,
            );
        }
        let [a, b] = adds.each_mut().map(|times| median(times));
        row(
            &mut table,
            &format!("ADD, median of {ADDS}"),
            [a, b].map(|ms| format!("{ms:.1} ms")),
            a / b,
        );
        table.print();
        Ok(())
    }

    fn measure(&self, paths: &[&Path]) -> Result<Vec<[Samples; 2]>> {
        let cpu = rr::last_cpu()?;
        let bar = ProgressBar::new((ROUNDS * paths.len() * 2) as u64);
        bar.set_style(
            ProgressStyle::with_template("  {msg:<28} [{bar:40}] {pos}/{len}")?
                .progress_chars("=> "),
        );
        let mut samples: Vec<[Samples; 2]> = paths.iter().map(|_| Default::default()).collect();
        for round in 0..ROUNDS {
            for (path, samples) in paths.iter().zip(&mut samples) {
                // Who goes first changes, so that neither always meets a machine just warmed up.
                for side in [round % 2, 1 - round % 2] {
                    interrupt::check()?;
                    bar.set_message(format!("{}: {}", path.name, self.names[side]));
                    measure(
                        self.clusters[side],
                        path,
                        self.seconds,
                        cpu,
                        &mut samples[side],
                    )?;
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        Ok(samples)
    }

    /// Times ADD on nodes that are set up, in milliseconds.
    fn time_adds(&self) -> Result<[Vec<f64>; 2]> {
        let mut times: [Vec<f64>; 2] = Default::default();
        for round in 0..ADDS {
            for side in [round % 2, 1 - round % 2] {
                interrupt::check()?;
                let node = &self.clusters[side].topology.nodes()[0];
                let pod = node.try_add_pod(&format!("timed{round}"))?;
                times[side].push(pod.add_time().as_secs_f64() * 1e3);
                pod.delete()?;
            }
        }
        Ok(times)
    }
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
