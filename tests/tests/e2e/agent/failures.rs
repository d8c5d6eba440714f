//! Agents and etcds that are killed under traffic: nothing is lost, and pods come and go meanwhile.

use std::sync::Arc;

use beeline_tests::datapath::{FROM_UPLINK, TO_PEER};
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::steady::{Tally, during};

use super::lab::{Lab, assert_fast, assert_in_place, pod_cidrs, wait_until_known};
use super::process::Agent;

/// A pod comes, is reached from its node and another, and goes.
#[track_caller]
fn assert_come_and_go(node: &Arc<Node>, name: &str, near: &Pod, far: &Pod) {
    let pod = node.add_pod(name);
    near.ping(pod.ip(), 2).assert_received();
    assert_fast(far, &pod, [TO_PEER, FROM_UPLINK]);
    pod.delete().expect("DEL");
}

#[test]
fn an_agent_is_killed_under_traffic_and_nothing_is_lost() {
    let (lab, [a, b]) = Lab::new(3);
    let [agent, _other] = lab.agents([&a, &b]);
    let (one, two, far) = (a.add_pod("one"), a.add_pod("two"), b.add_pod("far"));
    let (agent, tallies) = during(&[(&one, &two), (&one, &far), (&far, &two)], || {
        agent.kill();
        assert_come_and_go(&a, "meanwhile", &one, &far);
        let agent = lab.agent(&a);
        agent.wait_until_ready();
        assert_come_and_go(&a, "after", &one, &far);
        agent
    })
    .expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    wait_until_known(&[&a, &b]);
    assert_in_place(&a);
    agent.assert_without_drift();
}

#[test]
fn all_of_the_etcd_stops_under_traffic_and_a_node_that_joins_after_it_is_reached_by_all() {
    let (mut lab, [a, b, c, d]) = Lab::new(3);
    let [agent, other, third] = lab.agents([&a, &b, &c]);
    let (one, two, far) = (a.add_pod("one"), a.add_pod("two"), b.add_pod("far"));
    let before = pod_cidrs(&a).expect("subnets");
    let (agent, tallies) = during(&[(&one, &two), (&one, &far)], || {
        (0..3).for_each(|member| lab.etcd.kill(member));
        other.wait_until_logged("etcd: lost, going on as before");
        assert_come_and_go(&a, "meanwhile", &one, &far);
        agent.kill();
        // It has nobody to ask, and goes on with what is on the node.
        let agent = lab.agent(&a);
        agent.wait_until_ready();
        assert_come_and_go(&a, "after", &one, &far);
        assert_come_and_go(&b, "there", &far, &one);
        other.wait_until_ready();
        agent
    })
    .expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    let up = |agent: &Agent| agent.metric("beeline_backend_up", None);
    assert_eq!(up(&agent).expect("metrics"), 0.0);
    wait_until_known(&[&a, &b, &c]);
    agent.assert_without_drift();
    (0..3).for_each(|member| lab.etcd.revive(member));
    let fourth = lab.agent(&d);
    fourth.wait_until_ready();
    wait_until_known(&[&a, &b, &c, &d]);
    assert_eq!(pod_cidrs(&a).expect("subnets"), before);
    let new = d.add_pod("new");
    let on_c = c.add_pod("pod");
    for pod in [&one, &far, &on_c] {
        assert_fast(pod, &new, [TO_PEER, FROM_UPLINK]);
        assert_fast(&new, pod, [TO_PEER, FROM_UPLINK]);
    }
    for agent in [&agent, &other, &third] {
        assert_eq!(up(agent).expect("metrics"), 1.0);
        assert_eq!(
            agent
                .metric("beeline_cluster_nodes", None)
                .expect("metrics"),
            4.0
        );
    }
}
