//! Calls by the hundred at once: on a node that is not set up, and on one that others change meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use aya::programs::loaded_programs;
use beeline_common::Hook;
use beeline_tests::datapath::{self, Known, TO_POD, attached_as_pinned};
use beeline_tests::icmp::Ping;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::{cli, soak};

use crate::churn::{assert_no_process_left, patient};
use crate::fixture::fast_pair;
use crate::upgrade::pins;

/// What each process logs that loads the programs.
const LOADED: &str = "programs loaded";

/// How many others each pod pings. Not all: the kernel keeps 1024 neighbours, for all namespaces together
/// (`net.ipv4.neigh.default.gc_thresh3`).
const OTHERS: usize = 3;

/// How many calls come at once.
fn crowd() -> usize {
    soak::scale(48, 100)
}

/// Runs all of these at once.
fn at_once<T: Send, R: Send>(all: Vec<T>, run: impl Fn(T) -> R + Sync) -> Vec<R> {
    let start = Barrier::new(all.len());
    let run = |one| {
        start.wait();
        run(one)
    };
    let run = &run;
    thread::scope(|scope| {
        let threads: Vec<_> = all
            .into_iter()
            .map(|one| scope.spawn(move || run(one)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|done| done.expect("no panic")).collect()
    })
}

fn names(what: &str) -> Vec<String> {
    (0..crowd())
        .map(|number| format!("{what}{number}"))
        .collect()
}

fn add(node: &Arc<Node>, name: &str) -> Pod {
    node.add_pod_by(&node.runtime().at_once().log("info"), name)
}

/// Has a crowd of pods come at once.
pub(crate) fn add_all(node: &Arc<Node>, what: &str) -> Vec<Pod> {
    at_once(names(what), |name| add(node, &name))
}

/// Has pods go at once.
pub(crate) fn delete_all(pods: Vec<Pod>) {
    for deleted in at_once(pods, Pod::delete) {
        deleted.expect("DEL");
    }
}

/// Asserts that the pods are all on one path, as the node says, and as their packets take it: each pings some others.
#[track_caller]
pub(crate) fn assert_on_one_path(node: &Node, pods: &[&Pod]) {
    let status = cli::status(node).expect("status");
    let is_fast = status["datapath"] == "ebpf";
    if is_fast {
        for pod in pods {
            let Attachment {
                container_id,
                ifname,
                ..
            } = pod.attachment();
            datapath::settle(node, container_id, ifname).expect("settled");
        }
    }
    let status = cli::status(node).expect("status");
    let listed = status["pods"].as_array().expect("pods");
    assert_eq!(listed.len(), pods.len(), "{status}");
    let path = if is_fast { "fast" } else { "slow" };
    assert!(listed.iter().all(|pod| pod["path"] == path), "{status}");
    let known = datapath::known(node).expect("maps");
    if is_fast {
        let ips: BTreeSet<_> = pods.iter().map(|pod| pod.ip()).collect();
        assert_eq!(known.pods.keys().copied().collect::<BTreeSet<_>>(), ips);
        assert_eq!(known.ports.len(), pods.len());
        assert!(
            attached_as_pinned(node)
                .expect("programs")
                .iter()
                .all(|pinned| *pinned)
        );
    } else {
        assert_eq!(known, Known::default());
        assert_eq!(Snapshot::of(node).lines("pin"), Vec::<&str>::new());
    }

    let before = node.counters().expect("counters");
    let indices: Vec<usize> = (0..pods.len()).collect();
    let pings = at_once(indices, |index| {
        let after = (1..=OTHERS).map(|step| pods[(index + step) % pods.len()]);
        let pings: Vec<Ping> = after
            .map(|other| patient(pods[index].namespace(), other.ip()))
            .collect();
        pods[index].check().expect("executed").expect_success();
        pings
    });
    let pings: Vec<Ping> = pings.into_iter().flatten().collect();
    for ping in &pings {
        ping.assert_received();
    }
    let fast = datapath::growth(&before, &node.counters().expect("counters"));
    let fast = fast.get(TO_POD).copied().unwrap_or_default();
    let expected = if is_fast { 2 * pings.len() } else { 0 };
    assert!(
        fast >= expected as u64,
        "{fast} packets were fast, not {expected}"
    );
}

/// How many programs there are, pinned or not, that use a node's maps.
fn programs_over_maps(node: &Node) -> usize {
    let maps = pins(node).join(format!("maps-{}", beeline_common::ABI_VERSION));
    let pods = aya::maps::MapInfo::from_pin(maps.join("PODS"))
        .expect("PODS")
        .id();
    let uses = |program: &aya::programs::ProgramInfo| {
        let maps = program.map_ids().ok().flatten();
        maps.is_some_and(|maps| maps.contains(&pods))
    };
    // Others' come and go meanwhile.
    loaded_programs()
        .filter_map(Result::ok)
        .filter(uses)
        .count()
}

/// Lines of a snapshot that are the same on all nodes.
fn of_any_node(node: &Node, snapshot: &Snapshot) -> BTreeSet<String> {
    let lines = ["pin", "file"].map(|kind| snapshot.lines(kind));
    let path = node.directory().display().to_string();
    let lines = lines.iter().flatten();
    let mut lines: BTreeSet<_> = lines
        .map(|line| line.replace(&path, "DIR").replace(node.name(), "NODE"))
        .collect();
    for kind in ["link", "address", "route", "neighbour", "nft"] {
        lines.insert(format!("{} of {kind}", snapshot.lines(kind).len()));
    }
    lines
}

#[test]
fn soak_a_crowd_on_a_cold_node_sets_it_up_once_and_goes_as_one_pod_does() {
    let (_topology, [node, twin]) = fast_pair();
    twin.add_pod("single").delete().expect("DEL");
    let single = of_any_node(&twin, &Snapshot::of(&twin));

    let pods = add_all(&node, "cold");
    let loads: usize = pods
        .iter()
        .map(|pod| pod.add_stderr().matches(LOADED).count())
        .sum();
    assert_eq!(loads, 1, "programs were loaded");
    let ips: BTreeSet<_> = pods.iter().map(Pod::ip).collect();
    assert_eq!(ips.len(), pods.len(), "two pods have one address");
    assert_on_one_path(&node, &pods.iter().collect::<Vec<_>>());
    assert_eq!(programs_over_maps(&node), Hook::ALL.len());
    if soak::is_on() {
        let mut adds: Vec<_> = pods.iter().map(Pod::add_time).collect();
        adds.sort_unstable();
        let (median, last) = (adds[adds.len() / 2], adds[adds.len() - 1]);
        println!(
            "crowd: {} ADDs at once on a cold node: median {median:?}, last {last:?}",
            adds.len()
        );
    }

    delete_all(pods);
    assert_no_process_left(&node);
    assert_eq!(datapath::known(&node).expect("maps"), Known::default());
    assert_eq!(of_any_node(&node, &Snapshot::of(&node)), single);
}

/// Has a crowd of pods come and another one go at once while `disturb` is done again and again, with a list of all pods
/// that may be there, and those that stay ping each other and one elsewhere. Returns the pods that came.
pub(crate) fn come_and_go(
    stay: [&Pod; 2],
    far: &Pod,
    disturb: impl Fn(&[&Attachment]) + Sync,
) -> Vec<Pod> {
    let node = stay[0].node();
    let leaving = add_all(node, "leaving");
    let coming = names("coming");
    let attachment = |name: &String| Attachment::new(format!("{}-{name}", node.name()), "");
    let expected: Vec<_> = coming.iter().map(attachment).collect();
    let known = stay
        .into_iter()
        .chain(&leaving)
        .map(|pod| pod.attachment().clone());
    let known: Vec<_> = known.chain(expected).collect();
    let valid: Vec<&Attachment> = known.iter().collect();
    let over = AtomicBool::new(false);
    let until_over = |what: &dyn Fn()| {
        loop {
            what();
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    let (until_over, disturb) = (&until_over, &disturb);
    thread::scope(|scope| {
        for (from, to) in [
            (stay[0], stay[1]),
            (stay[1], stay[0]),
            (stay[0], far),
            (far, stay[1]),
        ] {
            let ping = move || {
                patient(from.namespace(), to.ip()).assert_received();
            };
            scope.spawn(move || until_over(&ping));
        }
        let valid = &valid;
        scope.spawn(move || until_over(&|| disturb(valid)));
        let leaving = leaving.into_iter().map(|pod| Change::Go(Box::new(pod)));
        let coming = coming.into_iter().map(Change::Come);
        let came = at_once(leaving.chain(coming).collect(), |change| match change {
            Change::Go(pod) => pod.delete().map(|()| None),
            Change::Come(name) => Ok(Some(add(node, &name))),
        });
        over.store(true, Ordering::Relaxed);
        came.into_iter()
            .filter_map(|changed| changed.expect("DEL"))
            .collect()
    })
}

enum Change {
    Come(String),
    Go(Box<Pod>),
}

#[test]
fn soak_crowds_come_and_go_while_the_fast_path_goes_on_and_off_and_gc_runs() {
    let (_topology, [node, other]) = fast_pair();
    node.config().version("1.1.0").install().expect("install");
    let far = other.add_pod("far");
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    let before = Snapshot::of(&node);
    let came = come_and_go([&one, &two], &far, |valid| {
        cli::unload(&node).expect("unload");
        node.runtime().gc(valid).expect("executed").expect_success();
        cli::load(&node, &[]).expect("load");
    });
    let mut pods = vec![&one, &two];
    pods.extend(&came);
    for turn in [cli::unload, |node: &Node| cli::load(node, &[])] {
        assert_on_one_path(&node, &pods);
        turn(&node).expect("executed");
    }
    assert_on_one_path(&node, &pods);
    drop(pods);
    delete_all(came);
    assert_no_process_left(&node);
    before.assert_unchanged(&node);
}
