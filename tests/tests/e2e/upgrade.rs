//! Turning the fast path on, off and over to another build, under traffic.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use aya::programs::{
    ProgramInfo,
    links::{FdLink, PinnedLink},
};
use beeline_tests::cli;
use beeline_tests::config::NETWORK;
use beeline_tests::datapath::growth;
use beeline_tests::iperf;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::steady::{self, Tally};
use beeline_tests::sweep;
use serde_json::json;

use crate::fixture::{configure, fast_node, fast_pair};

/// The pods of `pairs` that are on the first node's fast path.
const FAST: [&str; 3] = ["from_pod/to_pod", "from_pod/to_peer", "from_uplink/to_pod"];

pub(crate) fn pins(node: &Node) -> PathBuf {
    node.bpffs_dir().join("beeline").join(NETWORK)
}

/// The pins in a directory of the network's, by name.
fn pinned(node: &Node, directory: &str) -> BTreeMap<String, PathBuf> {
    let paths = sweep::walk(&pins(node).join(directory)).into_iter();
    let named = paths.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
    named.collect()
}

fn programs(node: &Node) -> BTreeMap<String, u32> {
    let version = beeline_common::ABI_VERSION;
    let programs = pinned(node, &format!("programs-{version}"));
    let id = |path: &PathBuf| ProgramInfo::from_pin(path).expect("a program").id();
    programs
        .iter()
        .map(|(name, path)| (name.clone(), id(path)))
        .collect()
}

/// Link IDs, each with that of the program that runs there.
fn links(node: &Node) -> BTreeMap<String, (u32, u32)> {
    let ids = |path: &PathBuf| {
        let link = FdLink::from(PinnedLink::from_pin(path).expect("a link"));
        let info = link.info().expect("information");
        (info.id(), info.program_id())
    };
    let links = pinned(node, "links");
    links
        .iter()
        .map(|(name, path)| (name.clone(), ids(path)))
        .collect()
}

/// Which of the counters that tell the fast path grew since.
fn fast_since(node: &Node, before: &BTreeMap<String, u64>) -> Vec<String> {
    let grown = growth(before, &node.counters().expect("counters"));
    let fast = |name: &&&str| grown.contains_key(**name);
    FAST.iter()
        .filter(fast)
        .map(|name| (*name).to_owned())
        .collect()
}

/// Runs `change` under connections on node `a` and between the nodes, old ones and new ones, none of which may fail.
fn under_traffic(pods: &[&Pod; 3], change: impl FnOnce() + Send) -> Vec<Tally> {
    let [client, near, far] = pods;
    let pairs = [(*client, *near), (*client, *far), (*far, *near)];
    let ((), tallies) = steady::during(&pairs, change).expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    tallies
}

fn three_pods(a: &Arc<Node>, b: &Arc<Node>) -> [Pod; 3] {
    [a.add_pod("client"), a.add_pod("near"), b.add_pod("far")]
}

#[test]
fn programs_are_swapped_under_connections_and_none_of_them_notices() {
    let (_topology, [a, b]) = fast_pair();
    let pods = three_pods(&a, &b);
    let (before, links_before) = (programs(&a), links(&a));
    let counted = a.counters().expect("counters");
    under_traffic(&pods.each_ref(), || {
        for node in [&a, &b, &a] {
            let said = cli::load(node, &[]).expect("load");
            assert!(said.contains("on the fast path"), "{said}");
        }
    });
    let (after, links_after) = (programs(&a), links(&a));
    assert_eq!(before.len(), beeline_common::Hook::ALL.len(), "{before:?}");
    for (name, id) in &before {
        assert_ne!(after[name], *id, "{name} is the old one");
    }
    let keys = |links: &BTreeMap<String, (u32, u32)>| -> Vec<(String, u32)> {
        links
            .iter()
            .map(|(name, (id, _))| (name.clone(), *id))
            .collect()
    };
    assert_eq!(
        keys(&links_before),
        keys(&links_after),
        "links are the same"
    );
    for (name, (_, program)) in &links_after {
        let hook = name.split_once('-').expect("hook and interface").0;
        assert_eq!(*program, after[hook], "{name} runs another program");
    }
    assert_eq!(fast_since(&a, &counted), FAST, "counters went on");
}

