//! From the reference `bridge` plugin, and from flannel's host-gw backend, to beeline and back, as the README says.

mod flannel;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use beeline_tests::config::{Config, NETWORK};
use beeline_tests::datapath::{FROM_UPLINK, TO_PEER, TO_POD, growth};
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::services::Protocol;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::steady::{self, Tally};
use beeline_tests::topology::{OUTSIDE, Topology};
use beeline_tests::traffic::tcp_echo_by;
use beeline_tests::{cli, exec, netns};
use serde_json::{Value, json};

use crate::adopt::{adopt, remember};
use crate::fixture::{fast_node, fast_pair};

fn portmap() -> Value {
    json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } })
}

/// The node's list with the reference plugin, as it was before the migration and after the way back.
#[track_caller]
fn use_bridge(node: &Node) {
    let config = Config::reference(node).chain(portmap());
    config.install().expect("install");
}

/// The same with `"type": "bridge"` changed to beeline, and its own object added.
#[track_caller]
fn use_beeline(node: &Node) {
    node.config().chain(portmap()).install().expect("install");
}

/// A pod behind a port of the node.
fn add_with_port(node: &Arc<Node>, name: &str, port: u16) -> Pod {
    let mapping =
        json!({ "hostPort": port, "containerPort": 80, "protocol": Protocol::Tcp.name() });
    let pod = node.add_pod_with(name, json!({ "portMappings": [mapping] }));
    remember(node, &pod);
    pod
}

/// Has the pod asked from outside of the cluster by the node's port.
#[track_caller]
fn assert_port_open(topology: &Topology, pod: &Pod, port: u16) {
    let listening = || std::net::TcpListener::bind((pod.ip(), 80));
    let listener = pod.namespace().within(listening).expect("listen");
    let by = (pod.node().address(), port).into();
    tcp_echo_by(topology.outside(), &listener, by, b"hello").expect("by the node's port");
}

fn run(node: &Node, command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    exec::stdout(node.netns().command(program).args(words)).expect(command)
}

/// Chains that the reference plugin masquerades a pod in, and portmap's for one.
fn chains_of_pods(node: &Node) -> Vec<String> {
    let saved = run(node, "iptables-save -t nat");
    let chains = saved.lines().filter_map(|line| line.strip_prefix(":CNI-"));
    let shared = |chain: &&str| chain.starts_with("HOSTPORT");
    chains
        .filter(|chain| !shared(chain))
        .map(str::to_owned)
        .collect()
}

/// Both pods reach each other, by a way that the counter stands for.
#[track_caller]
fn assert_fast(one: &Pod, other: &Pod, counter: &str) {
    let node = one.node();
    let before = node.counters().expect("counters");
    one.ping(other.ip(), 3).assert_received();
    let grown = growth(&before, &node.counters().expect("counters"));
    let packets = grown.get(counter).copied().unwrap_or_default();
    assert!(packets >= 3, "{counter}: {grown:?}");
}

/// Each of the pods reaches the outside, each other and itself.
#[track_caller]
fn assert_all_reached(pods: &[&Pod]) {
    for pod in pods {
        pod.ping(OUTSIDE, 1).assert_received();
        for other in pods {
            pod.ping(other.ip(), 1).assert_received();
        }
    }
}

#[test]
fn pods_of_the_bridge_plugin_go_on_and_are_deleted_by_beeline_without_a_trace() {
    let (topology, node) = fast_node();
    use_bridge(&node);
    let (one, two) = (node.add_pod("one"), add_with_port(&node, "two", 8080));
    remember(&node, &one);
    let bridge = run(&node, "ip link show v-net-0");

    use_beeline(&node);
    let new = add_with_port(&node, "new", 8081);
    assert_all_reached(&[&one, &two, &new]);
    assert_port_open(&topology, &two, 8080);
    assert_port_open(&topology, &new, 8081);
    let kept = bridge.split(':').next().expect("an index");
    assert!(run(&node, "ip link show v-net-0").starts_with(kept));

    adopt(&node);
    assert_fast(&one, &new, TO_POD);
    assert_port_open(&topology, &two, 8080);
    assert_eq!(
        chains_of_pods(&node).len(),
        4,
        "{:?}",
        chains_of_pods(&node)
    );

    // One that was adopted, and one whose namespace is gone.
    one.delete().expect("DEL");
    let mut two = two;
    netns::remove(two.namespace().name()).expect("remove");
    two.detach().expect("executed").expect_success();
    assert_eq!(node.reserved(), [new.ip()]);
    let [left] = &chains_of_pods(&node)[..] else {
        panic!("{:?}", chains_of_pods(&node));
    };
    assert!(left.starts_with("DN-"), "the new pod's port: {left}");
    assert_port_open(&topology, &new, 8081);
}

#[test]
fn a_pod_that_was_never_adopted_is_deleted_without_a_trace() {
    let (_topology, node) = fast_node();
    use_bridge(&node);
    let former = node.add_pod("former");
    use_beeline(&node);
    let _new = node.add_pod("new");
    assert_eq!(chains_of_pods(&node).len(), 1);
    for gone in [false, true] {
        use_bridge(&node);
        let mut old = node.add_pod("old");
        use_beeline(&node);
        if gone {
            netns::remove(old.namespace().name()).expect("remove");
        }
        for _ in 0..2 {
            old.detach().expect("executed").expect_success();
        }
        assert_eq!(chains_of_pods(&node).len(), 1, "the former pod's");
        assert!(!node.reserved().contains(&old.ip()));
    }
    former.delete().expect("DEL");
    assert_eq!(chains_of_pods(&node), Vec::<String>::new());
}

