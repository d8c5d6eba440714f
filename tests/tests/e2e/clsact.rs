//! `datapath.attach: "clsact"`: classic filters instead of tcx, as on kernels before 6.6.

use std::collections::BTreeMap;
use std::sync::Arc;

use aya::programs::TcAttachType::{self, Egress, Ingress};
use beeline_tests::cli;
use beeline_tests::exec;
use beeline_tests::foreign::{Act, Foreign, tcx_programs};
use beeline_tests::kernel::{NO_TCX, has_tcx};
use beeline_tests::node::{BRIDGE, Node};
use beeline_tests::pod::Pod;
use beeline_tests::skip::skip;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::steady::{self, Tally};
use beeline_tests::topology::Topology;
use beeline_tests::traffic::tcp_echo;
use serde_json::json;

use crate::fixture::{configure, fast_pair};
use crate::foreign::host_veth;

const PINGS: usize = 5;

fn nodes() -> (Topology, [Arc<Node>; 2]) {
    let (topology, nodes) = fast_pair();
    for node in &nodes {
        by_clsact(node);
    }
    (topology, nodes)
}

fn by_clsact(node: &Node) {
    configure(node, |plugin| {
        plugin["datapath"]["attach"] = json!("clsact")
    });
}

fn tc(node: &Node, arguments: &[&str]) -> String {
    exec::stdout(node.netns().command("tc").args(arguments)).expect("tc")
}

/// BPF filters at both hooks of an interface, as `tc` describes them.
fn filters(node: &Node, interface: &str) -> Vec<String> {
    let hooks = ["ingress", "egress"];
    let shown = hooks.map(|hook| tc(node, &["filter", "show", "dev", interface, hook]));
    let lines = shown.iter().flat_map(|text| text.lines());
    lines
        .filter(|line| line.contains("direct-action"))
        .map(str::to_owned)
        .collect()
}

fn has_clsact(node: &Node, interface: &str) -> bool {
    tc(node, &["qdisc", "show", "dev", interface]).contains("clsact")
}

fn grown(node: &Node, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    beeline_tests::datapath::growth(before, &node.counters().expect("counters"))
}

fn foreign(node: &Node, interface: &str, direction: TcAttachType, act: Act) -> Foreign {
    let pin = node.bpffs_dir().join(format!("{interface}-{direction:?}"));
    // The kernel chooses the priority, as for whoever runs `tc filter add` without one.
    Foreign::classic(node.netns(), interface, direction, 0, act, &pin).expect("filter")
}

fn three_pods(a: &Arc<Node>, b: &Arc<Node>) -> [Pod; 3] {
    [a.add_pod("client"), a.add_pod("near"), b.add_pod("far")]
}

#[test]
fn pods_take_the_fast_path_by_classic_filters() {
    let (_topology, [a, b]) = nodes();
    let [client, near, far] = three_pods(&a, &b);
    for other in [&near, &far] {
        client.ping(other.ip(), 2).assert_received();
        let before = a.counters().expect("counters");
        client.ping(other.ip(), PINGS).assert_received();
        tcp_echo(client.namespace(), other.namespace(), other.ip(), b"hello").expect("TCP");
        other.ping(client.ip(), PINGS).assert_received();
        let grown = grown(&a, &before);
        let wanted: &[&str] = if other.ip() == near.ip() {
            &["from_pod/to_pod"]
        } else {
            &[
                "from_pod/to_peer",
                "from_uplink/to_pod",
                "to_uplink/pass_redirected",
            ]
        };
        for name in wanted {
            assert!(
                grown.get(*name).is_some_and(|n| *n >= 2 * PINGS as u64),
                "{name}: {grown:?}"
            );
        }
    }
    let by_tcx = tcx_programs(a.netns(), &host_veth(&client), Ingress).expect("query");
    assert_eq!(by_tcx, Vec::<u32>::new());
    for pod in [&client, &near, &far] {
        pod.check().expect("executed").expect_success();
        assert!(!filters(pod.node(), &host_veth(pod)).is_empty());
    }
}

#[test]
fn a_pods_life_leaves_no_filter_and_unloading_no_qdisc() {
    let (_topology, [a, b]) = nodes();
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    let before = Snapshot::of(&a);
    a.add_pod("other").delete().expect("DEL");
    before.assert_unchanged(&a);
    let veth = host_veth(&client);
    let places = [veth.as_str(), BRIDGE, "eth0"];
    assert!(has_clsact(&a, &veth) && has_clsact(&a, "eth0"));
    cli::unload(&a).expect("unload");
    for place in places {
        assert_eq!(filters(&a, place), Vec::<String>::new(), "{place}");
        assert!(!has_clsact(&a, place), "{place}");
    }
    client.ping(far.ip(), 2).assert_received();
    client.delete().expect("DEL");
}

