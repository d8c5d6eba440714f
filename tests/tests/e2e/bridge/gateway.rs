//! The bridge as the pods' gateway: `isGateway`, `isDefaultGateway`, `forceAddress`.

use beeline_tests::node::BRIDGE;
use beeline_tests::plan::{Families, Family};
use serde_json::{Value, json};

use super::{addresses, call, ip, links, run_ip, sysctl};
use crate::fixture::{configure, nodes_with, one_node};
use crate::refusals::sandbox;

const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

#[test]
fn a_gateway_has_the_addresses_of_all_families_and_the_node_forwards() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    for key in FORWARDING {
        node.netns().write_sysctl(key, "0").expect("sysctl");
    }
    let pod = node.add_pod("pod");
    let gateways = Families::Dual.list().iter().map(|family| {
        let prefix = if *family == Family::V4 { 24 } else { 64 };
        format!("{}/{prefix}", node.gateway_of(*family))
    });
    assert_eq!(
        addresses(node.netns(), BRIDGE),
        gateways.collect::<Vec<_>>()
    );
    assert_eq!(FORWARDING.map(|key| sysctl(node.netns(), key)), ["1", "1"]);
    pod.ping(node.gateway(), 1).assert_received();
}

#[test]
fn without_a_gateway_the_bridge_has_no_address_and_the_node_does_not_begin_to_forward() {
    let (_topology, node) = one_node();
    node.netns()
        .write_sysctl(FORWARDING[0], "0")
        .expect("sysctl");
    configure(&node, |plugin| {
        plugin["isGateway"] = json!(false);
        plugin["ipMasq"] = json!(false);
    });
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    assert_eq!(addresses(node.netns(), BRIDGE), [] as [&str; 0]);
    assert_eq!(sysctl(node.netns(), FORWARDING[0]), "0");
    one.ping(two.ip(), 1).assert_received();
}

#[test]
fn a_default_gateway_is_a_gateway_and_the_pods_default_route() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    configure(&node, |plugin| {
        plugin["isGateway"] = json!(false);
        plugin["isDefaultGateway"] = json!(true);
        plugin["ipam"]["routes"] = json!([]);
    });
    let pod = node.add_pod("pod");
    for (flag, family, everywhere) in [("-4", Family::V4, "0.0.0.0/0"), ("-6", Family::V6, "::/0")]
    {
        let gateway = node.gateway_of(family).to_string();
        let routes = ip(pod.namespace(), &[flag, "route", "show", "default"]);
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert_eq!(routes[0]["gateway"], gateway);
        let said = json!({"dst": everywhere, "gw": gateway});
        let routes = pod.result()["routes"].as_array().expect("routes");
        assert!(routes.contains(&said), "{routes:?}");
        pod.ping(node.gateway_of(family), 1).assert_received();
    }
}

#[test]
fn a_default_gateway_beside_the_same_route_of_ipam_is_no_error() {
    let (_topology, node) = one_node();
    configure(&node, |plugin| {
        plugin["isDefaultGateway"] = json!(true);
        plugin["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
    });
    let pod = node.add_pod("pod");
    let routes = ip(pod.namespace(), &["route", "show", "default"]);
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert_eq!(routes[0]["gateway"], node.gateway().to_string());
}

#[test]
fn a_gateway_that_ipam_does_not_name_is_the_first_address_of_the_network() {
    let (_topology, node) = one_node();
    configure(&node, |plugin| {
        plugin["isDefaultGateway"] = json!(true);
        plugin["ipam"] = json!({"type": "static", "addresses": [{"address": "10.99.1.7/23"}]});
    });
    let pod = node.add_pod("pod");
    assert_eq!(pod.result()["ips"][0]["gateway"], "10.99.0.1");
    assert_eq!(addresses(node.netns(), BRIDGE), ["10.99.0.1/23"]);
    pod.ping("10.99.0.1".parse().unwrap(), 1).assert_received();
    let routes = ip(pod.namespace(), &["route", "show", "default"]);
    assert_eq!(routes[0]["gateway"], "10.99.0.1");
}

/// A bridge that somebody gave addresses.
fn bridge_with(node: &beeline_tests::node::Node, held: &[&str]) {
    let mut commands = vec![format!("link add {BRIDGE} up type bridge")];
    commands.extend(
        held.iter()
            .map(|held| format!("address add {held} dev {BRIDGE} nodad")),
    );
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    run_ip(node.netns(), &commands);
}

fn config(node: &beeline_tests::node::Node, force: bool) -> Value {
    let config = node.config();
    config
        .with(|plugin| plugin["forceAddress"] = json!(force))
        .stdin()
}

#[test]
fn an_address_that_conflicts_is_refused_and_replaced_only_by_force() {
    for (families, held) in [
        (Families::V4, "10.9.0.1/16"),
        (Families::V6, "fd00:244::1/16"),
    ] {
        let (_topology, [node]) = nodes_with(families);
        bridge_with(&node, &[held]);
        let (_namespace, attachment) = sandbox(&node);
        let before = links(node.netns());
        let outcome = call(&node, "ADD", &attachment, &config(&node, false));
        let message = outcome.expect_error(&[7]);
        assert_eq!(addresses(node.netns(), BRIDGE), [held]);
        assert_eq!(links(node.netns()), before);
        assert_eq!(node.reserved().len(), 0);
        assert!(
            message.contains("already has an IP address different"),
            "{message}"
        );
        assert!(message.contains(held), "{message}");
        call(&node, "ADD", &attachment, &config(&node, true)).expect_success();
        let prefix = node.pod_cidr().prefix();
        let expected = format!("{}/{prefix}", node.gateway());
        assert_eq!(addresses(node.netns(), BRIDGE), [expected]);
        call(&node, "DEL", &attachment, &config(&node, true)).expect_success();
    }
}

#[test]
fn networks_of_ipv6_that_are_apart_share_a_bridge() {
    let (_topology, [node]) = nodes_with(Families::V6);
    bridge_with(&node, &["fd99::1/64"]);
    let _pod = node.add_pod("pod");
    let held = addresses(node.netns(), BRIDGE);
    assert_eq!(held.len(), 2, "{held:?}");
    assert!(held.contains(&"fd99::1/64".to_owned()), "{held:?}");
}
