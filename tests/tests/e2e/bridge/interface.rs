//! The container's interface and the bridge that it is joined to: `bridge`, `mtu`, `disableContainerInterface`,
//! `enabledad`, `promiscMode`.

use beeline_tests::node::BRIDGE;
use beeline_tests::plan::Families;
use beeline_tests::snapshot::Snapshot;
use serde_json::json;

use super::{addresses, call, interface, ip, layer_2, link, links, run_ip, sysctl};
use crate::fixture::{configure, nodes_with, one_node};
use crate::refusals::{refused, sandbox};

#[test]
fn a_first_add_makes_a_bridge_and_a_veth_pair_and_nothing_else() {
    let (_topology, node) = one_node();
    let before = links(node.netns());
    let pod = node.add_pod("pod");
    let result = pod.result();
    let after = links(node.netns());
    let new: Vec<_> = after.iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new, [interface(result, 0), interface(result, 1)]);
    assert_eq!(interface(result, 0), BRIDGE);
    assert!(interface(result, 1).starts_with("veth"));
    assert_eq!(interface(result, 2), "eth0");
    assert_eq!(result["interfaces"].as_array().map(Vec::len), Some(3));
    assert_eq!(result["ips"][0]["interface"], 2);
    let (bridge, port) = (link(node.netns(), BRIDGE), link(node.netns(), new[1]));
    assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
    assert_eq!(port["master"], BRIDGE);
    for (link, index) in [(&bridge, 0), (&port, 1)] {
        assert_eq!(link["address"], result["interfaces"][index]["mac"]);
        assert!(link["flags"].as_array().unwrap().contains(&json!("UP")));
    }
    assert_eq!(links(pod.namespace()), ["lo", "eth0"]);
}

#[test]
fn a_new_bridge_listens_to_no_router_advertisements() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let _pod = node.add_pod("pod");
    let key = format!("net/ipv6/conf/{BRIDGE}/accept_ra");
    assert_eq!(sysctl(node.netns(), &key), "0");
}

#[test]
fn a_bridge_that_is_there_stays_the_same_and_comes_up() {
    let (_topology, node) = one_node();
    run_ip(
        node.netns(),
        &[&format!("link add {BRIDGE} mtu 1444 type bridge")],
    );
    let before = link(node.netns(), BRIDGE);
    let _pod = node.add_pod("pod");
    let after = link(node.netns(), BRIDGE);
    for key in ["ifindex", "address"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert!(after["flags"].as_array().unwrap().contains(&json!("UP")));
}

#[test]
fn the_mtu_is_that_of_both_ends_and_of_a_new_bridge() {
    let (_topology, node) = one_node();
    configure(&node, |plugin| plugin["mtu"] = json!(1400));
    let pod = node.add_pod("pod");
    let port = interface(pod.result(), 1);
    let mtus = [
        link(node.netns(), BRIDGE)["mtu"].clone(),
        link(node.netns(), port)["mtu"].clone(),
        link(pod.namespace(), "eth0")["mtu"].clone(),
    ];
    assert_eq!(mtus, [1400, 1400, 1400].map(|mtu| json!(mtu)));
}

#[test]
fn an_mtu_that_no_interface_can_have_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for mtu in [-1, 1, 67, 65536] {
        let config = node.config().with(|plugin| plugin["mtu"] = json!(mtu));
        let message = refused(&node, &attachment, &config.stdin().to_string(), &[7]);
        assert!(message.contains(&format!("mtu {mtu}")), "{message}");
    }
}

#[test]
fn promisc_mode_makes_a_new_and_an_old_bridge_promiscuous() {
    for is_there in [false, true] {
        let (_topology, node) = one_node();
        if is_there {
            run_ip(node.netns(), &[&format!("link add {BRIDGE} type bridge")]);
        }
        configure(&node, |plugin| plugin["promiscMode"] = json!(true));
        let pod = node.add_pod("pod");
        let flags = link(node.netns(), BRIDGE)["flags"].clone();
        assert!(
            flags.as_array().unwrap().contains(&json!("PROMISC")),
            "{flags}"
        );
        pod.check().expect("executed").expect_success();
        run_ip(node.netns(), &[&format!("link set {BRIDGE} promisc off")]);
        let message = pod.check().expect("executed").expect_error(&[999]);
        assert!(message.contains("promiscMode"), "{message}");
    }
}

#[test]
fn check_does_not_mind_that_somebody_watches_the_bridge() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    run_ip(node.netns(), &[&format!("link set {BRIDGE} promisc on")]);
    pod.check().expect("executed").expect_success();
}