#[test]
fn qdiscs_and_filters_of_others_are_seen_before_ours_and_stay() {
    let (_topology, [a, b]) = nodes();
    tc(&a, &["qdisc", "add", "dev", "eth0", "clsact"]);
    let early = foreign(&a, "eth0", Ingress, Act::Next);
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    let late = foreign(&a, "eth0", Egress, Act::Next);
    client.ping(far.ip(), 2).assert_received();
    let before = a.counters().expect("counters");
    let pings = PINGS as u64;
    client.ping(far.ip(), PINGS).assert_received();
    let grown = grown(&a, &before);
    assert!(grown["from_pod/to_peer"] >= pings && grown["from_uplink/to_pod"] >= pings);
    assert!(
        early.runs() >= pings && late.runs() >= pings,
        "see what ours redirect"
    );
    let veth = host_veth(&client);
    let at_pod = foreign(&a, &veth, Ingress, Act::Next);
    client.ping(far.ip(), PINGS).assert_received();
    assert!(at_pod.runs() >= pings, "sees what ours redirects");
    cli::load(&a, &[]).expect("load");
    cli::unload(&a).expect("unload");
    assert_eq!(
        [filters(&a, &veth).len(), filters(&a, "eth0").len()],
        [1, 2]
    );
    assert!(has_clsact(&a, &veth) && has_clsact(&a, "eth0"));
    let all = [&early, &late, &at_pod];
    let before = all.map(Foreign::runs);
    client.ping(far.ip(), PINGS).assert_received();
    for (foreign, before) in all.iter().zip(before) {
        assert!(foreign.runs() >= before + pings);
    }
}

#[test]
fn a_qdisc_of_somebody_elses_stays_also_when_nothing_is_on_it() {
    let (_topology, [a, b]) = nodes();
    tc(&a, &["qdisc", "add", "dev", "eth0", "clsact"]);
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    client.ping(far.ip(), 2).assert_received();
    cli::unload(&a).expect("unload");
    assert!(has_clsact(&a, "eth0") && filters(&a, "eth0").is_empty());
    assert!(!has_clsact(&a, BRIDGE), "ours");
}

#[test]
fn a_filter_that_drops_before_ours_is_obeyed() {
    let (_topology, [a, b]) = nodes();
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    client.ping(far.ip(), 1).assert_received();
    let _drops = foreign(&a, &host_veth(&client), Ingress, Act::Drop);
    let echo = beeline_tests::icmp::Echo {
        timeout: std::time::Duration::from_millis(200),
        ..beeline_tests::icmp::Echo::to(far.ip())
    };
    assert_eq!(client.echo(&echo).received(), 0);
}

/// The programs of the filters at all places of a node.
fn ids(node: &Node, pod: &Pod) -> Vec<Option<u32>> {
    let id = |filter: &str| -> Option<u32> {
        let (_, rest) = filter.split_once(" id ")?;
        rest.split(' ').next()?.parse().ok()
    };
    let places = [host_veth(pod), BRIDGE.to_owned(), "eth0".to_owned()];
    let filters = places.iter().flat_map(|place| filters(node, place));
    filters.map(|filter| id(&filter)).collect()
}

#[test]
fn filters_are_swapped_under_connections() {
    let (_topology, [a, b]) = nodes();
    let [client, near, far] = three_pods(&a, &b);
    let pairs = [(&client, &near), (&client, &far), (&far, &near)];
    let before = ids(&a, &client);
    let changes: [(&str, &(dyn Fn() + Sync)); 2] = [
        ("load", &|| drop(cli::load(&a, &[]).expect("load"))),
        ("unload and load", &|| {
            cli::unload(&a).expect("unload");
            cli::load(&a, &[]).expect("load");
        }),
    ];
    for (what, change) in changes {
        let ((), tallies) = steady::during(&pairs, change).expect(what);
        tallies.iter().for_each(Tally::assert_unbroken);
    }
    let after = ids(&a, &client);
    assert!(
        !before.is_empty() && before.len() == after.len(),
        "{before:?} {after:?}"
    );
    assert!(
        after.iter().all(|id| id.is_some() && !before.contains(id)),
        "{before:?} {after:?}"
    );
}

#[test]
fn filters_are_exchanged_for_links_under_connections() {
    if !has_tcx() {
        return skip(NO_TCX);
    }
    let (_topology, [a, b]) = nodes();
    let [client, near, far] = three_pods(&a, &b);
    let pairs = [(&client, &near), (&client, &far), (&far, &near)];
    let before = ids(&a, &client);
    a.config().install().expect("install");
    let ((), tallies) = steady::during(&pairs, || {
        cli::load(&a, &[]).expect("load");
    })
    .expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    assert_eq!(ids(&a, &client), [], "filters are gone, links there");
    let links = tcx_programs(a.netns(), "eth0", Ingress).expect("query");
    assert_eq!(links.len(), 1);
    by_clsact(&a);
    cli::load(&a, &[]).expect("load");
    assert_eq!(ids(&a, &client).len(), before.len());
    client.ping(far.ip(), 2).assert_received();
}
