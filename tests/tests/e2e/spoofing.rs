//! `datapath.antiSpoof`: what a pod sends in somebody else's name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use beeline_common::Mac;
use beeline_common::testing::{Transport, packet};
use beeline_tests::cli;
use beeline_tests::node::{BRIDGE, Node};
use beeline_tests::pod::Pod;
use beeline_tests::traffic::tcp_echo;
use beeline_tests::wait;
use beeline_tests::wire::Wire;
use serde_json::json;

use crate::fixture::{configure, fast_node, fast_pair};
use crate::refusals::{refused, sandbox};

const DROPPED: &str = "from_pod/drop_spoofed";
const BROADCAST: Mac = Mac([0xff; 6]);
/// Ends every frame, so that it is known wherever it turns up.
const MARK: &[u8] = b"sent by this test";

pub(crate) fn mac(text: &str) -> Mac {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().expect("a MAC");
    Mac(bytes.try_into().expect("six bytes"))
}

pub(crate) fn bridge_mac(node: &Node) -> Mac {
    let path = format!("/sys/class/net/{BRIDGE}/address");
    // Another namespace has another /sys; `ip` asks the kernel.
    let link = node
        .netns()
        .command("ip")
        .args(["-json", "link", "show", BRIDGE])
        .output();
    let link: serde_json::Value = serde_json::from_slice(&link.expect("ip").stdout).expect(&path);
    mac(link[0]["address"].as_str().expect("a MAC"))
}

fn marked(mut frame: Vec<u8>) -> Vec<u8> {
    frame.extend(MARK);
    frame
}

fn is_marked(frame: &[u8]) -> bool {
    frame.windows(MARK.len()).any(|window| window == MARK)
}

/// An echo reply that nobody asked for, hence answers, with the mark as its payload.
fn v4(macs: [Mac; 2], source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Vec<u8> {
    v4_of(macs, source, destination, Transport::Icmp { kind: 0 })
}

fn v4_of(
    macs: [Mac; 2],
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    what: Transport,
) -> Vec<u8> {
    let [from, to] = macs;
    let builder = packet(source, destination).macs(from, to).transport(what);
    let frame = builder.payload(MARK.len()).frame();
    let at = frame.bytes.len() - MARK.len();
    frame.with(at, MARK).bytes
}

fn v6(macs: [Mac; 2], source: &str, destination: &str, transport: Transport) -> Vec<u8> {
    let parse = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let [from, to] = macs;
    let builder = packet(parse(source), parse(destination)).macs(from, to);
    let frame = builder
        .transport(transport)
        .payload(16 + MARK.len())
        .frame();
    let at = frame.bytes.len() - MARK.len();
    frame.with(at, MARK).bytes
}

fn neighbour(macs: [Mac; 2], kind: u8, source: &str, target: &str) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().expect("an address");
    let mut frame = v6(macs, source, "ff02::1", Transport::Icmp { kind });
    // Behind Ethernet, IPv6 and four bytes each of ICMPv6's header and flags.
    frame[62..78].copy_from_slice(&target.octets());
    frame
}

/// An IPv4 address in network order.
fn octets(ip: impl Into<IpAddr>) -> [u8; 4] {
    match ip.into() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => panic!("{ip} is no IPv4 address"),
    }
}

/// An ARP request, or with `operation` 2 a reply.
fn arp(
    macs: [Mac; 2],
    operation: u8,
    sender: (Mac, impl Into<IpAddr>),
    target: impl Into<IpAddr>,
) -> Vec<u8> {
    let [from, to] = macs;
    let mut bytes = [to.0, from.0].concat();
    bytes.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation]);
    bytes.extend(sender.0.0);
    bytes.extend(octets(sender.1));
    bytes.extend([0; 6]);
    bytes.extend(octets(target));
    marked(bytes)
}

