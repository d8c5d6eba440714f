//! Programs of others on the interfaces that ours are on: tcx before, classic filters, and how they live together.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::programs::TcAttachType::{self, Egress, Ingress};
use beeline_tests::cli;
use beeline_tests::exec;
use beeline_tests::foreign::{Act, Foreign, Order, tcx_programs};
use beeline_tests::icmp::{self, Echo};
use beeline_tests::kernel::{NO_TCX, has_tcx};
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::skip::skip;
use beeline_tests::wait;
use beeline_tests::wire::Wire;

use crate::fixture::{fast_node, fast_pair};

/// Each ping is a request and a reply.
const PINGS: usize = 5;

fn pin(node: &Node, name: &str) -> PathBuf {
    node.bpffs_dir().join(name)
}

pub(crate) fn host_veth(pod: &Pod) -> String {
    let interfaces = &pod.result()["interfaces"];
    interfaces[1]["name"]
        .as_str()
        .expect("a host veth")
        .to_owned()
}

fn tcx(node: &Node, interface: &str, direction: TcAttachType, order: Order, act: Act) -> Foreign {
    let pin = pin(node, &format!("{interface}-{direction:?}-{order:?}"));
    Foreign::tcx(node.netns(), interface, direction, order, act, &pin).expect("tcx")
}

fn attached(node: &Node, interface: &str, direction: TcAttachType) -> Vec<u32> {
    tcx_programs(node.netns(), interface, direction).expect("query")
}

fn fast(node: &Node) -> u64 {
    let counters = node.counters().expect("counters");
    let fast = ["from_pod/to_pod", "from_pod/to_peer", "from_uplink/to_pod"];
    fast.iter().map(|name| counters[*name]).sum()
}

fn unanswered(from: &Pod, to: &Pod) -> bool {
    let echo = Echo {
        timeout: Duration::from_millis(200),
        ..Echo::to(to.ip())
    };
    from.echo(&echo).received() == 0
}

#[test]
fn tcx_programs_before_ours_see_everything_and_those_behind_what_ours_passes() {
    if !has_tcx() {
        return skip(NO_TCX);
    }
    let (_topology, [a, b]) = fast_pair();
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    client.ping(near.ip(), 1).assert_received();
    client.ping(far.ip(), 1).assert_received();
    let veth = host_veth(&client);
    let add = |interface: &str, direction, order| tcx(&a, interface, direction, order, Act::Next);
    let (first, last) = (
        add(&veth, Ingress, Order::First),
        add(&veth, Ingress, Order::Last),
    );
    let (uplink_first, uplink_last) = (
        add("eth0", Ingress, Order::First),
        add("eth0", Ingress, Order::Last),
    );
    let (out_first, out_last) = (
        add("eth0", Egress, Order::First),
        add("eth0", Egress, Order::Last),
    );
    let before = fast(&a);
    client.ping(near.ip(), PINGS).assert_received();
    client.ping(far.ip(), PINGS).assert_received();
    assert_eq!(fast(&a) - before, 4 * PINGS as u64, "all by the fast path");
    let pings = PINGS as u64;
    assert!(first.runs() >= 2 * pings, "{}", first.runs());
    assert!(
        last.runs() < pings,
        "what ours redirects ends there: {}",
        last.runs()
    );
    assert!(uplink_first.runs() >= pings && uplink_last.runs() < pings);
    assert!(
        out_first.runs() >= pings && out_last.runs() >= pings,
        "nothing ends at egress"
    );
    icmp::ping(a.netns(), &Echo::to(client.ip())).assert_received();
    let (passed, of) = (last.runs(), first.runs());
    client.ping(client.gateway(), PINGS).assert_received();
    assert!(
        last.runs() >= passed + pings && first.runs() >= of + pings,
        "to the node"
    );
}

#[test]
fn tcx_programs_of_others_stay_and_work_when_ours_are_swapped_and_go() {
    if !has_tcx() {
        return skip(NO_TCX);
    }
    let (_topology, [a, b]) = fast_pair();
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    let veth = host_veth(&client);
    let places = [
        (veth.as_str(), Ingress),
        ("eth0", Ingress),
        ("eth0", Egress),
    ];
    let foreign = places.map(|(interface, direction)| {
        [Order::First, Order::Last].map(|order| tcx(&a, interface, direction, order, Act::Next))
    });
    let ids = |foreign: &[Foreign; 2]| foreign.each_ref().map(Foreign::id);
    let assert_there = |ours: usize| {
        for ((interface, direction), foreign) in places.iter().zip(&foreign) {
            // The kernel detaches from a work queue.
            let deadline = wait::deadline(Duration::from_secs(5));
            let mut there = attached(&a, interface, *direction);
            while there.len() != 2 + ours && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                there = attached(&a, interface, *direction);
            }
            let [first, last] = ids(foreign);
            assert_eq!(there.len(), 2 + ours, "{interface} {direction:?}");
            let order: Vec<u32> = there
                .into_iter()
                .filter(|id| [first, last].contains(id))
                .collect();
            assert_eq!(order, [first, last]);
        }
    };
    assert_there(1);
    cli::load(&a, &[]).expect("load");
    assert_there(1);
    a.add_pod("other").delete().expect("DEL");
    assert_there(1);
    cli::unload(&a).expect("unload");
    assert_there(0);
    let before = foreign
        .each_ref()
        .map(|pair| pair.each_ref().map(Foreign::runs));
    client.ping(far.ip(), PINGS).assert_received();
    for (pair, before) in foreign.iter().zip(before) {
        for (foreign, before) in pair.iter().zip(before) {
            assert!(foreign.runs() >= before + PINGS as u64);
        }
    }
    cli::load(&a, &[]).expect("load");
    assert_there(1);
    client.ping(far.ip(), PINGS).assert_received();
}