#[test]
fn a_bulk_transfer_goes_on_while_programs_are_swapped() {
    let (_topology, [a, b]) = fast_pair();
    let [client, near, far] = three_pods(&a, &b);
    for server in [&near, &far] {
        let report = thread::scope(|scope| {
            let transfer = scope.spawn(|| {
                let (from, to) = (client.namespace(), server.namespace());
                iperf::tcp_streams(from, to, server.ip(), 1, 4, None)
            });
            while !transfer.is_finished() {
                for node in [&a, &b] {
                    cli::load(node, &[]).expect("load");
                }
            }
            transfer.join().expect("no panic")
        });
        let report = report.expect("iperf3");
        assert!(report.end.sum_received.bytes > 0);
    }
}

#[test]
fn the_fast_path_goes_off_and_on_under_connections_and_none_of_them_notices() {
    let (_topology, [a, b]) = fast_pair();
    let pods = three_pods(&a, &b);
    under_traffic(&pods.each_ref(), || {
        let said = cli::unload(&a).expect("unload");
        assert!(said.contains("datapath bridge  pods 2"), "{said}");
    });
    assert_eq!(Snapshot::of(&a).lines("pin"), Vec::<&str>::new());
    assert_eq!(cli::status(&a).expect("status")["datapath"], "bridge");
    under_traffic(&pods.each_ref(), || {
        cli::load(&a, &[]).expect("load");
    });
    let counted = a.counters().expect("counters");
    // Old connections of the stack stay there; new ones do not.
    under_traffic(&pods.each_ref(), || ());
    assert_eq!(fast_since(&a, &counted), FAST);
    for _ in 0..2 {
        under_traffic(&pods.each_ref(), || {
            cli::unload(&a).expect("unload");
            cli::load(&a, &[]).expect("load");
        });
    }
}

#[test]
fn pods_of_a_node_that_is_off_are_slow_and_well_and_become_fast_when_it_is_on() {
    let (_topology, [a, b]) = fast_pair();
    let (first, far) = (a.add_pod("first"), b.add_pod("far"));
    cli::unload(&a).expect("unload");
    let second = a.add_pod("second");
    assert_eq!(second.add_stderr(), "", "said once, by the administrator");
    for pod in [&first, &second] {
        pod.check().expect("executed").expect_success();
        pod.ping(far.ip(), 1).assert_received();
    }
    first.ping(second.ip(), 1).assert_received();
    assert_eq!(Snapshot::of(&a).lines("pin"), Vec::<&str>::new());
    let third = a.add_pod("third");
    third.delete().expect("DEL");
    cli::unload(&a).expect("unload again");

    cli::load(&a, &[]).expect("load");
    let counted = a.counters().expect("counters");
    second.ping(first.ip(), 2).assert_received();
    second.ping(far.ip(), 2).assert_received();
    assert_eq!(fast_since(&a, &counted), FAST);
    for pod in [&first, &second] {
        pod.check().expect("executed").expect_success();
    }
    a.add_pod("fourth").ping(first.ip(), 1).assert_received();
}