/// A pod that forges, one beside it, and one on another node.
struct Scene<'a> {
    evil: &'a Pod,
    near: &'a Pod,
    far: &'a Pod,
}

impl Scene<'_> {
    fn node(&self) -> &Arc<Node> {
        self.evil.node()
    }

    /// Frames in others' names, to everybody who could believe them.
    fn forged(&self) -> Vec<(&'static str, Vec<u8>)> {
        let (own, near) = (mac(self.evil.mac()), mac(self.near.mac()));
        let gateway = bridge_mac(self.node());
        let (to_near, to_node) = ([own, near], [own, gateway]);
        let nobody = Ipv4Addr::new(10, 244, 1, 200);
        let (me, near_ip, far_ip) = (self.evil.ip(), self.near.ip(), self.far.ip());
        let stolen = Mac([2, 0, 0, 0, 0, 7]);
        vec![
            ("IPv4 of nobody to a pod", v4(to_near, nobody, near_ip)),
            (
                "IPv4 of the gateway to a pod",
                v4(to_near, self.evil.gateway(), near_ip),
            ),
            (
                "IPv4 of nobody to a peer's pod",
                v4(to_node, nobody, far_ip),
            ),
            (
                "IPv4 of a pod to a peer's pod",
                v4(to_node, near_ip, far_ip),
            ),
            (
                "IPv4 of a peer's pod to the node",
                v4(to_node, far_ip, self.evil.gateway()),
            ),
            ("MAC of nobody", v4([stolen, near], me, near_ip)),
            ("MAC of the gateway", v4([gateway, near], me, near_ip)),
            (
                "ARP of the gateway",
                arp([own, BROADCAST], 1, (own, self.evil.gateway()), near_ip),
            ),
            ("ARP of a pod", arp([own, gateway], 2, (own, near_ip), me)),
            (
                "ARP with another MAC",
                arp([own, BROADCAST], 2, (stolen, me), near_ip),
            ),
            (
                "IPv6 of nobody",
                v6(to_near, "fd00:244:1::66", "fd00:244:1::3", Transport::Udp),
            ),
            (
                "advertisement for another",
                neighbour(to_near, 136, "fe80::1", "fd00:244:1::3"),
            ),
        ]
    }

    /// Frames that a pod with nothing to hide sends.
    fn honest(&self) -> Vec<(&'static str, Vec<u8>)> {
        let own = mac(self.evil.mac());
        let all = [own, BROADCAST];
        let (me, nobody) = (self.evil.ip(), Ipv4Addr::UNSPECIFIED);
        let nodes = [own, Mac([0x33, 0x33, 0, 0, 0, 1])];
        vec![
            (
                "DHCP discover",
                v4_of(all, nobody, Ipv4Addr::BROADCAST, Transport::Udp),
            ),
            ("ARP probe", arp(all, 1, (own, nobody), me)),
            ("gratuitous ARP", arp(all, 1, (own, me), me)),
            (
                "duplicate address detection",
                neighbour(nodes, 135, "::", "fd00:244:1::2"),
            ),
            (
                "link-local advertisement",
                neighbour(nodes, 136, "fe80::2", "fe80::2"),
            ),
            ("broadcast", v4(all, me, Ipv4Addr::BROADCAST)),
        ]
    }
}

fn dropped(node: &Node) -> u64 {
    node.counters().expect("counters")[DROPPED]
}

/// Waits until the program has counted so many.
#[track_caller]
fn assert_drops(node: &Node, expected: u64, what: &str) {
    let deadline = wait::deadline(Duration::from_secs(5));
    while dropped(node) < expected && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(dropped(node), expected, "{what}");
}

fn guard(node: &Node) {
    configure(node, |plugin| plugin["datapath"]["antiSpoof"] = json!(true));
}

