//! ADD, CHECK, DEL and GC over the life of pods.

use std::fs;
use std::time::Duration;

use beeline_tests::node::Node;
use beeline_tests::outcome::Outcome;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::fixture::{one_node, two_nodes};

#[test]
fn a_pod_is_added_checked_and_deleted() {
    let (_topology, node) = one_node();
    let mut pod = node.add_pod("pod");
    pod.check().expect("executed").expect_success();
    pod.detach().expect("executed").expect_success();
    assert!(
        node.reserved().is_empty(),
        "addresses are still reserved: {:?}",
        node.reserved()
    );
    let links = pod
        .namespace()
        .within(|| fs::read_to_string("/proc/thread-self/net/dev").expect("links"));
    assert!(!links.contains("eth0"), "{links}");
}

#[test]
fn check_fails_when_the_pods_interface_is_gone() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    beeline_tests::exec::ip_batch(pod.namespace(), &["link del eth0".to_owned()]).expect("ip");
    assert!(!pod.check().expect("executed").is_success());
}

#[test]
fn deleting_three_times_succeeds_three_times() {
    let (_topology, node) = one_node();
    let mut pod = node.add_pod("pod");
    for _ in 0..3 {
        pod.detach().expect("executed").expect_success();
    }
}

#[test]
fn deleting_what_was_never_added_succeeds() {
    let (_topology, node) = one_node();
    let before = Snapshot::of(&node);
    let netns = "/run/netns/bl-never-there";
    let never = Attachment::new("never", netns);
    node.runtime()
        .del(&never, None)
        .expect("executed")
        .expect_success();
    before.assert_unchanged(&node);
}

#[test]
fn a_second_pods_life_leaves_the_node_as_it_was() {
    let (_topology, [node, other]) = two_nodes();
    let (first, far) = (node.add_pod("first"), other.add_pod("far"));
    let before = Snapshot::of(&node);
    let second = node.add_pod("second");
    second.ping(first.ip(), 1).assert_received();
    second.ping(far.ip(), 1).assert_received();
    second.delete().expect("DEL");
    before.assert_unchanged(&node);
    first.ping(far.ip(), 1).assert_received();
}

#[test]
fn deleting_after_the_namespace_is_gone_leaves_nothing() {
    let (_topology, node) = one_node();
    let _first = node.add_pod("first");
    let before = Snapshot::of(&node);
    let mut second = node.add_pod("second");
    beeline_tests::netns::remove(second.namespace().name()).expect("remove");
    second.detach().expect("executed").expect_success();
    // The pod holds a descriptor; only without it the kernel removes the veth, if the plugin has not.
    drop(second);
    let gone = || before.diff(&Snapshot::of(&node)).is_empty();
    let _ = (0..50).find(|_| {
        gone() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }
    });
    before.assert_unchanged(&node);
}

#[test]
fn adding_twice_fails_and_the_pod_goes_on_working() {
    let (_topology, node) = one_node();
    let (pod, other) = (node.add_pod("pod"), node.add_pod("other"));
    let before = Snapshot::of(&node);
    let outcome = node.runtime().add(pod.attachment()).expect("executed");
    assert!(!outcome.is_success(), "{outcome}");
    before.assert_unchanged(&node);
    pod.ping(other.ip(), 2).assert_received();
    pod.check().expect("executed").expect_success();
}

#[test]
fn a_released_address_is_not_given_out_at_once() {
    let (_topology, node) = one_node();
    let first = node.add_pod("first");
    let ip = first.ip();
    first.delete().expect("DEL");
    assert_ne!(node.add_pod("second").ip(), ip);
}

#[test]
fn a_dozen_pods_may_be_added_at_once() {
    let (_topology, node) = one_node();
    let pods: Vec<_> = std::thread::scope(|scope| {
        let add = |index| {
            let node = &node;
            scope.spawn(move || node.add_pod(&format!("pod{index}")))
        };
        let adding: Vec<_> = (0..12).map(add).collect();
        adding
            .into_iter()
            .map(|thread| thread.join().expect("ADD"))
            .collect()
    });
    let mut addresses: Vec<_> = pods.iter().map(|pod| pod.ip()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 12, "each has its own address");
    pods[0].ping(pods[11].ip(), 1).assert_received();
}

