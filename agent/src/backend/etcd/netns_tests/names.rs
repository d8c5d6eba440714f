//! Nodes that contradict each other, and what others write.

use std::{sync::Arc, time::Duration};

use beeline_tests::etcd::Cluster;

use super::node::{Node, Spec, release_node};

#[test]
fn a_node_with_other_cluster_cidrs_is_refused_and_both_are_named() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    let first = Node::ready(&cluster, &host, &Spec::new("a"));
    let other = Spec::new("b").with("--subnet-length-v4", "25");
    let error = Node::start(&cluster, &host, &other).refused();
    for words in [
        "--cluster-cidr",
        "10.244.0.0/16 in subnets /25",
        "10.244.0.0/16 in subnets /24",
        "/beeline/v1/config",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert!(first.knows(&["a"]));
    // Below another prefix there is another cluster.
    let apart = other.with("--prefix", "/elsewhere");
    assert_eq!(Node::ready(&cluster, &host, &apart).members.len(), 1);
}

#[test]
fn a_second_machine_with_the_same_name_is_refused_and_takes_nothing() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    let mut first = Node::ready(&cluster, &host, &Spec::new("a"));
    let second = Spec {
        machine: "other".to_owned(),
        ..Spec::new("a")
    };
    let error = Node::start(&cluster, &host, &second).refused();
    for words in [
        "--node-name \"a\"",
        "another machine",
        "10.99.0.100",
        "etcdctl lease revoke",
    ] {
        assert!(error.contains(words), "{error}");
    }
    release_node(&cluster, &host, &second).unwrap();
    first.listen(Duration::from_millis(300));
    assert_eq!(first.told.len(), 1, "{:#?}", first.told);

    // What the message advises helps.
    let revoke: Vec<_> = error
        .split('`')
        .nth(1)
        .unwrap()
        .split(' ')
        .skip(1)
        .collect();
    drop(first);
    cluster.etcdctl(0, &revoke).unwrap();
    Node::ready(&cluster, &host, &second);
}

#[test]
fn keys_and_values_of_others_are_skipped_and_own_ones_put_right() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    let mut node = Node::ready(&cluster, &host, &Spec::new("a"));
    let subnets = node.subnets();
    let put = |key: &str, value: &str| drop(cluster.etcdctl(0, &["put", key, value]).unwrap());
    put("/beeline/v1/nodes/bad", "\u{7f}{");
    put(
        "/beeline/v1/nodes/evil",
        r#"{"machine":"","addresses":["10.99.0.9"],"podCIDRs":["0.0.0.0/0"]}"#,
    );
    put("/beeline/v1/subnets/ipv4/x", "");
    put("/beeline/v1/what", "");
    let good = r#"{"machine":"","addresses":["10.99.0.9"],"podCIDRs":["10.244.255.0/24"]}"#;
    put("/beeline/v1/nodes/good", good);
    node.wait("the good one", |node| node.knows(&["a", "good"]));
    for key in ["nodes/bad", "nodes/evil", "subnets/ipv4/x", "what"] {
        assert!(
            node.log()
                .contains(&format!("key /beeline/v1/{key}: skipped")),
            "{}",
            node.log()
        );
    }

    // Somebody deletes what is the node's: it is there again, with the same subnets.
    let synchronised = node.synchronised();
    cluster
        .etcdctl(0, &["del", "--prefix", "/beeline/v1/nodes/a"])
        .unwrap();
    node.wait("its key", |node| node.synchronised() > synchronised);
    let synchronised = node.synchronised();
    cluster
        .etcdctl(0, &["del", "--prefix", "/beeline/v1/subnets/"])
        .unwrap();
    node.wait("its subnets", |node| node.synchronised() > synchronised);
    assert_eq!(node.subnets(), subnets);
    let keys = cluster
        .etcdctl(
            0,
            &["get", "--prefix", "--keys-only", "/beeline/v1/subnets/"],
        )
        .unwrap();
    assert_eq!(
        keys.lines().filter(|key| !key.is_empty()).count(),
        2,
        "{keys}"
    );
    assert!(!node.was_lost() && node.knows(&["a", "good"]));
}
