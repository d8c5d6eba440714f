//! Services by node ports: all combinations of where the client, the server and the node that translates are.

use std::sync::Arc;

use beeline_tests::node::Node;
use beeline_tests::plan::{self, Families};
use beeline_tests::services::Policy;

use super::{Services, assert_direct_is_fast, with_hairpin};
use crate::fixture::nodes_with;

#[track_caller]
fn without_masquerade(node: &Arc<Node>) {
    let config = node.config().with(|plugin| plugin["ipMasq"] = false.into());
    config.install().expect("install");
}

#[test]
fn pods_reach_pods_by_the_port_of_any_node() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let client = a.add_pod("client");
    let servers = [a.add_pod("near"), b.add_pod("far")];
    let mut services = Services::default();
    let served = servers.each_ref().map(|pod| {
        let served = services.serve_in(pod, Some(Policy::Cluster));
        (pod, served)
    });
    services.install(&[&a, &b]);
    for (pod, served) in &served {
        for one in served {
            for node in [&a, &b] {
                let seen = one.by_port_of(node, client.namespace());
                // Each masquerades what it translates: towards its own pods as their gateway, else as itself.
                let own = pod.node().index() == node.index();
                let expected = if own {
                    node.gateway_of(one.family())
                } else {
                    node.address_of(one.family())
                };
                assert_eq!(seen, expected, "{} serves by {}", pod.name(), node.name());
            }
        }
        assert_direct_is_fast(&client, pod, served);
    }
}

#[test]
fn a_pod_of_the_node_that_translates_sees_the_pod_that_asks() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    without_masquerade(&a);
    without_masquerade(&b);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let mut services = Services::default();
    let served = services.serve_in(&server, Some(Policy::Local));
    services.install(&[&a, &b]);
    for one in &served {
        let seen = one.by_port_of(&b, client.namespace());
        assert_eq!(seen, client.ip_of(one.family()));
    }
    assert_direct_is_fast(&client, &server, &served);
    for one in &served {
        one.by_port_of(&b, client.namespace());
    }
}

#[test]
fn a_pod_sees_the_node_of_the_pod_that_asks_if_that_masquerades() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let mut services = Services::default();
    let served = services.serve_in(&server, Some(Policy::Local));
    services.install(&[&a, &b]);
    for one in &served {
        let seen = one.by_port_of(&b, client.namespace());
        assert_eq!(seen, a.address_of(one.family()));
    }
}

#[test]
fn a_pod_reaches_pods_by_its_own_nodes_port_and_they_see_it() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let client = a.add_pod("client");
    let servers = [a.add_pod("near"), b.add_pod("far")];
    let mut services = Services::default();
    // Local traffic policy: what pods send is served by all backends, unmasqueraded.
    let served = servers.each_ref().map(|pod| {
        let served = services.serve_in(pod, Some(Policy::Local));
        (pod, served)
    });
    services.install(&[&a, &b]);
    for (pod, served) in &served {
        for one in served {
            let seen = one.by_port_of(&a, client.namespace());
            assert_eq!(seen, client.ip_of(one.family()), "{}", pod.name());
        }
        assert_direct_is_fast(&client, pod, served);
    }
}

#[test]
fn a_pod_reaches_itself_by_a_node_port() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    with_hairpin(&a);
    // A node forwards from its first pod on.
    let (pod, _other) = (a.add_pod("pod"), b.add_pod("other"));
    let mut services = Services::default();
    let served = services.serve_in(&pod, Some(Policy::Cluster));
    services.install(&[&a, &b]);
    for one in &served {
        for (node, expected) in [
            (&a, a.gateway_of(one.family())),
            (&b, b.address_of(one.family())),
        ] {
            let seen = one.by_port_of(node, pod.namespace());
            assert_eq!(seen, expected, "by {}", node.name());
        }
    }
}

#[test]
fn the_outside_reaches_pods_by_node_ports() {
    let (topology, [a, b]) = nodes_with(Families::Dual);
    let (near, far) = (a.add_pod("near"), b.add_pod("far"));
    let mut services = Services::default();
    let local = services.serve_in(&near, Some(Policy::Local));
    let cluster = services.serve_in(&far, Some(Policy::Cluster));
    services.install(&[&a, &b]);
    for one in &local {
        let seen = one.by_port_of(&a, topology.outside());
        assert!(
            !a.pod_cidrs().iter().any(|cidr| cidr.contains(seen)),
            "{seen}"
        );
        assert_eq!(plan::family(seen), one.family());
        assert_ne!(seen, a.address_of(one.family()), "not masqueraded");
    }
    for one in &cluster {
        let seen = one.by_port_of(&a, topology.outside());
        assert_eq!(seen, a.address_of(one.family()), "masqueraded");
    }
}

#[test]
fn nodes_reach_pods_by_node_ports() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let servers = [a.add_pod("near"), b.add_pod("far")];
    let mut services = Services::default();
    let served = servers
        .each_ref()
        .map(|pod| services.serve_in(pod, Some(Policy::Cluster)));
    services.install(&[&a, &b]);
    for one in served.iter().flatten() {
        one.by_port_of(&a, a.netns());
        one.by_port_of(&b, a.netns());
    }
}
