//! `beeline status`.

use beeline::node::cluster::Cluster;
use beeline_tests::cluster;
use beeline_tests::exec;
use beeline_tests::kernel::has_tcx;
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use serde_json::{Value, json};

use crate::fixture::fast_nodes;

fn status(node: &Node, arguments: &[&str]) -> String {
    let mut status = node.netns().command(node.plugin().path());
    status
        .arg("status")
        .arg("--state-dir")
        .arg(node.state_dir());
    exec::stdout(status.args(arguments)).expect("status")
}

#[test]
fn status_shows_programs_maps_peers_and_what_each_pod_sent() {
    let (_topology, [a, b]) = fast_nodes(Families::V4);
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    client.ping(far.ip(), 3).assert_received();

    let by = if has_tcx() { "tcx" } else { "clsact" };
    let json: Value = serde_json::from_str(&status(&a, &["--output", "json"])).expect("JSON");
    let network = &json["networks"][0];
    let pod = &network["pods"][0];
    assert_eq!(pod["container_id"], client.name());
    assert_eq!(pod["path"], "fast");
    assert!(pod["sent"]["packets"].as_u64() >= Some(3), "{pod:#}");
    assert_eq!(network["peers"]["10.244.2.0/24"], b.address().to_string());
    let pinned = &network["pinned"];
    assert_eq!(pinned["monitored"], "no");
    let programs = pinned["programs"].as_array().expect("programs");
    let from_pod = programs
        .iter()
        .find(|program| program["name"] == "from_pod");
    let from_pod = from_pod.expect("from_pod");
    assert_eq!(from_pod["attached"][0]["interface"], pod["host_veth"]);
    assert_eq!(from_pod["attached"][0]["by"], by);
    assert_eq!(from_pod["attached"][0]["id"], from_pod["id"]);
    let maps = pinned["maps"].as_array().expect("maps");
    let held = |name: &str| {
        let map = maps.iter().find(|map| map["map"] == name);
        map.expect(name)["held"].as_u64()
    };
    assert_eq!((held("PODS"), held("PEERS")), (Some(1), Some(1)));
    let counted = &network["counters"]["from_pod/to_peer"]["packets"];
    assert!(counted.as_u64() >= Some(3), "{network:#}");

    let text = status(&a, &[]);
    for part in [
        "datapath ebpf  pods 1  peers 1",
        "  prog  from_pod ",
        &format!("eth0 ({by})"),
        "  map   PODS                 1 of 16384",
        "  count from_pod/to_peer ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn status_in_cluster_mode_shows_the_agent_and_what_it_knows() {
    let (_topology, [a, b]) = fast_nodes(Families::V4);
    let known = Cluster {
        problems: vec!["node c: has no pod CIDR".to_owned()],
        ..cluster::seen_by(&a, "kubernetes")
    };
    cluster::join(&a, &cluster::config(&a), &known).expect("join");
    let (peer, own) = (
        format!("node-{}", b.address()),
        format!("node-{}", a.address()),
    );
    let line = |agent| format!("  cluster kubernetes  node {own}  agent {agent}\n");
    let text = status(&a, &[]);
    for part in [
        "datapath ebpf  pods 0  peers 1",
        &line("not running"),
        "  problem: node c: has no pod CIDR\n",
        &format!("  peer  10.244.2.0/24      via {}  {peer}\n", b.address()),
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let json = || -> Value {
        let text = status(&a, &["--output", "json"]);
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        json["networks"][0]["cluster"].take()
    };
    let expected = |agent| {
        json!({
            "backend": "kubernetes", "node": own, "agent": agent,
            "names": {"10.244.2.0/24": peer}, "problems": ["node c: has no pod CIDR"],
        })
    };
    assert_eq!(json(), expected(false));
    let agent = cluster::agent(&a).expect("lock");
    assert!(status(&a, &[]).contains(&line("running")));
    assert_eq!(json(), expected(true));
    drop(agent);
    assert!(status(&a, &[]).contains(&line("not running")));
}

#[test]
fn status_of_a_node_without_networks_and_of_the_plain_bridge_says_so() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    assert!(status(&node, &[]).contains("no network was set up"));
    node.config().mode("bridge").install().expect("install");
    let _pod = node.add_pod("pod");
    let text = status(&node, &[]);
    assert!(text.contains("datapath bridge  pods 1  peers 0"), "{text}");
    assert!(!text.contains("prog"), "{text}");
}
