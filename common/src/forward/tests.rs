//! What becomes of a packet, case by case.

mod flags;
mod from_overlay;
mod from_pod;
mod from_uplink;
mod icmp_errors;
mod mutated;
mod peers;
mod stack_flows;
mod to_pod;
mod to_uplink;

use std::vec::Vec;

use super::*;
use crate::testing::{
    Attached, Builder, CLIENT, FAR, FAR_MAC, FEATURES, Frame, GATEWAY, HostMaps, Node, OVERLAY,
    OVERLAY_MAC, PEER, SERVER, STRANGER, SUBPEER, THIRD, UPLINK, UPLINK_MAC, VNI, cluster, packet,
};
use crate::{Mac, forward};

/// The first byte of the payload of the Ethernet frame, and the next ones.
const IP: usize = ip::ETHERNET;

fn to_pod(pod: &Attached) -> Verdict {
    let ifindex = pod.ifindex;
    Verdict::ToPod { ifindex }
}

/// The verdict on what goes to pods of `node`, by family.
fn to_peer(node: &Node) -> [Verdict; 2] {
    [node.v4.into(), node.v6.into()].map(|address: core::net::IpAddr| Verdict::ToPeer {
        ifindex: UPLINK,
        node: Address::from(address),
    })
}

/// Packets between two pods of this node, by family.
fn local(from: &Attached, to: &Attached) -> [Builder; 2] {
    [packet(from.v4, to.v4), packet(from.v6, to.v6)].map(|packet| packet.macs(from.mac, to.mac))
}

/// Packets of a pod to a pod of another node, by family.
fn outgoing(from: &Attached, to: &Node) -> [Builder; 2] {
    [packet(from.v4, to.pod_v4), packet(from.v6, to.pod_v6)]
        .map(|packet| packet.macs(from.mac, GATEWAY))
}

/// Packets of a pod of another node to a pod of this one, by family.
fn incoming(from: &Node, to: &Attached) -> [Builder; 2] {
    [packet(from.pod_v4, to.v4), packet(from.pod_v6, to.v6)]
        .map(|packet| packet.macs(GATEWAY, UPLINK_MAC))
}

/// Judges what `CLIENT` sends; asserts that what passes is untouched.
fn sent(frame: &Frame) -> (Verdict, Frame) {
    sent_with(&cluster(), frame)
}

fn sent_with(maps: &HostMaps, frame: &Frame) -> (Verdict, Frame) {
    judged(frame, |frame| {
        let features = Features {
            anti_spoof: false,
            ..FEATURES
        };
        from_pod(frame, maps, features, CLIENT.ifindex)
    })
}

/// Judges what comes in at the uplink; asserts that what passes is untouched.
fn received(frame: &Frame) -> (Verdict, Frame) {
    received_with(&cluster(), frame)
}

fn received_with(maps: &HostMaps, frame: &Frame) -> (Verdict, Frame) {
    judged(frame, |frame| from_uplink(frame, maps))
}

/// Judges what the stack sends to a pod of this node.
fn delivered_with(maps: &HostMaps, frame: &Frame) -> Verdict {
    judged(frame, |frame| forward::to_pod(frame, maps)).0
}

/// Judges what the stack sends to another node.
fn forwarded_with(maps: &HostMaps, frame: &Frame) -> Verdict {
    judged(frame, |frame| to_uplink(frame, maps)).0
}

/// Asserts that the hook passes the packet for the reason, and whether a flow is remembered then.
#[track_caller]
fn assert_notes(hook: Observer, maps: &HostMaps, frame: &Frame, reason: Pass, remembers: bool) {
    maps.flows.borrow_mut().clear();
    assert_eq!(hook(maps, frame), Verdict::Pass(reason), "{frame:02x?}");
    assert_eq!(!maps.flows.borrow().is_empty(), remembers, "{frame:02x?}");
}

/// A hook that only takes note of packets.
type Observer = fn(&HostMaps, &Frame) -> Verdict;

fn judged(before: &Frame, judge: impl FnOnce(&mut Frame) -> Verdict) -> (Verdict, Frame) {
    let mut after = before.clone();
    let verdict = judge(&mut after);
    if let Verdict::Pass(_) = verdict {
        assert_eq!(&after, before, "passes untouched");
    }
    (verdict, after)
}

