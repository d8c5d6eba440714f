//! Pods by the hundred, or by the thousand, through one node: whatever becomes of their DELs, nothing is left of them.

mod crew;
mod fate;

use std::net::IpAddr;

use anyhow::ensure;
use beeline_tests::datapath::{self, Known, TO_POD};
use beeline_tests::icmp::{self, Echo, Ping};
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::process;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::soak;
use beeline_tests::wait::{seconds, wait_for};
use ipnetwork::IpNetwork;
use serde_json::json;

use self::crew::Crew;
use self::fate::Fate;
use crate::fixture::fast_node;
use crate::repair::fast;

/// So many ADDs and DELs run at a time.
const WORKERS: usize = 32;

const SEED: u64 = 20_260;

/// Asserts that of all that beeline starts only the watch over new pods still runs, and that once.
#[track_caller]
pub(crate) fn assert_no_process_left(node: &Node) {
    let settled = wait_for("processes of pods that are gone", seconds(20), || {
        let running = process::inside(node.netns())?;
        let is_watch = |line: &[String]| line.get(1).is_some_and(|verb| verb == "watch");
        let watches = running.iter().filter(|(_, line)| is_watch(line)).count();
        ensure!(watches == running.len() && watches <= 1, "{running:?}");
        Ok(())
    });
    settled.unwrap_or_else(|error| panic!("{}: {error:#}", node.name()));
}

/// A ping that may take long where there is a crowd, but not be lost.
pub(crate) fn patient(from: &Namespace, to: IpAddr) -> Ping {
    let timeout = seconds(10);
    icmp::ping(
        from,
        &Echo {
            timeout,
            ..Echo::to(to)
        },
    )
}

#[test]
fn soak_churned_pods_share_no_address_and_leave_nothing_whatever_becomes_of_their_dels() {
    let (_topology, node) = fast_node();
    // So few addresses that each is given many times, and that leaks would use them up.
    let length = soak::scale(26, 23);
    let cidr = IpNetwork::new(node.pod_cidr().ip(), length).expect("a prefix length");
    let subnet = format!("{}/{length}", cidr.network());
    let config = node.config().version("1.1.0");
    let config = config.with(|plugin| plugin["ipam"]["subnet"] = json!(subnet));
    config.install().expect("install");
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    node.add_pod("first").delete().expect("DEL");
    let before = Snapshot::of(&node);
    let known = datapath::known(&node).expect("maps");

    let pods = soak::scale(300, 10_000);
    println!("churn: seed {SEED}, {pods} pods, {WORKERS} at a time, in {subnet}");
    let figures = Crew::new(&node, [&one, &two], SEED, pods).run(WORKERS);
    if soak::is_on() {
        print!("{figures}");
    }
    for fate in [
        Fate::Twice,
        Fate::Late,
        Fate::Lost,
        Fate::Gone,
        Fate::AddedAgain,
    ] {
        assert!(figures.count(fate) > 0, "no pod's fate was {fate:?}");
    }
    // The watch has come through it as well: this waits for it.
    let last = node.add_pod("last");
    assert_eq!(fast(&node, &last, &one), [TO_POD]);
    last.delete().expect("DEL");

    assert_no_process_left(&node);
    before.assert_unchanged(&node);
    assert_eq!(datapath::known(&node).expect("maps"), known);
    one.ping(two.ip(), 3).assert_received();
    one.delete().expect("DEL");
    two.delete().expect("DEL");
    assert_eq!(node.reserved(), Vec::<IpAddr>::new());
    assert_eq!(datapath::known(&node).expect("maps"), Known::default());
    println!("churn: 0 leaks: addresses, interfaces, rules, files, pins, map entries, processes");
}
