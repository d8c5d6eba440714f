//! The demo: nodes and pods from nothing, proof of the path their packets take, a comparison, and nothing left.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::topology::{DEMO_PREFIX, TopologySpec};
use crate::{interrupt, sweep};

mod cluster;
mod compare;
mod options;
mod reach;
mod table;

use cluster::Cluster;
use compare::Contest;
pub use options::{Baseline, Options};

/// How it ended.
#[derive(Debug)]
pub struct Verdict {
    summary: String,
    failures: Vec<String>,
    elapsed: Duration,
}

impl Verdict {
    /// Prints it, one line if all is well, and returns the exit code.
    pub fn report(&self) -> ExitCode {
        let seconds = self.elapsed.as_secs_f64();
        for failure in &self.failures {
            println!("  failed: {failure}");
        }
        let (word, code) = if self.failures.is_empty() {
            ("OK", ExitCode::SUCCESS)
        } else {
            ("FAILED", ExitCode::FAILURE)
        };
        println!("{word}: {} ({seconds:.1} s)", self.summary);
        code
    }
}

/// Runs the demo, or what the options ask for instead.
pub fn run(options: &Options) -> Result<Verdict> {
    let start = Instant::now();
    interrupt::watch()?;
    let _only = only_one()?;
    let swept = [sweep::demo(), sweep::dead_owners()].concat();
    if options.cleanup {
        swept
            .iter()
            .for_each(|leftover| println!("  removed {leftover}"));
        let summary = format!("{} leftovers removed", swept.len());
        return Ok(Verdict {
            summary,
            failures: Vec::new(),
            elapsed: start.elapsed(),
        });
    }
    if !swept.is_empty() {
        println!("Removed {} leftovers of an earlier run\n", swept.len());
    }
    let links = host_links()?;
    let (mut summary, mut failures) = show(options)?;
    if !options.keep {
        let leftovers = sweep::demo_leftovers();
        failures.extend(
            leftovers
                .iter()
                .map(|leftover| format!("left behind: {leftover}")),
        );
        if host_links()? != links {
            failures.push("the links of the host itself have changed".to_owned());
        }
        summary += if leftovers.is_empty() {
            ", nothing left"
        } else {
            ", something left behind"
        };
    }
    Ok(Verdict {
        summary,
        failures,
        elapsed: start.elapsed(),
    })
}

fn show(options: &Options) -> Result<(String, Vec<String>)> {
    let plugin = options.plugin()?;
    let (nodes, pods) = (usize::from(options.nodes), options.pods);
    println!(
        "beeline demo: nodes: {nodes}, pods on each: {pods}, plugin: {}\n",
        plugin.path().display()
    );
    let spec = TopologySpec::new(DEMO_PREFIX, nodes, plugin);
    let cluster = Cluster::up(&spec, |_| pods)?;
    cluster.print();
    println!();

    let reach = reach::all_pairs(&cluster)?;
    println!();
    let mut failures = reach.failures;

    let prefix = format!("{DEMO_PREFIX}-base");
    let plugin = options.baseline_plugin()?;
    let spec = TopologySpec {
        mode: "bridge".to_owned(),
        ..TopologySpec::new(prefix, nodes.min(2), plugin)
    };
    let plain = Cluster::up(&spec, |_| pods.min(2)).context("baseline")?;
    let names = [options.baseline_name(), "beeline"];
    let clusters = [&plain, &cluster];
    Contest {
        clusters,
        names,
        seconds: options.duration,
    }
    .print()?;
    println!();
    failures.extend(plain.down());

    let mut summary = format!(
        "{}/{} pairs, {} pod-to-pod packets by the slow path",
        reach.answered, reach.pairs, reach.slow
    );
    if options.keep {
        look_around(&cluster);
        cluster.keep();
        summary += ", left up";
    } else {
        failures.extend(cluster.down());
    }
    Ok((summary, failures))
}

fn look_around(cluster: &Cluster) {
    let program = std::env::current_exe().map_or_else(
        |_| "beeline-demo".to_owned(),
        |path| path.display().to_string(),
    );
    let Some(pod) = cluster.pods.first() else {
        return;
    };
    let node = pod.node();
    let (inside, pod_net) = (node.netns().path(), pod.namespace().path());
    println!("All of it is still up. To look around:");
    // Not every machine has it.
    let has_ping = ["/usr/bin/ping", "/bin/ping"]
        .iter()
        .any(|path| Path::new(path).exists());
    if let Some(other) = cluster.pods.last().filter(|_| has_ping) {
        println!(
            "  nsenter --net={} ping -c 3 {}",
            pod_net.display(),
            other.ip()
        );
    }
    println!("  nsenter --net={} ip -br address", pod_net.display());
    println!("  nsenter --net={} ip -s link", inside.display());
    println!("  nsenter --net={} nft list ruleset", inside.display());
    println!(
        "  find {} {}",
        node.bpffs_dir().display(),
        node.directory().display()
    );
    println!("  cat {}/*", node.conf_dir().display());
    println!("To remove it:\n  {program} --cleanup\n");
}

/// Keeps a second demo from sweeping this one; goes with the process, whatever happens.
fn only_one() -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name("beeline-demo").context("lock")?;
    match UnixListener::bind_addr(&address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("another demo is running")
        }
        other => other.context("lock"),
    }
}

fn host_links() -> Result<Vec<String>> {
    let devices =
        std::fs::read_to_string("/proc/thread-self/net/dev").context("links of the host")?;
    Ok(devices
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect())
}
