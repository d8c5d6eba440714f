//! An ADD puts right what others broke on the node since the last one.

use std::fs;

use aya::maps::{HashMap, Map, MapData};
use beeline_common::abi::{MAX_PODS, names};
use beeline_common::{Address, Mac, Port};
use beeline_tests::cli;
use beeline_tests::config::NETWORK;
use beeline_tests::datapath::growth;
use beeline_tests::exec;
use beeline_tests::node::{BRIDGE, Node};
use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::topology::OUTSIDE;
use serde_json::json;

use crate::fixture::{configure, fast_nodes, one_node, two_nodes};
use crate::refusals::sandbox;

fn run(node: &Node, arguments: &[&str]) {
    exec::stdout(node.netns().command(arguments[0]).args(&arguments[1..])).expect("command");
}

#[test]
fn masquerade_comes_back_after_a_flush_of_the_ruleset() {
    let (_topology, node) = one_node();
    let first = node.add_pod("first");
    run(&node, &["nft", "flush", "ruleset"]);
    assert_eq!(first.ping(OUTSIDE, 1).received(), 0);
    let _second = node.add_pod("second");
    first.ping(OUTSIDE, 1).assert_received();
}

#[test]
fn routes_to_peers_come_back_after_the_uplink_went_down() {
    let (_topology, [node, _other]) = two_nodes();
    let _first = node.add_pod("first");
    let before = Snapshot::of(&node);
    run(&node, &["ip", "link", "set", "eth0", "down"]);
    run(&node, &["ip", "link", "set", "eth0", "up"]);
    let lost = before.diff(&Snapshot::of(&node));
    assert!(lost.contains("- route 10.244.2.0/24"), "{lost}");
    node.add_pod("second").delete().expect("DEL");
    let missing = before.diff(&Snapshot::of(&node));
    assert!(!missing.contains("10.244.2.0/24"), "{missing}");
}

#[test]
fn forwarding_comes_back_after_it_was_turned_off() {
    let (_topology, node) = one_node();
    let _first = node.add_pod("first");
    node.netns()
        .write_sysctl("net/ipv4/ip_forward", "0")
        .expect("sysctl");
    let second = node.add_pod("second");
    second.ping(OUTSIDE, 1).assert_received();
}

#[test]
fn the_datapath_is_loaded_again_after_its_pins_were_removed() {
    let (_topology, [node, other]) = fast_nodes(Families::V4);
    let (_first, far) = (node.add_pod("first"), other.add_pod("far"));
    // The file system has no files other than pins, and directories of them.
    fs::remove_dir_all(node.bpffs_dir()).expect("remove pins");
    let (second, third) = (node.add_pod("second"), node.add_pod("third"));
    second.ping(far.ip(), 3).assert_received();
    second.ping(third.ip(), 3).assert_received();
    let counters = node.counters().expect("counters");
    for counter in ["from_pod/to_pod", "from_pod/to_peer", "from_uplink/to_pod"] {
        assert!(counters[counter] >= 2, "{counter}: {counters:?}");
    }
}

#[test]
fn filters_whose_pins_were_removed_are_exchanged() {
    let (_topology, [node, other]) = two_nodes();
    configure(&node, |plugin| {
        plugin["datapath"]["attach"] = json!("clsact")
    });
    let (first, far) = (node.add_pod("first"), other.add_pod("far"));
    fs::remove_dir_all(node.bpffs_dir()).expect("remove pins");
    let second = node.add_pod("second");
    assert_eq!(second.add_stderr(), "");
    assert_eq!(fast(&node, &second, &first), ["from_pod/to_pod"]);
    let there = ["from_pod/to_peer", "from_uplink/to_pod"];
    assert_eq!(fast(&node, &second, &far), there);
}

#[test]
fn a_problem_that_stays_is_said_once_and_a_peer_that_appears_is_used() {
    let (_topology, node) = one_node();
    let peers = json!([{ "cidr": "10.244.9.0/24", "node": "198.18.0.9" }]);
    node.config()
        .with(|plugin| plugin["datapath"]["peers"] = peers)
        .install()
        .expect("install");
    // The default route leads there, but through a router.
    let first = node.add_pod("first");
    assert!(
        first.add_stderr().contains("198.18.0.9"),
        "{}",
        first.add_stderr()
    );
    let second = node.add_pod("second");
    assert_eq!(second.add_stderr(), "");

    run(
        &node,
        &["ip", "address", "add", "198.18.0.1/24", "dev", "eth0"],
    );
    let third = node.add_pod("third");
    assert_eq!(third.add_stderr(), "");
    let routes = exec::stdout(node.netns().command("ip").args(["route"])).expect("routes");
    assert!(routes.contains("10.244.9.0/24 via 198.18.0.9"), "{routes}");
}