#[test]
fn dns_of_the_configuration_replaces_all_that_ipam_says() {
    let (_topology, node) = one_node();
    let resolv_conf = node.directory().join("resolv.conf");
    fs::write(
        &resolv_conf,
        "nameserver 192.0.2.1\ndomain ipam.example\nsearch ipam.example\noptions ndots:2\n",
    )
    .expect("write");
    let config = node
        .config()
        .with(|plugin| plugin["ipam"]["resolvConf"] = json!(resolv_conf));
    config.install().expect("install");
    let from_ipam = json!({
        "nameservers": ["192.0.2.1"], "domain": "ipam.example", "search": ["ipam.example"],
        "options": ["ndots:2"],
    });
    assert_eq!(node.add_pod("ipam").result()["dns"], from_ipam);
    // Nothing of IPAM's is left, though this says less.
    let own = json!({ "nameservers": ["198.51.100.1"] });
    let config = config.with(|plugin| plugin["dns"] = own.clone());
    config.install().expect("install");
    assert_eq!(node.add_pod("own").result()["dns"], own);
    let config = config.with(|plugin| plugin["dns"] = json!({ "nameservers": [], "domain": "" }));
    config.install().expect("install");
    assert_eq!(node.add_pod("empty").result()["dns"], from_ipam);
}

/// GC as a runtime asks for it, with this value of the list; without the key if there is none.
fn gc(node: &Node, valid: Option<Value>) -> Outcome {
    let path = node.conf_dir().join(beeline_tests::config::CONFLIST);
    let list: Value = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
    let mut stdin = list["plugins"][0].clone();
    stdin["cniVersion"] = list["cniVersion"].clone();
    stdin["name"] = list["name"].clone();
    if let Some(valid) = valid {
        stdin["cni.dev/valid-attachments"] = valid;
    }
    let search = node.plugin().search_path();
    let environment = [("CNI_COMMAND", "GC"), ("CNI_PATH", &*search)];
    let stdin = stdin.to_string();
    let outcome = node
        .runtime()
        .exec(node.plugin().path(), &environment, stdin.as_bytes());
    outcome.expect("executed")
}

#[test]
fn gc_of_an_empty_list_or_null_clears_all_with_its_rules_and_without_a_list_nothing() {
    let (_topology, node) = one_node();
    // Every pod has rules of its own: a check of its MAC, and masquerading of an address outside of the subnet. The
    // plugin that gives such an address does not speak 1.1.0, which brought GC.
    let add = || {
        let config = node.config().with(|plugin| {
            plugin["macspoofchk"] = json!(true);
            plugin["ipam"] = json!({
                "type": "static",
                "addresses": [{ "address": "10.77.0.2/24", "gateway": "10.77.0.1" }],
            });
        });
        config.install().expect("install");
        let pod = node.add_pod("pod");
        let config = node.config().version("1.1.0");
        config.install().expect("install");
        pod
    };
    add().delete().expect("DEL");
    let before = Snapshot::of(&node);
    for valid in [json!([]), Value::Null] {
        let pod = add();
        let during = Snapshot::of(&node);
        let diff = before.diff(&during);
        assert!(diff.contains("macspoofchk"), "{diff}");
        assert!(diff.contains("10.77.0.2"), "{diff}");
        let outcome = gc(&node, None);
        assert!(outcome.stderr.contains("valid-attachments"), "{outcome}");
        outcome.expect_success();
        during.assert_unchanged(&node);
        gc(&node, Some(valid)).expect_success();
        before.assert_unchanged(&node);
        // A DEL that comes all the same.
        pod.delete().expect("DEL");
        before.assert_unchanged(&node);
    }
}
