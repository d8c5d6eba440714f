//! Taking beeline off a node by the agent's `uninstall`.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beeline_tests::config::{CONFLIST, NETWORK};
use beeline_tests::exec;
use beeline_tests::node::{BRIDGE, Node};
use beeline_tests::snapshot::Snapshot;
use beeline_tests::sweep;
use serde_json::json;

use crate::agent::process as agent;
use crate::fixture::{configure, fast_nodes, fast_pair};
use beeline_tests::plan::Families;
use beeline_tests::wait;

fn bin_dir(node: &Node) -> PathBuf {
    node.directory().join("opt-cni-bin")
}

fn run(node: &Node, arguments: &[&str]) -> Output {
    let mut command = node.netns().command(agent::binary());
    command.args(arguments).arg("--bin-dir").arg(bin_dir(node));
    exec::output(&mut command, b"").expect("the agent; `cargo xtask build` builds it")
}

/// Installs the plugin where the agent removes it from.
#[track_caller]
fn install(node: &Node) {
    let plugin = node.plugin().path().display().to_string();
    let output = run(node, &["install", "--plugin", &plugin]);
    assert!(output.status.success(), "{output:?}");
    assert!(bin_dir(node).join("beeline").exists());
}

/// Uninstalls; returns what it said.
#[track_caller]
fn uninstall(node: &Node) -> String {
    let conf_dir = node.conf_dir().display().to_string();
    let template = node.directory().join("template").display().to_string();
    let directories = ["--conf-dir", &conf_dir, "--template", &template];
    let output = run(node, &[&["uninstall"][..], &directories].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// What the agent is configured with on any node, by which it knows what to remove when the conflist is gone.
fn keep_template(node: &Node) {
    let template = node.config().conflist().to_string();
    fs::write(node.directory().join("template"), template).expect("write");
}

/// Has the node forward, as a gateway does.
pub(crate) fn forward(node: &Node) {
    for family in node.pod_cidrs() {
        let family = if family.is_ipv4() { "ipv4" } else { "ipv6" };
        let script = format!("echo 1 >/proc/sys/net/{family}/conf/all/forwarding");
        exec::stdout(node.netns().command("sh").args(["-c", &script])).expect("sysctl");
    }
}

/// What `watch` holds until it sees that the network is gone.
fn wait_until_unchanged(before: &Snapshot, node: &Node) {
    let deadline = wait::deadline(Duration::from_secs(5));
    while Instant::now() < deadline && !before.diff(&Snapshot::of(node)).is_empty() {
        std::thread::sleep(Duration::from_millis(50));
    }
    before.assert_unchanged(node);
}

fn files(node: &Node) -> Vec<PathBuf> {
    [
        node.state_dir(),
        node.data_dir(),
        bin_dir(node),
        node.conf_dir(),
    ]
    .iter()
    .flat_map(|directory| sweep::walk(directory))
    .collect()
}

fn assert_clean_after_pods(nodes: [Arc<Node>; 2]) {
    let [a, b] = nodes;
    // Forwarding stays, as others may need it by now; an address more is a sign of it.
    forward(&a);
    let before = Snapshot::of(&a);
    install(&a);
    keep_template(&a);
    let (near, far) = (a.add_pod("near"), b.add_pod("far"));
    near.ping(far.ip(), 1).assert_received();
    near.delete().expect("DEL");
    let leftover = a.conf_dir().join(format!(".{CONFLIST}.new"));
    fs::write(leftover, "{").expect("write");
    assert!(!before.diff(&Snapshot::of(&a)).is_empty());
    for _ in 0..2 {
        let said = uninstall(&a);
        assert!(!said.contains("stays"), "{said}");
    }
    wait_until_unchanged(&before, &a);
    assert_eq!(files(&a), Vec::<PathBuf>::new());
}

#[test]
fn a_node_whose_pods_are_gone_is_as_it_was_before_beeline() {
    let (_topology, nodes) = fast_pair();
    assert_clean_after_pods(nodes);
}

#[test]
fn a_node_with_an_overlay_and_both_families_is_as_it_was_before_beeline() {
    let (_topology, nodes) = fast_nodes(Families::Dual);
    for node in &nodes {
        configure(node, |plugin| {
            plugin["datapath"]["overlay"] = json!({ "type": "vxlan", "always": true });
        });
    }
    assert_clean_after_pods(nodes);
}

#[test]
fn pods_that_still_run_go_on_by_the_bridge_and_can_be_deleted_and_what_stays_is_told() {
    let (_topology, [a, b]) = fast_pair();
    forward(&a);
    let before = Snapshot::of(&a);
    install(&a);
    keep_template(&a);
    let (one, two, far) = (a.add_pod("one"), a.add_pod("two"), b.add_pod("far"));
    let said = uninstall(&a);
    for stays in [
        format!("ip link delete {BRIDGE}"),
        "ip route flush proto 190".to_owned(),
        format!("nft delete table inet beeline-{NETWORK}"),
        format!("rm -r {}", a.state_dir().join(NETWORK).display()),
        format!("rm {}", bin_dir(&a).join("beeline").display()),
    ] {
        assert!(said.contains(&stays), "{stays}: {said}");
    }
    assert!(!a.conf_dir().join(CONFLIST).exists());
    assert_eq!(Snapshot::of(&a).lines("pin"), Vec::<&str>::new());
    one.ping(two.ip(), 1).assert_received();
    one.ping(far.ip(), 1).assert_received();
    far.ping(two.ip(), 1).assert_received();
    // The runtime deletes them by what it remembers of their network.
    a.config().install().expect("install");
    for pod in [one, two] {
        pod.delete().expect("DEL");
    }
    let said = uninstall(&a);
    assert!(!said.contains("stays"), "{said}");
    wait_until_unchanged(&before, &a);
    assert_eq!(files(&a), Vec::<PathBuf>::new());
}

#[test]
fn after_an_uninstallation_with_pods_left_beeline_can_come_back_and_takes_them_onto_the_fast_path()
{
    let (_topology, [a, b]) = fast_pair();
    install(&a);
    keep_template(&a);
    let (one, far) = (a.add_pod("one"), b.add_pod("far"));
    uninstall(&a);
    install(&a);
    a.config().install().expect("install");
    let two = a.add_pod("two");
    let counted = a.counters().expect("counters");
    one.ping(two.ip(), 2).assert_received();
    one.ping(far.ip(), 2).assert_received();
    let grown = beeline_tests::datapath::growth(&counted, &a.counters().expect("counters"));
    for path in ["from_pod/to_pod", "from_pod/to_peer"] {
        assert!(grown.contains_key(path), "{path}: {grown:?}");
    }
}

#[test]
fn a_bridge_that_others_use_stays_and_is_named() {
    let (_topology, [a, _b]) = fast_pair();
    install(&a);
    keep_template(&a);
    a.add_pod("one").delete().expect("DEL");
    let ip = |arguments: &str| {
        let mut command = a.netns().command("ip");
        exec::stdout(command.args(arguments.split(' '))).expect("ip")
    };
    ip("link add others type veth peer name inside");
    ip(&format!("link set others master {BRIDGE}"));
    let said = uninstall(&a);
    assert!(said.contains("has ports, such as others"), "{said}");
    assert!(ip("link show").contains(BRIDGE));
    ip("link delete others");
    let said = uninstall(&a);
    assert!(!said.contains("stays"), "{said}");
    assert!(!ip("link show").contains(BRIDGE));
}
