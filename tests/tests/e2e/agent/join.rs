//! Nodes that join, from nothing.

use beeline_tests::datapath::{FROM_UPLINK, TO_PEER, growth};
use beeline_tests::slowpath::Proof;

use super::lab::{Lab, assert_fast, assert_in_place, conflist, pod_cidrs, wait_until_known};
use super::process::Agent;

#[test]
fn nodes_lease_subnets_and_their_pods_reach_each_other_by_the_fast_path_alone() {
    let (lab, [a, b, c]) = Lab::new(3);
    let nodes = [&a, &b, &c];
    let agents = lab.agents(nodes);
    assert!(nodes.iter().all(|node| conflist(node).exists()));
    let mut leased: Vec<_> = nodes.map(|node| pod_cidrs(node).expect("subnets")).concat();
    leased.sort();
    leased.dedup();
    assert_eq!(leased.len(), 3, "{leased:?}");
    let pods = nodes.map(|node| node.add_pod("pod"));
    for pod in &pods {
        let own = pod_cidrs(pod.node()).expect("subnets");
        assert!(own[0].contains(pod.ip()), "{} of {own:?}", pod.ip());
    }
    let proofs = nodes.map(|node| Proof::begin(node).expect("proof"));
    let before = nodes.map(|node| node.counters().expect("counters"));
    // Each asks both others, and is asked by both.
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        pods[from].ping(pods[to].ip(), 5).assert_received();
    }
    for ((node, before), proof) in nodes.iter().zip(&before).zip(proofs) {
        let grown = growth(before, &node.counters().expect("counters"));
        // Two times five requests and ten answers, out and in.
        for counter in [TO_PEER, FROM_UPLINK] {
            assert_eq!(grown.get(counter), Some(&20), "{}: {grown:?}", node.name());
        }
        let slow = proof.read().expect("proof");
        assert_eq!(slow.pod_to_pod(), 0, "{}: {slow}", node.name());
    }
    agents.iter().for_each(Agent::assert_without_drift);
}

#[test]
fn what_is_on_a_node_is_kept_by_an_agent_that_ends_and_found_by_the_next() {
    let (lab, [a, b]) = Lab::new(1);
    let [agent, _other] = lab.agents([&a, &b]);
    let (near, far) = (a.add_pod("near"), b.add_pod("far"));
    let before = pod_cidrs(&a).expect("subnets");
    agent.stop();
    assert_fast(&near, &far, [TO_PEER, FROM_UPLINK]);
    let agent = lab.agent(&a);
    agent.wait_until_ready();
    wait_until_known(&[&a, &b]);
    assert_eq!(pod_cidrs(&a).expect("subnets"), before);
    assert_in_place(&a);
    assert_fast(&near, &far, [TO_PEER, FROM_UPLINK]);
    agent.assert_without_drift();
}
