//! Members and links that fail.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use beeline_tests::etcd::Cluster;

use super::node::{Node, Spec};

/// Nodes whose names begin the search for a member at the first, second and third of three.
const AT: [&str; 3] = ["c", "a", "b"];

#[test]
fn a_member_is_killed_and_then_the_leader_and_nodes_still_come_and_hear_of_each_other() {
    let mut cluster = Cluster::start(3);
    let host = Arc::new(cluster.host());
    let mut nodes = AT.map(|name| Node::ready(&cluster, &host, &Spec::new(name)));
    let before = nodes.each_ref().map(Node::subnets);

    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    cluster.kill(follower);
    let _d = Node::ready(&cluster, &host, &Spec::new("d"));
    for node in &mut nodes {
        node.wait("a node that came without a member", |node| {
            node.knows(&["a", "b", "c", "d"])
        });
    }
    cluster.revive(follower);
    let leader = cluster.leader();
    cluster.kill(leader);
    let _e = Node::ready(&cluster, &host, &Spec::new("e"));
    for (node, before) in nodes.iter_mut().zip(before) {
        node.wait("a node that came without the leader", |node| {
            node.knows(&["a", "b", "c", "d", "e"])
        });
        assert_eq!(node.subnets(), before);
    }
}

#[test]
fn a_node_whose_member_is_parted_from_the_others_goes_to_another_one() {
    let cluster = Cluster::start(3);
    let host = Arc::new(cluster.host());
    let leader = cluster.leader();
    for parted in [(leader + 1) % 3, leader] {
        let name = AT[parted];
        let mut node = Node::ready(&cluster, &host, &Spec::new(name));
        let (subnets, synchronised) = (node.subnets(), node.synchronised());
        cluster.part(parted);
        node.wait("another member", |node| node.synchronised() > synchronised);
        let newcomer = format!("new{parted}");
        let new = Node::ready(&cluster, &host, &Spec::new(&newcomer));
        node.wait("a node that came since", |node| {
            node.members.contains_key(&newcomer)
        });
        assert_eq!(node.subnets(), subnets);
        assert!(new.members.contains_key(name));
        cluster.rejoin(parted);
        cluster.leader();
    }
}

#[test]
fn a_node_that_is_cut_off_says_so_and_catches_up_when_it_is_back() {
    let cluster = Cluster::start(3);
    let [host, other] = [(); 2].map(|()| Arc::new(cluster.host()));
    let mut node = Node::ready(&cluster, &host, &Spec::new("a"));
    let leaver = Node::ready(&cluster, &other, &Spec::new("leaver"));
    node.wait("a node that leaves later", |node| {
        node.knows(&["a", "leaver"])
    });
    let subnets = node.subnets();

    cluster.cut(&host);
    let start = Instant::now();
    node.wait("word of it", |node| node.lost.is_some());
    // Pings find the cut, then two more members are tried.
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "{:?}",
        start.elapsed()
    );
    assert!(node.knows(&["a", "leaver"]), "{:#?}", node.told);
    drop(leaver);
    super::node::release_node(&cluster, &other, &Spec::new("leaver")).unwrap();
    let came = Node::ready(&cluster, &other, &Spec::new("came"));
    assert!(came.knows(&["a", "came"]));

    cluster.heal(&host);
    node.wait("what it has missed", |node| {
        node.lost.is_none() && node.knows(&["a", "came"])
    });
    assert_eq!(node.subnets(), subnets);
}

#[test]
fn a_node_that_is_cut_off_for_longer_than_its_lease_takes_the_same_subnets_again() {
    let cluster = Cluster::start(1);
    let [host, other] = [(); 2].map(|()| Arc::new(cluster.host()));
    let mut node = Node::ready(&cluster, &host, &Spec::new("a").with("--lease", "5"));
    let before = node.members["a"].clone();
    let mut other = Node::ready(&cluster, &other, &Spec::new("b"));
    cluster.cut(&host);
    other.wait("the end of its lease", |other| other.knows(&["b"]));
    cluster.heal(&host);
    other.wait("it is back", |other| other.knows(&["a", "b"]));
    node.wait("its new key", |node| node.members["a"].since > before.since);
    assert_eq!(node.subnets(), before.pod_cidrs);
}

#[test]
fn an_etcd_that_was_down_entirely_costs_nobody_its_subnets() {
    let mut cluster = Cluster::start(3);
    let host = Arc::new(cluster.host());
    let mut nodes =
        AT.map(|name| Node::ready(&cluster, &host, &Spec::new(name).with("--lease", "60")));
    for node in &mut nodes {
        node.wait("all", |node| node.knows(&["a", "b", "c"]));
    }
    let before = nodes.each_ref().map(|node| node.members.clone());
    (0..3).for_each(|index| cluster.kill(index));
    for node in &mut nodes {
        node.wait("word of it", |node| node.lost.is_some());
        assert!(
            node.lost.as_ref().unwrap().contains(&cluster.endpoint(2)),
            "{:?}",
            node.lost
        );
    }
    thread::sleep(Duration::from_secs(3));
    (0..3).for_each(|index| cluster.revive(index));
    for (node, before) in nodes.iter_mut().zip(before) {
        node.wait("it is back", |node| node.lost.is_none());
        assert_eq!(node.members, before);
    }
}
