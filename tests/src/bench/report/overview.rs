//! What comes before and after the figures: the machine, how to read what follows, and what is missing.

use super::document::{Document, Table};
use super::figures::{grouped, moment};
use crate::bench::types::Results;

/// Adds the title, where it ran and how to read it.
pub(super) fn chapters(results: &Results, document: &mut Document) {
    let run = &results.settings;
    document.heading(1, "beeline bench");
    document.text(format!(
        "What a pod's packet and a pod's ADD cost, beside everything a user would pick instead. One run of {} at {}.",
        minutes(run.elapsed_seconds),
        moment(run.started),
    ));
    if run.quick {
        document.text(
            "This was the quick setting: it shows that the bench works, its figures are rough.",
        );
    }
    document.heading(2, "Where it ran");
    document.table(host(results));
    document.heading(2, "How to read it");
    document.list(reading(&run.rounds_in_words()));
}

/// Adds what was not measured.
pub(super) fn skipped(results: &Results, document: &mut Document) {
    document.heading(2, "Skipped");
    if results.skipped.is_empty() {
        document.text("Nothing.");
    }
    let mut table = Table::new(2, ["What", "Why"]);
    for skip in &results.skipped {
        table.row([skip.what.clone(), skip.why.clone()]);
    }
    document.table(table);
}

fn minutes(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds {
        0..120 => format!("{seconds} seconds"),
        _ => format!("{} minutes", (seconds + 30) / 60),
    }
}

fn host(results: &Results) -> Table {
    let (host, run) = (&results.host, &results.settings);
    let mut table = Table::new(2, ["What", "Value"]);
    let known = |value: &str| {
        if value.is_empty() {
            "unknown".to_owned()
        } else {
            value.to_owned()
        }
    };
    for (what, value) in [
        ("Kernel", format!("{} ({})", host.kernel, host.machine)),
        ("Distribution", host.distribution.clone()),
        ("CPU", format!("{}, {} usable", host.cpu, host.cpus)),
        ("Memory", format!("{} MiB", grouped(host.memory_mib as i64))),
        (
            "BPF JIT",
            if host.bpf_jit { "on" } else { "off" }.to_owned(),
        ),
        ("beeline", host.beeline.clone()),
        ("Commit", known(&host.commit)),
        ("Reference bridge plugin", known(&host.reference)),
        ("iperf3", known(&host.iperf3)),
        ("iproute2", known(&host.iproute2)),
        ("iptables", known(&host.iptables)),
        (
            "Setting",
            if run.quick { "quick" } else { "full" }.to_owned(),
        ),
        ("Rounds of traffic", run.rounds_in_words()),
        (
            "Seconds of a round",
            format!(
                "{} streams, {} transactions",
                run.stream_seconds, run.transaction_seconds
            ),
        ),
        ("Runs of a program in a round", grouped(run.repeat.into())),
        ("Pods on the node that fills up", grouped(run.pods.into())),
    ] {
        table.row([what.to_owned(), value]);
    }
    table
}

fn reading(rounds: &str) -> Vec<String> {
    vec![
        format!("Median: of the rounds ({rounds}). Contenders are interleaved round by round, so that all meet the same machine."),
        "Spread: slowest to fastest round, relative to the median.".to_owned(),
        "÷ `veth`, ÷ `nodes`: the ratio to the limit, which is a bare veth pair on one node and the underlay without \
         pods across nodes. Each round is divided by the limit's same round; given is the median of these ratios, so \
         it can differ a little from the ratio of the medians. The limit of a setting with Services has their \
         rules too: on one node nothing meets them, across nodes they cost the nodes themselves something."
            .to_owned(),
        "÷ `bridge`: likewise against the reference bridge plugin, with kernel routes between nodes and the same Services."
            .to_owned(),
        "÷ `bridge-vxlan`: likewise against that plugin over a vxlan device, set up as flannel does. It is what          `beeline-vxlan` would replace; the goal is 1.4 times its requests and responses."
            .to_owned(),
        "On one CPU: both ends share one CPU that is always busy, so the rate is 1 / CPU cost, and a ratio of rates is \
         a ratio of costs. Not pinned: what the scheduler makes of all CPUs, closer to what a user sees, and noisier."
            .to_owned(),
        "p50, p99: the time that half, or one in a hundred, of the transactions of a round exceeded; given is the \
         median over rounds."
            .to_owned(),
    ]
}