#[test]
fn maps_of_another_abi_are_replaced_under_connections_and_none_of_them_notices() {
    let (_topology, [a, b]) = fast_pair();
    let pods = three_pods(&a, &b);
    let before = links(&a);
    // What an older build left: pins at other paths, with programs attached that use them.
    for kind in ["maps", "programs"] {
        let current = pins(&a).join(format!("{kind}-{}", beeline_common::ABI_VERSION));
        fs::rename(current, pins(&a).join(format!("{kind}-1"))).expect("rename");
    }
    under_traffic(&pods.each_ref(), || {
        cli::load(&a, &[]).expect("load");
    });
    assert!(!pins(&a).join("maps-1").exists() && !pins(&a).join("programs-1").exists());
    let after = links(&a);
    for (name, (link, program)) in &before {
        assert_eq!(after[name].0, *link, "{name} is another link");
        assert_ne!(after[name].1, *program, "{name} runs the old program");
    }
    let counted = a.counters().expect("counters");
    under_traffic(&pods.each_ref(), || ());
    assert_eq!(fast_since(&a, &counted), FAST, "the new maps are filled");
    for pod in &pods {
        pod.check().expect("executed").expect_success();
    }
}

#[test]
fn the_first_add_of_another_abi_brings_the_pods_of_the_former_along() {
    let (_topology, [a, b]) = fast_pair();
    let pods = three_pods(&a, &b);
    for kind in ["maps", "programs"] {
        let current = pins(&a).join(format!("{kind}-{}", beeline_common::ABI_VERSION));
        fs::rename(current, pins(&a).join(format!("{kind}-1"))).expect("rename");
    }
    under_traffic(&pods.each_ref(), || a.add_pod("new").delete().expect("DEL"));
    assert!(!pins(&a).join("maps-1").exists());
    let counted = a.counters().expect("counters");
    under_traffic(&pods.each_ref(), || ());
    assert_eq!(fast_since(&a, &counted), FAST);
}

#[test]
fn pods_of_a_plain_bridge_become_fast_when_the_configuration_says_so() {
    let (_topology, [a, b]) = fast_pair();
    configure(&a, |plugin| plugin["datapath"]["mode"] = json!("bridge"));
    let pods = three_pods(&a, &b);
    let why = cli::load_fails(&a, &[]).expect("executed");
    assert!(why.contains("datapath.mode is \"bridge\""), "{why}");
    a.config().install().expect("install");
    under_traffic(&pods.each_ref(), || {
        cli::load(&a, &[]).expect("load");
    });
    let counted = a.counters().expect("counters");
    under_traffic(&pods.each_ref(), || ());
    assert_eq!(fast_since(&a, &counted), FAST);
    let [client, near, far] = pods;
    for pod in [&client, &near] {
        pod.check().expect("executed").expect_success();
    }
    near.delete().expect("DEL");
    client.ping(far.ip(), 1).assert_received();
}

#[test]
fn a_load_that_fails_changes_no_record_and_no_path() {
    let (_topology, node) = fast_node();
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    cli::unload(&node).expect("unload");
    let records = || -> Vec<(PathBuf, String)> {
        let files = sweep::walk(&node.state_dir()).into_iter();
        files
            .map(|path| (path.clone(), fs::read_to_string(path).expect("a record")))
            .collect()
    };
    let before = (Snapshot::of(&node), records());
    let no_bpffs = node.directory().join("no-bpffs").display().to_string();
    configure(&node, |plugin| {
        plugin["datapath"]["bpffsDir"] = json!(no_bpffs)
    });
    let why = cli::load_fails(&node, &[]).expect("executed");
    assert!(why.contains("not on a bpffs"), "{why}");
    assert_eq!(before.1, records());
    before.0.assert_unchanged(&node);
    one.ping(two.ip(), 1).assert_received();
    for pod in [&one, &two] {
        pod.check().expect("executed").expect_success();
    }
}

#[test]
fn there_is_nothing_to_load_on_a_node_without_a_network() {
    let (_topology, node) = fast_node();
    fs::remove_file(node.conf_dir().join(beeline_tests::config::CONFLIST)).expect("remove");
    let before = Snapshot::of(&node);
    let why = cli::load_fails(&node, &[]).expect("executed");
    assert!(why.contains("none is configured"), "{why}");
    let said = cli::unload(&node).expect("unload");
    assert!(said.contains("no network was set up"), "{said}");
    before.assert_unchanged(&node);
}