/// Which counters of the fast path grow while the pods ping each other.
pub(crate) fn fast(node: &Node, from: &Pod, to: &Pod) -> Vec<String> {
    let before = node.counters().expect("counters");
    from.ping(to.ip(), 5).assert_received();
    let grown = growth(&before, &node.counters().expect("counters"));
    let fast = |(name, packets): &(String, u64)| !name.contains("/pass_") && *packets >= 5;
    grown
        .into_iter()
        .filter(fast)
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn the_fast_path_comes_back_after_the_bridge_was_deleted_and_made_anew() {
    let (_topology, [node, other]) = two_nodes();
    let (former, far) = (node.add_pod("former"), other.add_pod("far"));
    run(&node, &["ip", "link", "del", BRIDGE]);
    // Its pods are on no bridge any more; that of the next pod is a new one.
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    for pod in [&one, &two] {
        pod.check().expect("executed").expect_success();
    }
    assert_eq!(fast(&node, &one, &two), ["from_pod/to_pod"]);
    assert_eq!(
        fast(&node, &one, &far),
        ["from_pod/to_peer", "from_uplink/to_pod"]
    );
    for pod in [former, one, two] {
        pod.delete().expect("DEL");
    }
}

#[test]
fn the_fast_path_comes_back_after_the_uplink_was_deleted_and_made_anew() {
    let (topology, [node, other]) = two_nodes();
    let (pod, far) = (node.add_pod("pod"), other.add_pod("far"));
    pod.ping(far.ip(), 1).assert_received();
    run(&node, &["ip", "link", "del", "eth0"]);
    let during = node.add_pod("during");
    assert!(
        during.add_stderr().contains("eth0"),
        "{}",
        during.add_stderr()
    );
    assert_eq!(fast(&node, &during, &pod), ["from_pod/to_pod"]);
    let name = node.netns().name();
    let switch = [
        format!("link add again type veth peer name eth0 netns {name}"),
        "link set again master switch up".to_owned(),
    ];
    exec::ip_batch(topology.switch(), &switch).expect("ip");
    let uplink = [
        "link set eth0 up".to_owned(),
        format!("address add {}/24 dev eth0", node.address()),
    ];
    exec::ip_batch(node.netns(), &uplink).expect("ip");
    let after = node.add_pod("after");
    assert_eq!(after.add_stderr(), "");
    for pod in [&pod, &during, &after] {
        assert_eq!(
            fast(&node, pod, &far),
            ["from_pod/to_peer", "from_uplink/to_pod"]
        );
    }
}

/// Fills a map with made-up entries, from what `key` makes of a number, until it takes no more.
fn fill<K: aya::Pod, V: aya::Pod>(node: &Node, name: &str, value: V, key: impl Fn(u32) -> K) {
    let version = beeline_common::ABI_VERSION;
    let pins = node.bpffs_dir().join("beeline").join(NETWORK);
    let data = MapData::from_pin(pins.join(format!("maps-{version}")).join(name)).expect(name);
    let mut map = HashMap::<_, K, V>::try_from(Map::HashMap(data)).expect(name);
    let full = (1..=2 * MAX_PODS).any(|number| map.insert(key(number), value, 0).is_err());
    assert!(full, "{name} holds more than is asked of it");
}

/// Fills the map of pods, or that of their ports.
fn fill_map(node: &Node, map: &str) {
    let (ifindex, mac) = (1 << 20, Mac([2; 6]));
    if map == names::PODS {
        let pod = beeline_common::Pod {
            ifindex,
            flags: 0,
            mac,
            gateway: mac,
        };
        let address = |number: u32| Address::from_v4((0x0b00_0000 + number).to_be_bytes());
        fill(node, map, pod, address);
    } else {
        let port = Port { mac, reserved: 0 };
        fill(node, map, port, |number| ifindex + number);
    }
}

#[test]
fn pods_that_no_map_has_room_for_take_the_slow_path_and_say_so() {
    for map in [names::PODS, names::PORTS] {
        let (_topology, node) = one_node();
        let first = node.add_pod("first");
        fill_map(&node, map);
        let before = Snapshot::of(&node);
        let second = node.add_pod("second");
        let (_, why) = cli::path(&node, &second).expect("status");
        let why = why.expect("a reason");
        assert!(why.contains(map), "{map}: {why}");
        first.ping(second.ip(), 2).assert_received();
        second.check().expect("executed").expect_success();
        let counters = node.counters().expect("counters");
        assert_eq!(counters["from_pod/to_pod"], 0, "{map}: one way is no way");
        second.delete().expect("DEL");
        before.assert_unchanged(&node);
    }
}

#[test]
fn mode_ebpf_refuses_pods_that_no_map_has_room_for_without_a_trace() {
    for map in [names::PODS, names::PORTS] {
        let (_topology, node) = one_node();
        let config = node.config().mode("ebpf");
        config.install().expect("install");
        let _first = node.add_pod("first");
        fill_map(&node, map);
        let (_namespace, attachment) = sandbox(&node);
        let before = Snapshot::of(&node);
        let config = config.stdin().to_string();
        let outcome = node.runtime().call("ADD", &attachment, config.as_bytes());
        let message = outcome.expect("executed").expect_error(&[999]);
        assert!(message.contains(map), "{message}");
        before.assert_unchanged(&node);
    }
}
