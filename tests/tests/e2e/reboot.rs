//! A node boots: what the kernel had is gone, what is on disk stays, and so does more of it where the node is a container
//! that was restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;

use beeline::datapath::Datapath;
use beeline::node::Store;
use beeline_tests::config::NETWORK;
use beeline_tests::datapath::{self, FROM_UPLINK, Known, TO_PEER, TO_POD};
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::topology::Topology;
use beeline_tests::{cli, exec, netns, sweep};
use serde_json::Value;

use crate::fixture::fast_pair;
use crate::repair::fast;

/// What outlives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    /// IPAM's files.
    data: bool,
    /// beeline's records of the node and its pods.
    state: bool,
    /// Programs and maps, and links of interfaces that are gone.
    pins: bool,
}

/// A machine boots.
const MACHINE: Kept = Kept {
    data: true,
    state: false,
    pins: false,
};

impl Kept {
    /// Has the node boot, whose pods and their namespaces go.
    #[track_caller]
    fn reboot(self, topology: &Topology, node: &Node, pods: &[Pod]) {
        for pod in pods {
            netns::remove(pod.name()).expect("remove");
        }
        topology.reboot(node).expect("reboot");
        let all = [
            (self.data, node.data_dir()),
            (self.state, node.state_dir()),
            (self.pins, node.bpffs_dir()),
        ];
        for (_, directory) in all.iter().filter(|(kept, _)| !kept) {
            sweep::remove_tree(directory);
            fs::create_dir_all(directory).expect("create");
        }
    }
}

/// The interface index of each pod's host veth, by the pod's name.
fn recorded(node: &Node) -> BTreeMap<String, u32> {
    let store = Store::at(node.state_dir().join(NETWORK));
    let attachments = store.attachments().expect("attachments").into_iter();
    attachments
        .map(|pod| (pod.container_id, pod.ifindex))
        .collect()
}

fn sorted(ips: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
    ips.into_iter().collect()
}

/// Asserts that these pods are on the fast path, to each other and to and from one elsewhere.
#[track_caller]
fn assert_fast([one, two]: [&Pod; 2], far: &Pod) {
    let node = one.node();
    assert_eq!(fast(node, one, two), [TO_POD]);
    assert_eq!(fast(node, two, far), [TO_PEER, FROM_UPLINK]);
    assert_eq!(fast(node, far, one), [TO_PEER, FROM_UPLINK]);
    for pod in [one, two] {
        pod.check().expect("executed").expect_success();
    }
}

/// Asserts that the node knows of no pods but these.
#[track_caller]
fn assert_only(node: &Node, pods: &[&Pod]) {
    assert_eq!(
        sorted(node.reserved()),
        sorted(pods.iter().map(|pod| pod.ip()))
    );
    let recorded = recorded(node);
    let names: BTreeSet<_> = pods.iter().map(|pod| pod.name().to_owned()).collect();
    assert_eq!(recorded.keys().cloned().collect::<BTreeSet<_>>(), names);
    let known = datapath::known(node).expect("maps");
    let expected = Known {
        pods: pods
            .iter()
            .map(|pod| (pod.ip(), recorded[pod.name()]))
            .collect(),
        ports: recorded.values().copied().collect(),
    };
    assert_eq!(known, expected);
    let links: Vec<Value> =
        exec::json(node.netns().command("ip").args(["-json", "link"])).expect("links");
    let there: BTreeSet<_> = links.iter().map(|link| link["ifindex"].as_u64()).collect();
    let programs = Datapath::open(&node.bpffs_dir(), NETWORK).expect("pins");
    for (hook, ifindex) in programs.attached().expect("pins") {
        assert!(
            there.contains(&Some(ifindex.into())),
            "{hook:?}: interface {ifindex} is gone"
        );
    }
}

/// Has a node with three pods boot, and two new ones come. Of the former, one DEL comes before them, one after them, and
/// one never.
#[track_caller]
fn pods_that_come_work_and_those_that_were_go(kept: Kept) {
    let (topology, [node, other]) = fast_pair();
    node.config().version("1.1.0").install().expect("install");
    let far = other.add_pod("far");
    let former = ["former1", "former2", "former3"].map(|name| node.add_pod(name));
    assert_fast([&former[0], &former[1]], &far);
    let indices = recorded(&node);
    kept.reboot(&topology, &node, &former);

    let [mut early, mut late, mut lost] = former;
    early.detach().expect("executed").expect_success();
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    let new = [&one, &two];
    let leaked = sorted([late.ip(), lost.ip()]);
    let given = sorted(new.map(Pod::ip));
    // Without its files IPAM begins anew, at the addresses that pods are recorded with that are gone.
    assert_eq!(
        given.is_disjoint(&leaked),
        kept.data,
        "{given:?} {leaked:?}"
    );
    let again = recorded(&node);
    assert!(
        new.iter()
            .any(|pod| indices.values().any(|index| again[pod.name()] == *index)),
        "no index is of a former pod's: {again:?}, {indices:?}"
    );
    assert_fast(new, &far);
    for _ in 0..2 {
        late.detach().expect("executed").expect_success();
        assert_fast(new, &far);
    }
    let (bin_dir, said) = (node.directory(), "of the pod whose DEL never came");
    let (_, doctor) = cli::doctor(&node, &bin_dir, "text").expect("doctor");
    let is_known = kept.data || kept.state;
    assert_eq!(doctor.contains(lost.name()), is_known, "{said}:\n{doctor}");
    let valid = new.map(Pod::attachment);
    node.runtime()
        .gc(&valid)
        .expect("executed")
        .expect_success();
    assert_only(&node, &new);
    lost.detach().expect("executed").expect_success();
    assert_only(&node, &new);
    assert_fast(new, &far);
    node.runtime().gc(&[]).expect("executed").expect_success();
    assert_only(&node, &[]);
}

#[test]
fn after_a_reboot_pods_work_at_once_and_what_the_former_left_is_freed() {
    pods_that_come_work_and_those_that_were_go(MACHINE);
}

#[test]
fn records_of_pods_that_a_reboot_took_do_no_harm() {
    let kept = Kept {
        state: true,
        ..MACHINE
    };
    pods_that_come_work_and_those_that_were_go(kept);
}

#[test]
fn pins_that_outlive_their_interfaces_do_no_harm() {
    let kept = Kept {
        pins: true,
        ..MACHINE
    };
    pods_that_come_work_and_those_that_were_go(kept);
}

#[test]
fn a_container_that_is_a_node_may_be_restarted() {
    let kept = Kept {
        state: true,
        pins: true,
        ..MACHINE
    };
    pods_that_come_work_and_those_that_were_go(kept);
}

#[test]
fn pods_with_addresses_of_pods_that_are_recorded_and_gone_outlive_their_dels() {
    for pins in [false, true] {
        let kept = Kept {
            data: false,
            state: true,
            pins,
        };
        pods_that_come_work_and_those_that_were_go(kept);
    }
}
