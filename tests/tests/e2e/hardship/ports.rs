//! A bridge that has all the ports that Linux gives it.

use super::*;
use crate::fixture::fast_node;
use crate::refusals::sandbox;
use beeline_tests::cli;
use beeline_tests::node::BRIDGE;

/// `BR_MAX_PORTS` less the first, which is the kernel's own.
const PORTS: usize = 1023;

#[test]
fn a_full_bridge_refuses_a_pod_by_its_name_and_takes_one_when_a_port_is_free() {
    let (_topology, node) = fast_node();
    let first = node.add_pod("first");
    let port = |number| format!("link add d{number} master {BRIDGE} type veth peer name e{number}");
    // Two are left.
    let ports: Vec<_> = (1..PORTS - 1).map(port).collect();
    exec::ip_batch(node.netns(), &ports).expect("ip");
    let last = node.add_pod("last");
    first.ping(last.ip(), 1).assert_received();
    assert_eq!(cli::path(&node, &last).expect("status").0, "fast");

    let plugin = Hardship::by(&node, &[]);
    for mode in ["auto", "ebpf"] {
        let config = node.config().mode(mode).stdin();
        let message = plugin.refuses(&sandbox(&node), &config, &[999]);
        let expected =
            format!("bridge \"{BRIDGE}\": all {PORTS} ports of a Linux bridge are taken");
        assert!(message.contains(&expected), "{message}");
    }
    last.delete().expect("DEL");
    let next = node.add_pod("next");
    first.ping(next.ip(), 1).assert_received();
    next.delete().expect("DEL");
}