#[test]
fn what_a_pod_forges_is_dropped_and_counted_and_nobody_sees_it() {
    let (_topology, [a, b]) = fast_pair();
    [&a, &b].into_iter().for_each(|node| guard(node));
    let (evil, near, far) = (a.add_pod("evil"), a.add_pod("near"), b.add_pod("far"));
    let scene = Scene {
        evil: &evil,
        near: &near,
        far: &far,
    };
    let open = |namespace, interface| Wire::open(namespace, interface).expect("wire");
    let observers = [
        ("the pod beside it", open(near.namespace(), "eth0")),
        ("the pod on the other node", open(far.namespace(), "eth0")),
        ("the node", open(a.netns(), BRIDGE)),
        ("the underlay", open(a.netns(), "eth0")),
    ];
    let wire = open(evil.namespace(), "eth0");
    let forged = scene.forged();
    for (count, (what, frame)) in (1..).zip(&forged) {
        wire.send(frame).expect(what);
        assert_drops(&a, count, what);
    }
    // What is honest, and comes after it, arrives where all the forged could have.
    for (what, frame) in [
        (
            "near",
            v4([mac(evil.mac()), mac(near.mac())], evil.ip(), near.ip()),
        ),
        (
            "far",
            v4([mac(evil.mac()), bridge_mac(&a)], evil.ip(), far.ip()),
        ),
    ] {
        wire.send(&frame).expect(what);
    }
    for (who, wire) in &observers[..2] {
        let frame = wire.find(Duration::from_secs(5), is_marked).expect(who);
        let frame = frame.unwrap_or_else(|| panic!("{who} sees the honest packet"));
        assert_eq!(
            frame[26..30],
            octets(evil.ip()),
            "{who} sees a forged packet"
        );
    }
    for (who, wire) in &observers {
        let forged = |frame: &[u8]| is_marked(frame) && frame[26..30] != octets(evil.ip());
        let seen = wire.find(Duration::from_millis(100), forged).expect(who);
        assert_eq!(seen, None, "{who} sees a forged packet");
    }
    assert_eq!(dropped(&a), forged.len() as u64);
    assert_eq!(dropped(&b), 0);
}

#[test]
fn honest_pods_notice_nothing_of_the_rule() {
    let (_topology, [a, b]) = fast_pair();
    [&a, &b].into_iter().for_each(|node| guard(node));
    let (pod, near, far) = (a.add_pod("pod"), a.add_pod("near"), b.add_pod("far"));
    let before = a.counters().expect("counters");
    for other in [&near, &far] {
        pod.ping(other.ip(), 3).assert_received();
        other.ping(pod.ip(), 3).assert_received();
        tcp_echo(pod.namespace(), other.namespace(), other.ip(), b"hello").expect("TCP");
    }
    pod.ping(pod.gateway(), 2).assert_received();
    let fast = |name| a.counters().expect("counters")[name] - before[name];
    assert!(fast("from_pod/to_pod") > 10 && fast("from_pod/to_peer") > 5);
    let seen = Wire::open(near.namespace(), "eth0").expect("wire");
    let wire = Wire::open(pod.namespace(), "eth0").expect("wire");
    let scene = Scene {
        evil: &pod,
        near: &near,
        far: &far,
    };
    for (what, frame) in scene.honest() {
        wire.send(&frame).expect(what);
        let same = |seen: &[u8]| seen == frame;
        let arrived = seen.find(Duration::from_secs(5), same).expect(what);
        assert!(arrived.is_some(), "{what} does not arrive");
    }
    assert_eq!((dropped(&a), dropped(&b)), (0, 0));
}

