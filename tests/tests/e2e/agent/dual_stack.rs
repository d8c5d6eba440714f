//! Nodes whose pods have addresses of both families.

use beeline_tests::datapath::{FROM_UPLINK, TO_PEER};
use beeline_tests::plan::{Families, Family};
use beeline_tests::topology::TopologySpec;
use beeline_tests::traffic::tcp_echo;

use super::lab::{Lab, assert_fast, pod_cidrs, wait_until_known};
use super::process::{Agent, PORT};
use crate::fixture::spec;

#[test]
fn nodes_lease_a_subnet_of_each_family_and_pods_reach_each_other_by_both() {
    let topology = TopologySpec {
        families: Families::Dual,
        ..spec(2)
    };
    let (lab, [a, b]) = Lab::of(1, &topology);
    let agents = [&a, &b].map(|node| {
        let addresses = Families::Dual
            .list()
            .iter()
            .map(|family| node.address_of(*family));
        let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
        lab.agent_with(node, PORT, &["--node-address", &addresses.join(",")])
    });
    agents.iter().for_each(Agent::wait_until_ready);
    wait_until_known(&[&a, &b]);
    for node in [&a, &b] {
        let leased = pod_cidrs(node).expect("subnets");
        let lengths: Vec<_> = leased.iter().map(|cidr| cidr.prefix()).collect();
        assert_eq!(lengths, [24, 64], "{leased:?}");
    }
    let (one, two) = (a.add_pod("one"), b.add_pod("two"));
    assert_eq!(one.ips().len(), 2);
    for (from, to) in [(&one, &two), (&two, &one)] {
        assert_fast(from, to, [TO_PEER, FROM_UPLINK]);
        for family in [Family::V4, Family::V6] {
            let (client, server, ip) = (from.namespace(), to.namespace(), to.ip_of(family));
            let seen = tcp_echo(client, server, ip, b"hello").expect("TCP");
            assert_eq!(seen.ip(), from.ip_of(family));
        }
    }
    agents.iter().for_each(Agent::assert_without_drift);
}