#[test]
fn a_disabled_container_interface_stays_down_and_nobody_waits_for_it() {
    let (_topology, node) = one_node();
    let (namespace, attachment) = sandbox(&node);
    let mut stdin = layer_2(&node);
    stdin["disableContainerInterface"] = json!(true);
    let mut result = call(&node, "ADD", &attachment, &stdin).expect_success();
    let eth0 = link(&namespace, "eth0");
    assert_eq!(eth0["operstate"], "DOWN", "{eth0}");
    assert!(
        !eth0["flags"].as_array().unwrap().contains(&json!("UP")),
        "{eth0}"
    );
    assert_eq!(result.get("ips"), None);
    // Whoever waited for the port would have failed.
    let port = link(node.netns(), interface(&result, 1));
    assert_ne!(port["operstate"], "UP", "{port}");
    stdin["prevResult"] = result.take();
    call(&node, "CHECK", &attachment, &stdin).expect_success();
    call(&node, "DEL", &attachment, &stdin).expect_success();
    assert_eq!(links(&namespace), ["lo"]);
}

#[test]
fn a_disabled_container_interface_with_addresses_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let config = node.config();
    let config = config.with(|plugin| plugin["disableContainerInterface"] = json!(true));
    let message = refused(&node, &attachment, &config.stdin().to_string(), &[7]);
    let words = "cannot use IPAM when DisableContainerInterface flag is set";
    assert!(message.contains(words), "{message}");
}

#[test]
fn without_ipam_the_interface_is_up_and_has_no_address() {
    let (_topology, node) = one_node();
    let (namespace, attachment) = sandbox(&node);
    let mut stdin = layer_2(&node);
    let before = Snapshot::of(&node);
    let result = call(&node, "ADD", &attachment, &stdin).expect_success();
    assert_eq!(link(&namespace, "eth0")["operstate"], "UP");
    assert_eq!(addresses(&namespace, "eth0"), [] as [&str; 0]);
    assert!(result.get("ips").is_none() && result.get("routes").is_none());
    stdin["prevResult"] = result;
    call(&node, "CHECK", &attachment, &stdin).expect_success();
    call(&node, "DEL", &attachment, &stdin).expect_success();
    let left = before.diff(&Snapshot::of(&node));
    assert!(!left.contains("veth"), "{left}");
}

#[test]
fn duplicates_are_looked_for_only_if_that_is_wanted_and_no_address_is_tentative_after_add() {
    for wanted in [false, true] {
        let (_topology, [node]) = nodes_with(Families::Dual);
        configure(&node, |plugin| plugin["enabledad"] = json!(wanted));
        let pod = node.add_pod("pod");
        let found = ip(
            pod.namespace(),
            &["address", "show", "dev", "eth0", "scope", "global"],
        );
        let all = found[0]["addr_info"].as_array().expect("addresses");
        let of_v6 = |address: &&serde_json::Value| address["family"] == "inet6";
        let address = all.iter().find(of_v6).expect("an IPv6 address");
        assert_ne!(address["tentative"], true, "{address}");
        // Of the two only an address that was looked for is not marked as one that was not.
        assert_eq!(address["nodad"] == true, !wanted, "{address}");
        let key = |name: &str| format!("net/ipv6/conf/eth0/{name}");
        let accept_dad = sysctl(pod.namespace(), &key("accept_dad"));
        assert_eq!(accept_dad, if wanted { "1" } else { "0" });
        assert_eq!(sysctl(pod.namespace(), &key("enhanced_dad")), "1");
    }
}

#[test]
fn a_namespace_without_ipv6_gets_it_and_keeps_its_addresses_when_the_interface_goes_down() {
    let (_topology, [node]) = nodes_with(Families::V6);
    let (namespace, attachment) = sandbox(&node);
    let key = |interface: &str, name: &str| format!("net/ipv6/conf/{interface}/{name}");
    assert_eq!(sysctl(&namespace, &key("lo", "disable_ipv6")), "1");
    let stdin = node.config().stdin();
    call(&node, "ADD", &attachment, &stdin).expect_success();
    for interface in ["lo", "eth0"] {
        assert_eq!(sysctl(&namespace, &key(interface, "disable_ipv6")), "0");
    }
    assert_eq!(sysctl(&namespace, &key("eth0", "keep_addr_on_down")), "1");
    let before = addresses(&namespace, "eth0");
    run_ip(&namespace, &["link set eth0 down", "link set eth0 up"]);
    assert_eq!(addresses(&namespace, "eth0"), before);
    assert_eq!(before.len(), 1);
    call(&node, "DEL", &attachment, &stdin).expect_success();
}

#[test]
fn others_are_told_of_the_addresses_when_the_interface_comes_up() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let pod = node.add_pod("pod");
    let keys = [
        "net/ipv4/conf/eth0/arp_notify",
        "net/ipv6/conf/eth0/ndisc_notify",
    ];
    assert_eq!(keys.map(|key| sysctl(pod.namespace(), key)), ["1", "1"]);
}