#[test]
fn without_the_rule_forged_packets_take_the_slow_path_as_on_the_plain_bridge() {
    for mode in ["auto", "bridge"] {
        let (_topology, [a, b]) = fast_pair();
        for node in [&a, &b] {
            configure(node, |plugin| plugin["datapath"]["mode"] = json!(mode));
        }
        let (evil, near, far) = (a.add_pod("evil"), a.add_pod("near"), b.add_pod("far"));
        let scene = Scene {
            evil: &evil,
            near: &near,
            far: &far,
        };
        let open = |namespace, interface| Wire::open(namespace, interface).expect("wire");
        let (at_near, at_far) = (
            open(near.namespace(), "eth0"),
            open(far.namespace(), "eth0"),
        );
        let at_node = open(a.netns(), BRIDGE);
        let wire = open(evil.namespace(), "eth0");
        for (what, frame) in scene.forged() {
            let to = match what {
                _ if what.contains("peer's pod to the node") => &at_node,
                _ if what.contains("to a peer's pod") => &at_far,
                "ARP of a pod" => &at_node,
                // The bridge takes its own address for a sign of a loop.
                "MAC of the gateway" => continue,
                _ => &at_near,
            };
            wire.send(&frame).expect(what);
            let arrived = to.find(Duration::from_secs(5), is_marked).expect(what);
            assert!(arrived.is_some(), "mode {mode}: {what} does not arrive");
        }
        if mode == "auto" {
            let counters = a.counters().expect("counters");
            assert_eq!(counters[DROPPED], 0);
            let fast = ["from_pod/to_pod", "from_pod/to_peer"].map(|name| counters[name]);
            assert_eq!(fast, [0, 0], "{counters:?}");
        }
    }
}

#[test]
fn the_rule_is_refused_where_there_are_to_be_no_programs() {
    let (_topology, node) = fast_node();
    let (_namespace, attachment) = sandbox(&node);
    let config = node.config().mode("bridge");
    let config = config.with(|plugin| plugin["datapath"]["antiSpoof"] = json!(true));
    let message = refused(&node, &attachment, &config.stdin().to_string(), &[7]);
    assert!(message.contains("antiSpoof"), "{message}");
}

#[test]
fn a_rule_that_does_not_hold_is_said_at_every_add_and_in_status() {
    let (_topology, node) = fast_node();
    let pins = node.directory().join("no-bpffs").display().to_string();
    let config = node.config().version("1.1.0").with(|plugin| {
        plugin["datapath"]["antiSpoof"] = json!(true);
        plugin["datapath"]["bpffsDir"] = json!(pins);
    });
    config.install().expect("install");
    for name in ["first", "second"] {
        let pod = node.add_pod(name);
        assert!(
            pod.add_stderr().contains("antiSpoof"),
            "{:?}",
            pod.add_stderr()
        );
        let status = cli::status_text(&node).expect("status");
        assert!(status.contains("antiSpoof"), "{status}");
    }
    let status = node.runtime().status().expect("executed");
    assert!(status.stderr.contains("antiSpoof"), "{status}");
}

#[test]
fn the_rule_can_be_turned_on_and_off_under_running_pods() {
    let (_topology, [a, b]) = fast_pair();
    let (evil, near, far) = (a.add_pod("evil"), a.add_pod("near"), b.add_pod("far"));
    let scene = Scene {
        evil: &evil,
        near: &near,
        far: &far,
    };
    let wire = Wire::open(evil.namespace(), "eth0").expect("wire");
    let (what, frame) = scene.forged().swap_remove(0);
    wire.send(&frame).expect(what);
    assert_eq!(dropped(&a), 0);
    guard(&a);
    cli::load(&a, &[]).expect("load");
    wire.send(&frame).expect(what);
    assert_drops(&a, 1, "turned on");
    cli::unload(&a).expect("unload");
    let status = cli::status_text(&a).expect("status");
    assert!(status.contains("antiSpoof"), "{status}");
    a.config().install().expect("install");
    cli::load(&a, &[]).expect("load");
    let seen = Wire::open(near.namespace(), "eth0").expect("wire");
    wire.send(&frame).expect(what);
    let arrived = seen.find(Duration::from_secs(5), is_marked).expect("wire");
    assert!(arrived.is_some(), "turned off");
    assert_eq!(dropped(&a), 0);
}
