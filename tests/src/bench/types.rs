//! The results of a bench, as they are written to JSON: every round of everything, nothing averaged away.
//!
//! Whoever reads a file computes medians, spreads and ratios itself. A part that was not run is an empty list.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Version of the format; raised when a reader of the former one would be misled.
pub const FORMAT: u32 = 1;

/// All of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// What it ran on.
    pub host: Host,
    /// How it was run.
    pub settings: Settings,
    /// Traffic between two ends: one entry a case, place, number of Services, pinning and contender.
    pub traffic: Vec<Measurement>,
    /// What a packet costs in each program.
    pub programs: Vec<ProgramCost>,
    /// How long each program is.
    #[serde(default)]
    pub program_sizes: Vec<ProgramSize>,
    /// What ADD and DEL cost.
    pub control: Vec<Control>,
    /// What could not be measured, and why.
    pub skipped: Vec<Skipped>,
}

/// The machine and the versions of everything that takes part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release, as `uname -r` has it.
    pub kernel: String,
    /// Machine, as `uname -m` has it.
    pub machine: String,
    /// The distribution's name for itself.
    pub distribution: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs that the bench was allowed to use.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// beeline's version.
    pub beeline: String,
    /// Commit that it was built from, with `-dirty` if the tree differed; empty if unknown.
    pub commit: String,
    /// Version of iperf3.
    pub iperf3: String,
    /// Version of iproute2.
    pub iproute2: String,
    /// Version of iptables, with its back end.
    pub iptables: String,
    /// Version of the reference bridge plugin.
    pub reference: String,
    /// Whether the kernel's BPF JIT is on, without which program costs say nothing.
    pub bpf_jit: bool,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Start, in seconds since 1970.
    pub started: u64,
    /// How long all of it took.
    pub elapsed_seconds: f64,
    /// Whether it was the quick setting.
    pub quick: bool,
    /// Rounds of each measurement of traffic.
    pub rounds: u32,
    /// Duration of one round of streams and small packets.
    pub stream_seconds: f64,
    /// Duration of one round of transactions.
    pub transaction_seconds: f64,
    /// Runs of a program in one round.
    pub repeat: u32,
    /// Pods of the growth of ADD latency.
    pub pods: u32,
}

impl Settings {
    /// How often each round comes for ends that share a CPU: twice, as costs are what runs are compared by, unless in a
    /// hurry.
    pub fn turns(&self, pinned: bool) -> u32 {
        if pinned && !self.quick { 2 } else { 1 }
    }

    /// The rounds of traffic in words.
    pub fn rounds_in_words(&self) -> String {
        let pinned = self.rounds * self.turns(true);
        if pinned == self.rounds {
            return self.rounds.to_string();
        }
        format!("{}, on one CPU {pinned}", self.rounds)
    }
}

/// Where the two ends are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Both on one node.
    #[default]
    SameNode,
    /// On two nodes of one underlay.
    AcrossNodes,
}

/// What a rate counts; more is better in each.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Payload received, in 10⁹ bit/s.
    #[default]
    GigabitsPerSecond,
    /// Packets received a second.
    PacketsPerSecond,
    /// Transactions completed a second.
    TransactionsPerSecond,
}

/// One series of rounds of traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Name of the case, such as `tcp-stream`, `tcp-stream-8`, `udp-small`, `tcp-rr`, `udp-rr`, `tcp-crr`.
    pub case: String,
    /// Where the two ends are.
    pub place: Place,
    /// How many Services kube-proxy's rules on each node stand for; 0 is no rules at all.
    pub services: u32,
    /// Name of the contender, such as `veth`, `nodes`, `bridge`, `bridge-vxlan`, `beeline`, `beeline-vxlan`.
    pub contender: String,
    /// Whether both ends shared one CPU, so that the rate is 1 / CPU cost.
    pub pinned: bool,
    /// What the rates count.
    pub unit: Unit,
    /// The rate of each round, in the order they were run.
    pub rounds: Vec<f64>,
    /// Median time of a transaction in each round, in µs; empty for cases without transactions.
    #[serde(default)]
    pub p50_us: Vec<f64>,
    /// Time that one transaction in a hundred exceeded in each round, in µs; empty as above.
    #[serde(default)]
    pub p99_us: Vec<f64>,
    /// Share of the packets sent that were lost in each round, from 0 to 1; empty unless the case may lose packets.
    #[serde(default)]
    pub lost: Vec<f64>,
}