#[test]
fn gc_clears_what_pods_of_the_bridge_plugin_left() {
    let (_topology, node) = fast_node();
    use_bridge(&node);
    let (stale, kept) = (node.add_pod("stale"), node.add_pod("kept"));
    netns::remove(stale.namespace().name()).expect("remove");
    node.config().version("1.1.0").install().expect("install");
    let new = node.add_pod("new");
    let listed = [kept.attachment(), new.attachment()];
    let collected = node.runtime().gc(&listed).expect("executed");
    collected.expect_success();
    let mut reserved = node.reserved();
    reserved.sort();
    assert_eq!(reserved, [kept.ip(), new.ip()]);
    assert_eq!(
        chains_of_pods(&node).len(),
        1,
        "{:?}",
        chains_of_pods(&node)
    );
    kept.ping(OUTSIDE, 1).assert_received();
    kept.ping(new.ip(), 1).assert_received();
}

#[test]
fn pods_of_beeline_go_on_under_the_bridge_plugin_which_deletes_them() {
    let (topology, node) = fast_node();
    use_beeline(&node);
    let (one, two) = (node.add_pod("one"), add_with_port(&node, "two", 8080));
    assert_fast(&one, &two, TO_POD);

    let (_, tallies) = steady::during(&[(&one, &two)], || {
        cli::unload(&node).expect("unload");
        use_bridge(&node);
    })
    .expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    let new = add_with_port(&node, "new", 8081);
    assert_all_reached(&[&one, &two, &new]);
    assert_port_open(&topology, &two, 8080);
    assert_port_open(&topology, &new, 8081);

    delete_by_bridge(one);
    delete_by_bridge(two);
    assert_eq!(node.reserved(), [new.ip()]);
    // An address that beeline knew may be another pod's by now.
    let next = node.add_pod("next");
    next.ping(new.ip(), 1).assert_received();
    clean(&node);
    for pod in [&new, &next] {
        pod.ping(OUTSIDE, 1).assert_received();
    }
    new.ping(next.ip(), 1).assert_received();
    assert_port_open(&topology, &new, 8081);
}

/// Deletes a pod of beeline's with the reference plugin, as a runtime does: again, where that fails. Debian's 1.1.1 looks
/// for its own masquerading, which this pod has none of, and takes iptables' answer on nf_tables for a failure.
#[track_caller]
fn delete_by_bridge(mut pod: Pod) {
    let first = pod.detach().expect("executed");
    assert!(
        first.is_success() || first.stdout.to_string().contains("does not exist"),
        "{first}"
    );
    pod.detach().expect("executed").expect_success();
    let links = exec::stdout(pod.namespace().command("ip").args(["-o", "link"])).expect("ip");
    assert_eq!(links.lines().count(), 1, "{links}");
}

/// What the README says removes beeline from a node that has gone back, once its own pods are gone.
#[track_caller]
fn clean(node: &Node) {
    run(node, "ip route flush proto 190");
    run(node, &format!("nft delete table inet beeline-{NETWORK}"));
    fs::remove_dir_all(node.state_dir()).expect("remove");
    let _ = fs::remove_dir_all(node.bpffs_dir().join("beeline"));
    let left = Snapshot::of(node);
    assert_eq!(left.lines("pin"), Vec::<&str>::new());
    let rules = left.lines("nft");
    let ours: Vec<_> = rules
        .iter()
        .filter(|rule| rule.contains("beeline"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert_eq!(run(node, "ip link show type vxlan"), "");
}

/// Pods talk while one node after the other goes over to beeline; then the same way back.
#[test]
fn nodes_leave_flannel_one_by_one_and_come_back_and_pods_talk_all_the_while() {
    let (_topology, [a, b]) = fast_pair();
    for node in [&a, &b] {
        flannel::install(node);
    }
    let pods = [(&a, "one"), (&a, "two"), (&b, "three"), (&b, "four")];
    let [one, two, three, four] = pods.map(|(node, name)| {
        let pod = node.add_pod(name);
        remember(node, &pod);
        pod
    });
    let pairs = [(&one, &two), (&one, &three), (&four, &two), (&three, &four)];

    let (_, tallies) = steady::during(&pairs, || flannel::replace(&a)).expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    assert_fast(&one, &two, TO_POD);
    assert_fast(&one, &three, TO_PEER);
    let new = a.add_pod("new");
    for other in [&one, &three] {
        new.ping(other.ip(), 2).assert_received();
        other.ping(new.ip(), 2).assert_received();
    }
    new.ping(OUTSIDE, 1).assert_received();

    let (_, tallies) = steady::during(&pairs, || {
        flannel::replace(&b);
        flannel::remove_rules(&a);
        flannel::remove_rules(&b);
    })
    .expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    assert_fast(&one, &three, FROM_UPLINK);
    assert_fast(&three, &new, TO_PEER);
    for pod in [&one, &two, &three, &four, &new] {
        pod.ping(OUTSIDE, 1).assert_received();
    }

    // And back: the routes are flanneld's again as soon as it runs.
    let (_, tallies) = steady::during(&pairs, || {
        cli::unload(&a).expect("unload");
        flannel::install(&a);
    })
    .expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    let late = a.add_pod("late");
    for other in [&one, &three, &new] {
        late.ping(other.ip(), 2).assert_received();
        other.ping(late.ip(), 2).assert_received();
    }
    clean(&a);
    for pod in [&one, &new, &late] {
        pod.ping(three.ip(), 1).assert_received();
        pod.ping(OUTSIDE, 1).assert_received();
    }
    new.delete().expect("DEL");
    assert!(!Path::new(&a.state_dir()).exists());
}