#[test]
fn a_program_that_decides_before_ours_is_obeyed() {
    if !has_tcx() {
        return skip(NO_TCX);
    }
    let (_topology, node) = fast_node();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    client.ping(server.ip(), 1).assert_received();
    let veth = host_veth(&client);
    let before = fast(&node);
    let drops = tcx(&node, &veth, Ingress, Order::First, Act::Drop);
    assert!(unanswered(&client, &server));
    let id = drops.id();
    drop(drops);
    // The kernel detaches from a work queue.
    let deadline = wait::deadline(Duration::from_secs(5));
    while attached(&node, &veth, Ingress).contains(&id) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    client.ping(server.ip(), 1).assert_received();
    assert_eq!(fast(&node), before + 2);

    let passes = tcx(&node, &veth, Ingress, Order::First, Act::Pass);
    client.ping(server.ip(), PINGS).assert_received();
    // Answers keep to the path of what they answer.
    assert_eq!(fast(&node), before + 2);
    drop(passes);

    let commands = [
        "link add sink type veth peer name drain",
        "link set sink up",
        "link set drain up",
    ];
    exec::ip_batch(node.netns(), &commands.map(str::to_owned)).expect("ip");
    let index = node
        .netns()
        .within(|| nix::net::if_::if_nametoindex("sink"))
        .expect("sink");
    let wire = Wire::open(node.netns(), "drain").expect("wire");
    let _redirects = tcx(&node, &veth, Ingress, Order::First, Act::Redirect(index));
    assert!(unanswered(&client, &server));
    let IpAddr::V4(source) = client.ip() else {
        panic!("{} is no IPv4 address", client.ip());
    };
    let echo = |frame: &[u8]| frame.len() > 34 && frame[26..30] == source.octets();
    let arrived = wire.find(Duration::from_secs(5), echo).expect("wire");
    assert!(
        arrived.is_some(),
        "the packet goes where the other program sends it"
    );
}

#[test]
fn what_others_let_pass_at_egress_is_still_remembered_and_unmarked() {
    if !has_tcx() {
        return skip(NO_TCX);
    }
    let (_topology, [a, b]) = fast_pair();
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    client.ping(far.ip(), 1).assert_received();
    let _passes = [
        tcx(&a, "eth0", Egress, Order::Last, Act::Pass),
        tcx(
            &a,
            beeline_tests::node::BRIDGE,
            Egress,
            Order::Last,
            Act::Pass,
        ),
    ];
    cli::unload(&a).expect("unload");
    cli::load(&a, &[]).expect("load");
    let before = a.counters().expect("counters");
    client.ping(far.ip(), PINGS).assert_received();
    let redirected = "to_uplink/pass_redirected";
    let grown = a.counters().expect("counters")[redirected] - before[redirected];
    assert_eq!(grown, PINGS as u64, "our program looks on first");
}

fn classic(
    node: &Node,
    interface: &str,
    direction: TcAttachType,
    priority: u16,
    act: Act,
) -> Foreign {
    let pin = pin(node, &format!("{interface}-{direction:?}-{priority}"));
    Foreign::classic(node.netns(), interface, direction, priority, act, &pin).expect("filter")
}

fn filters(node: &Arc<Node>, interface: &str) -> String {
    ["ingress", "egress"]
        .map(|hook| {
            let mut tc = node.netns().command("tc");
            exec::stdout(tc.args(["filter", "show", "dev", interface, hook])).expect("tc")
        })
        .concat()
}

#[test]
fn classic_filters_of_others_stay_and_see_what_ours_pass() {
    let (_topology, [a, b]) = fast_pair();
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    let veth = host_veth(&client);
    let at_pod = classic(&a, &veth, Ingress, 0, Act::Next);
    let incoming = classic(&a, "eth0", Ingress, 0, Act::Next);
    let outgoing = classic(&a, "eth0", Egress, 0, Act::Next);
    let pings = PINGS as u64;
    client.ping(far.ip(), PINGS).assert_received();
    assert!(outgoing.runs() >= pings, "what leaves the uplink");
    client.ping(client.gateway(), PINGS).assert_received();
    assert!(at_pod.runs() >= pings, "what the pod sends to the node");
    icmp::ping(
        b.netns(),
        &Echo {
            count: PINGS,
            ..Echo::to(a.address())
        },
    )
    .assert_received();
    assert!(incoming.runs() >= pings, "what comes for the node");
    let there = |interface: &str| filters(&a, interface).matches("direct-action").count();
    cli::load(&a, &[]).expect("load");
    near.delete().expect("DEL");
    cli::unload(&a).expect("unload");
    assert_eq!([there(&veth), there("eth0")], [1, 2]);
    let before = at_pod.runs();
    client.ping(far.ip(), PINGS).assert_received();
    assert!(at_pod.runs() >= before + pings);
}