fn assert_sent_passes(frame: &Frame, reason: Pass) {
    assert_eq!(sent(frame).0, Verdict::Pass(reason));
}

fn assert_received_passes(frame: &Frame, reason: Pass) {
    assert_eq!(received(frame).0, Verdict::Pass(reason));
}

/// Asserts that `after` is `before` one hop on, with these MACs (`None` means as before).
fn assert_routed(before: &Frame, after: &Frame, macs: Option<[Mac; 2]>) {
    let hop_limit = match before.bytes[IP] >> 4 {
        4 => IP + 8,
        _ => IP + 7,
    };
    let mut expected = before.clone();
    expected.bytes[hop_limit] -= 1;
    if let Some([destination, source]) = macs {
        expected = expected.with(0, &destination.0).with(6, &source.0);
    }
    if hop_limit == IP + 8 {
        let zeroed = expected.clone().with(IP + 10, &[0, 0]);
        let sum = crate::testing::checksum(&[&zeroed.bytes[IP..IP + 20]]);
        expected = expected.with(IP + 10, &sum.to_be_bytes());
    }
    assert_eq!(after, &expected);
    assert!(crate::testing::checksums_hold(&after.bytes));
}

/// Both families' packets with every change that makes them pass whoever sends them.
fn unjudgeable(packets: [Builder; 2]) -> Vec<(Frame, Pass)> {
    use crate::testing::Transport::Icmp;
    let [v4, v6] = packets;
    let mut cases = Vec::new();
    for ethertype in [
        [0x08, 0x06],
        [0x81, 0x00],
        [0x88, 0xa8],
        [0x88, 0xcc],
        [0, 0],
    ] {
        cases.push((v4.frame().with(12, &ethertype), Pass::NotIp));
        cases.push((v6.frame().with(12, &ethertype), Pass::NotIp));
    }
    cases.extend([
        (v4.frame().with(12, &[0x86, 0xdd]), Pass::NotIp),
        (v6.frame().with(12, &[0x08, 0x00]), Pass::NotIp),
        (v4.frame().tagged(), Pass::Tagged),
        (v6.frame().tagged(), Pass::Tagged),
        (v4.clone().fragment(0x2000).frame(), Pass::Fragment),
        (v4.clone().fragment(0x2001).frame(), Pass::Fragment),
        (v4.clone().fragment(0x0001).frame(), Pass::Fragment),
        (v4.clone().fragment(0x1fff).frame(), Pass::Fragment),
        (v6.clone().extension(44).frame(), Pass::Fragment),
        (v4.clone().options(&[1; 4]).frame(), Pass::Options),
        (v4.clone().options(&[1; 40]).frame(), Pass::Options),
        (v6.clone().extension(0).frame(), Pass::Options),
        (v6.clone().extension(60).frame(), Pass::Options),
    ]);
    for kind in [3, 4, 5, 9, 11, 12, 13, 128] {
        cases.push((v4.clone().transport(Icmp { kind }).frame(), Pass::Icmp));
    }
    for kind in [1, 2, 3, 4, 130, 133, 134, 135, 136, 137, 143, 8] {
        cases.push((v6.clone().transport(Icmp { kind }).frame(), Pass::Icmp));
    }
    cases
}

/// Every way to cut the packets off, with the number of bytes that a verdict needs.
fn cut_off(packets: &[Builder; 2]) -> impl Iterator<Item = (Frame, bool)> {
    use crate::testing::Transport::{Icmp, Udp};
    let [v4, v6] = packets.clone();
    let ping = |packet: &Builder, kind| packet.clone().transport(Icmp { kind }).frame();
    let cases = [
        (v4.frame(), IP + 20 + 14),
        (v4.clone().transport(Udp).frame(), IP + 20 + 4),
        (ping(&v4, 8), IP + 20 + 6),
        (v6.frame(), IP + 40 + 14),
        (v6.clone().transport(Udp).frame(), IP + 40 + 4),
        (ping(&v6, 128), IP + 40 + 6),
    ];
    cases.into_iter().flat_map(|(frame, needed)| {
        let lengths = 0..=frame.bytes.len();
        lengths.map(move |length| (frame.clone().truncated(length), length >= needed))
    })
}
