//! New pods: on the plain bridge when their ADD ends, and on the fast path a moment later.

use std::sync::Arc;

use beeline::node::{Lock, Store};
use beeline_tests::config::NETWORK;
use beeline_tests::datapath::{TO_PEER, TO_POD, settle};
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::steady::{self, Tally};
use beeline_tests::{cli, process};

use crate::fixture::{configure, fast_node, fast_pair};

/// Keeps the watch from running: pods stay as their ADD left them. There must be one before.
#[track_caller]
fn hold_watch(node: &Node) -> Lock {
    let store = Store::at(node.state_dir().join(NETWORK));
    end_watch(node);
    let lock = store.lock_watch().expect("lock");
    lock.expect("the watch was ended")
}

/// Kills the process that watches a node's pods, as an administrator or a lack of memory may.
#[track_caller]
fn end_watch(node: &Node) {
    let store = Store::at(node.state_dir().join(NETWORK));
    let directory = store.root().display().to_string();
    let watches = process::with_arguments(&["watch", "--store", &directory]);
    for pid in watches.expect("processes") {
        process::end(pid).expect("kill");
    }
}

#[track_caller]
fn assert_path(node: &Node, pod: &Pod, path: &str) {
    let (takes, why) = cli::path(node, pod).expect("status");
    assert_eq!(takes, path, "{}: {why:?}", pod.name());
}

fn counted(node: &Node, counter: &str) -> u64 {
    node.counters().expect("counters")[counter]
}

fn await_fast(node: &Arc<Node>, pod: &Pod) {
    let attachment = pod.attachment();
    settle(node, &attachment.container_id, &attachment.ifname).expect("fast");
    assert_path(node, pod, "fast");
}

#[test]
fn a_pod_works_on_the_bridge_until_it_joins_the_fast_path() {
    let (_topology, [a, b]) = fast_pair();
    let (first, far) = (a.add_pod("first"), b.add_pod("far"));
    let lock = hold_watch(&a);
    let new = a.add_new_pod("new");
    assert_path(&a, &new, "slow");
    let before = counted(&a, TO_POD);
    new.ping(first.ip(), 2).assert_received();
    first.ping(new.ip(), 2).assert_received();
    new.ping(far.ip(), 2).assert_received();
    far.ping(new.ip(), 2).assert_received();
    assert_eq!(counted(&a, TO_POD), before);
    new.check().expect("executed").expect_success();

    drop(lock);
    // Whatever was left behind joins with the next pod.
    let next = a.add_pod("next");
    await_fast(&a, &new);
    for pod in [&new, &next] {
        let before = (counted(&a, TO_POD), counted(&a, TO_PEER));
        pod.ping(first.ip(), 2).assert_received();
        pod.ping(far.ip(), 2).assert_received();
        assert!(counted(&a, TO_POD) >= before.0 + 2);
        assert!(counted(&a, TO_PEER) >= before.1 + 2);
    }
}

#[test]
fn connections_of_a_pod_that_joins_go_on() {
    let (_topology, [a, b]) = fast_pair();
    let (near, far) = (a.add_pod("near"), b.add_pod("far"));
    let lock = hold_watch(&a);
    let new = a.add_new_pod("new");
    let pairs = [(&new, &near), (&new, &far), (&far, &new)];
    let (_, tallies) = steady::during(&pairs, || {
        drop(lock);
        let _next = a.add_pod("next");
        await_fast(&a, &new);
    })
    .expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
}

#[test]
fn a_pod_that_goes_before_it_has_joined_leaves_nothing() {
    let (_topology, node) = fast_node();
    let _stays = node.add_pod("stays");
    let before = Snapshot::of(&node);
    // Some are gone before they are due, some amid it, some after.
    for pause in [0, 20, 30, 32, 35, 40, 45, 50, 60, 80] {
        let pod = node.add_new_pod("goes");
        std::thread::sleep(std::time::Duration::from_millis(pause));
        pod.delete().expect("DEL");
        before.assert_unchanged(&node);
    }
    let status = cli::status(&node).expect("status");
    let held = |map: &str| {
        let maps = status["pinned"]["maps"].as_array().expect("maps");
        let map = maps.iter().find(|one| one["map"] == map);
        map.expect("the map")["held"].clone()
    };
    assert_eq!(held("PODS"), 1, "{status}");
}

#[test]
fn pods_join_after_the_watch_was_killed() {
    let (_topology, node) = fast_node();
    let first = node.add_pod("first");
    for round in 0..5 {
        let new = node.add_new_pod(&format!("new{round}"));
        std::thread::sleep(std::time::Duration::from_millis(10 * round));
        end_watch(&node);
        let next = node.add_pod(&format!("next{round}"));
        await_fast(&node, &new);
        new.ping(next.ip(), 1).assert_received();
        new.ping(first.ip(), 1).assert_received();
    }
}

#[test]
fn a_pod_that_must_be_fast_is_so_when_its_add_ends() {
    for key in ["mode", "antiSpoof"] {
        let (_topology, node) = fast_node();
        configure(&node, |plugin| match key {
            "mode" => plugin["datapath"]["mode"] = "ebpf".into(),
            _ => plugin["datapath"]["antiSpoof"] = true.into(),
        });
        let first = node.add_new_pod("first");
        let _lock = hold_watch(&node);
        let second = node.add_new_pod("second");
        for pod in [&first, &second] {
            assert_path(&node, pod, "fast");
        }
        let before = counted(&node, TO_POD);
        first.ping(second.ip(), 2).assert_received();
        assert!(counted(&node, TO_POD) >= before + 4, "datapath.{key}");
    }
}

#[test]
fn a_crowd_of_pods_joins() {
    let (_topology, node) = fast_node();
    let pods: Vec<Pod> = std::thread::scope(|scope| {
        let adds: Vec<_> = (0..12)
            .map(|number| {
                let node = &node;
                scope.spawn(move || node.add_pod(&format!("pod{number}")))
            })
            .collect();
        let joined = adds.into_iter().map(|add| add.join().expect("ADD"));
        joined.collect()
    });
    let before = counted(&node, TO_POD);
    for (from, to) in pods.iter().zip(pods.iter().skip(1)) {
        assert_path(&node, from, "fast");
        from.ping(to.ip(), 1).assert_received();
    }
    assert!(counted(&node, TO_POD) >= before + 22);
}
