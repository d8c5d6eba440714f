//! Who gets which subnets, and keeps them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use beeline_tests::etcd::Cluster;

use super::node::{Node, Spec, release_node};

#[test]
fn three_nodes_get_different_subnets_of_each_family_and_tell_each_other() {
    let cluster = Cluster::start(3);
    let names = ["a", "b", "c"];
    let mut nodes = names.map(|name| {
        let host = Arc::new(cluster.host());
        (Node::start(&cluster, &host, &Spec::new(name)), host)
    });
    let mut subnets = BTreeSet::new();
    for (node, _) in &mut nodes {
        node.wait("all members", |node| {
            node.knows(&names)
                && node
                    .members
                    .values()
                    .all(|member| member.pod_cidrs.len() == 2)
        });
        subnets.extend(node.subnets());
        assert!(node.subnets()[0].is_ipv4() && node.subnets()[1].is_ipv6());
        assert!(!node.was_lost(), "{:#?}", node.told);
    }
    assert_eq!(subnets.len(), 6, "{subnets:?}");
    let members = nodes[0].0.members.clone();
    assert_eq!(members, nodes[2].0.members);
    // Each on a host of its own, whose address towards the etcd is the only one.
    let addresses: BTreeSet<_> = members
        .values()
        .flat_map(|member| &member.addresses)
        .collect();
    assert_eq!(addresses.len(), 3, "{members:#?}");
    let ages: BTreeSet<_> = members.values().map(|member| member.since).collect();
    assert!(ages.len() == 3 && !ages.contains(&0), "{ages:?}");
}

#[test]
fn a_node_that_starts_again_has_its_subnets_and_others_hear_nothing() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    let mut other = Node::ready(&cluster, &host, &Spec::new("other"));
    let node = Node::ready(&cluster, &host, &Spec::new("a"));
    let before = node.members.clone();
    other.wait("the node", |other| other.knows(&["a", "other"]));
    let told = other.told.len();
    drop(node);
    let again = Node::ready(&cluster, &host, &Spec::new("a"));
    assert_eq!(again.members, before);
    other.listen(Duration::from_millis(500));
    assert_eq!(other.told.len(), told, "{:#?}", other.told);
}

#[test]
fn another_lease_or_address_is_written_and_the_subnets_stay() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    let node = Node::ready(&cluster, &host, &Spec::new("a"));
    let before = node.members["a"].clone();
    drop(node);
    let other = Spec::new("a")
        .with("--lease", "600")
        .with("--node-address", "10.99.0.77");
    let node = Node::ready(&cluster, &host, &other);
    let now = node.members["a"].clone();
    assert_eq!(
        (&now.pod_cidrs, now.since),
        (&before.pod_cidrs, before.since)
    );
    assert_eq!(
        now.addresses,
        ["10.99.0.77".parse::<std::net::IpAddr>().unwrap()]
    );
    let leases = cluster.etcdctl(0, &["lease", "list"]).unwrap();
    assert!(leases.contains("found 1 leases"), "{leases}");
}

#[test]
fn when_a_lease_ends_others_are_told_and_the_node_gets_its_subnets_back() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    let mut other = Node::ready(&cluster, &host, &Spec::new("other"));
    let short = Spec::new("a").with("--lease", "5");
    let mut node = Node::ready(&cluster, &host, &short);
    let subnets = node.subnets();
    // It is renewed as long as the agent runs.
    node.listen(Duration::from_secs(8));
    other.wait("the node", |other| other.knows(&["a", "other"]));
    other.listen(Duration::ZERO);
    assert!(other.knows(&["a", "other"]) && node.synchronised() == 1);
    drop(node);
    other.wait("the end", |other| other.knows(&["other"]));
    // Names decide where the search begins, so it is `known` that brings it back.
    let moved = Spec {
        name: "z".to_owned(),
        ..short.known(&subnets)
    };
    let back = Node::ready(&cluster, &host, &moved);
    assert_eq!(back.subnets(), subnets);
}

#[test]
fn a_subnet_that_another_node_took_after_the_lease_had_ended_is_replaced_and_named() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    let spec = Spec::new("a").with("--lease", "5");
    let mut node = Node::ready(&cluster, &host, &spec);
    let subnets = node.subnets();
    drop(node);
    let mut thief = Node::ready(&cluster, &host, &Spec::new("other"));
    thief.wait("the end of the lease", |thief| thief.knows(&["other"]));
    drop(thief);
    release_node(&cluster, &host, &Spec::new("other")).unwrap();
    let thief = Node::ready(&cluster, &host, &Spec::new("thief").known(&subnets));
    assert_eq!(thief.subnets(), subnets);

    node = Node::ready(&cluster, &host, &spec.known(&subnets));
    assert_eq!(node.subnets().len(), 2);
    for subnet in subnets {
        assert!(!node.subnets().contains(&subnet), "{subnet}: twice");
        let error = format!("subnet {subnet}: belongs to node \"thief\"");
        assert!(node.log().contains(&error), "{}", node.log());
    }
}

#[test]
fn twenty_nodes_at_once_share_twenty_subnets_and_one_more_waits_for_one() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    // An operator keeps 12 of 32.
    for index in 0..12 {
        let key = format!("/beeline/v1/subnets/ipv4/10.244.{index}.0-24");
        cluster
            .etcdctl(0, &["put", &key, r#"{"node": "kept", "machine": ""}"#])
            .unwrap();
    }
    let spec = |name: &str| Spec::new(name).with("--cluster-cidr", "10.244.0.0/19");
    let names: Vec<_> = (0..20).map(|index| format!("n{index}")).collect();
    let mut nodes: Vec<_> = names
        .iter()
        .map(|name| Node::start(&cluster, &host, &spec(name)))
        .collect();
    let mut subnets = BTreeSet::new();
    for node in &mut nodes {
        node.wait("a subnet", |node| node.subnets().len() == 1);
        assert!(
            subnets.insert(node.subnets()[0]),
            "{}: twice",
            node.subnets()[0]
        );
    }
    let kept = |index: u8| subnets.contains(&format!("10.244.{index}.0/24").parse().unwrap());
    assert!(!(0..12).any(kept), "{subnets:?}");

    let mut late = Node::start(&cluster, &host, &spec("late"));
    late.wait("itself", |late| late.members.contains_key("late"));
    assert_eq!((late.subnets(), late.members.len()), (vec![], 21));
    assert!(
        late.log()
            .contains("10.244.0.0/19 in subnets /24: none left"),
        "{}",
        late.log()
    );

    let freed = nodes.remove(0).subnets();
    release_node(&cluster, &host, &spec(&names[0])).unwrap();
    late.wait("the freed subnet", |late| late.subnets() == freed);
    assert!(!late.members.contains_key(&names[0]));
}

#[test]
fn a_node_that_is_released_is_gone_at_once_and_releasing_again_is_fine() {
    let cluster = Cluster::start(3);
    let host = Arc::new(cluster.host());
    let mut other = Node::ready(&cluster, &host, &Spec::new("other"));
    drop(Node::ready(&cluster, &host, &Spec::new("a")));
    other.wait("the node", |other| other.knows(&["a", "other"]));
    for _ in 0..2 {
        release_node(&cluster, &host, &Spec::new("a")).unwrap();
    }
    other.wait("its end", |other| other.knows(&["other"]));
    assert_eq!(other.synchronised(), 1);
    let keys = cluster
        .etcdctl(0, &["get", "--prefix", "--keys-only", "/beeline/"])
        .unwrap();
    assert_eq!(
        keys.lines().filter(|key| !key.is_empty()).count(),
        4,
        "{keys}"
    );
}
