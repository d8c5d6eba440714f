//! ADD, CHECK, DEL, STATUS and GC over the life of pods.

use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;

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
        .within(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("links"));
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
            std::thread::sleep(std::time::Duration::from_millis(20));
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
fn status_is_good_until_addresses_run_out() {
    let (_topology, node) = one_node();
    let subnet = format!("{}/30", node.pod_cidr().network());
    let config = node
        .config()
        .version("1.1.0")
        .with(|plugin| plugin["ipam"]["subnet"] = subnet.into());
    config.install().expect("install");
    node.runtime().status().expect("executed").expect_success();
    let _only = node.add_pod("only");
    node.runtime()
        .status()
        .expect("executed")
        .expect_error(&[50]);
}

#[test]
fn gc_removes_what_is_not_listed_and_keeps_what_is() {
    let (_topology, node) = one_node();
    node.config().version("1.1.0").install().expect("install");
    let (kept, other) = (node.add_pod("kept"), node.add_pod("other"));
    let before = Snapshot::of(&node);
    let _stale = node.add_pod("stale");
    node.runtime()
        .gc(&[kept.attachment(), other.attachment()])
        .expect("executed")
        .expect_success();
    before.assert_unchanged(&node);
    kept.ping(other.ip(), 2).assert_received();
    assert_eq!(node.reserved().len(), 2);
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