/// The cost of one program at one size of its maps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgramCost {
    /// Name of the program, such as `from_pod`; or [`ProgramCost::NAIVE`].
    pub program: String,
    /// What becomes of the packet: an outcome of the counters, such as `to_pod`; where several samples share it, with
    /// what tells them apart.
    pub outcome: String,
    /// Whether it was loaded with every rule on, as `antiSpoof` and an overlay make it, rather than without both.
    #[serde(default)]
    pub every_rule: bool,
    /// Entries of `PEERS`.
    pub peers: u32,
    /// Entries of `PODS`.
    pub pods: u32,
    /// Remembered flows of each kind, TCP connections and others.
    pub flows: u32,
    /// Mean nanoseconds a packet in each round.
    pub nanoseconds: Vec<f64>,
    /// The same of an empty program run just before, which is what running it costs here.
    pub empty_nanoseconds: Vec<f64>,
}

impl ProgramCost {
    /// The program that a first attempt would be: it looks the destination up, writes both MACs and redirects.
    pub const NAIVE: &str = "naive";
}

/// How long one program is, in instructions as the verifier left them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramSize {
    /// Name of the program, such as `from_pod`.
    pub program: String,
    /// Without `antiSpoof` and an overlay.
    pub instructions: u32,
    /// With both.
    pub every_rule: u32,
}

/// How ADDs and DELs followed one another.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// ADD and DEL of one pod in turn, on a node that has one other pod.
    #[default]
    Serial,
    /// Pods added one after another and all kept; the index of a sample is how many were there before (ADD) or are
    /// left (DEL, which removes them in reverse and is listed in the order of ADD).
    Growth,
    /// This many at once.
    Parallel(u32),
}

/// Latencies of one verb of one contender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Name of the contender: `bridge` or `beeline`.
    pub contender: String,
    /// `ADD`, `DEL`, `VERSION`, or `ADD to fast path`: for how long after ADD the pod is not there yet.
    pub verb: String,
    /// Whether `ipMasq` was on.
    pub masquerade: bool,
    /// How they followed one another.
    pub mode: Mode,
    /// From start to end of the plugin's process if it is a verb, in ms; in order of completion, unless `mode` says otherwise.
    pub samples_ms: Vec<f64>,
    /// Wall time of all of them together, in ms; less than their sum if they ran at once.
    pub total_ms: f64,
}

/// Something that was not measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// What it is.
    pub what: String,
    /// Why it was not.
    pub why: String,
}

impl Results {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}: read", path.display()))?;
        let results: Self = serde_json::from_str(&text)
            .with_context(|| format!("{}: not results of a bench", path.display()))?;
        anyhow::ensure!(
            results.format == FORMAT,
            "{}: format {}, where this program reads {FORMAT}",
            path.display(),
            results.format
        );
        Ok(results)
    }

    /// Writes a file, by rename, so that an interrupt leaves no half of it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let partial = path.with_extension("json.partial");
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, path))
            .with_context(|| format!("{}: write", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_survive_a_file() {
        let results = Results {
            format: FORMAT,
            traffic: vec![Measurement {
                case: "tcp-rr".to_owned(),
                place: Place::AcrossNodes,
                rounds: vec![1.5, 2.0],
                ..Measurement::default()
            }],
            control: vec![Control {
                mode: Mode::Parallel(8),
                ..Control::default()
            }],
            ..Results::default()
        };
        let text = serde_json::to_string(&results).unwrap();
        assert!(text.contains(r#""mode":{"parallel":8}"#), "{text}");
        assert!(text.contains(r#""place":"across_nodes""#), "{text}");
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }
}
