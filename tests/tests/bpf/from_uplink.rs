//! What comes in from other nodes.

use beeline_common::{
    Hook, Outcome, Pass,
    testing::{
        Builder, CLIENT, Frame, GATEWAY, PEER, SERVER, STRANGER, SUBPEER, Transport, UPLINK_MAC,
        packet,
    },
};

use crate::lab::lab;

fn incoming() -> [Builder; 2] {
    [
        packet(PEER.pod_v4, CLIENT.v4),
        packet(SUBPEER.pod_v6, CLIENT.v6),
    ]
    .map(|packet| packet.macs(GATEWAY, UPLINK_MAC))
}

fn assert_pass(frames: impl IntoIterator<Item = Frame> + Send, reason: Pass) {
    lab(|lab| {
        for frame in frames {
            lab.assert_outcome(Hook::FromUplink, &frame, Outcome::Passed(reason));
        }
    });
}

#[test]
fn peers_packets_are_delivered_one_hop_on() {
    let frames = incoming().map(|packet| packet.frame());
    lab(|lab| {
        for frame in frames {
            lab.assert_outcome(Hook::FromUplink, &frame, Outcome::ToPod);
            let output = lab.run(Hook::FromUplink, &frame, false).unwrap();
            assert_eq!(output.bytes[..6], CLIENT.mac.0);
            assert_eq!(output.bytes[6..12], GATEWAY.0);
            assert!(beeline_common::testing::checksums_hold(&output.bytes));
        }
    });
}

#[test]
fn aggregates_are_delivered_whole() {
    let frames = incoming().map(|packet| packet.payload(3000).frame().segmented(1400));
    lab(|lab| {
        for frame in frames {
            lab.assert_outcome(Hook::FromUplink, &frame, Outcome::ToPod);
        }
    });
}

#[test]
fn packets_for_other_macs_pass() {
    let frames = incoming().map(|packet| packet.macs(UPLINK_MAC, GATEWAY).frame());
    assert_pass(frames, Pass::OtherMac);
}

#[test]
fn sources_in_no_peers_cidr_pass() {
    let pairs = [
        packet(STRANGER.pod_v4, CLIENT.v4),
        packet(STRANGER.pod_v6, CLIENT.v6),
        packet(SERVER.v4, CLIENT.v4),
        packet(SERVER.v6, CLIENT.v6),
    ];
    let frames = pairs.map(|packet| packet.macs(GATEWAY, UPLINK_MAC).frame());
    assert_pass(frames, Pass::NotFromPod);
}

#[test]
fn destinations_that_are_no_pods_pass() {
    let pairs = [
        packet(PEER.pod_v4, STRANGER.v4),
        packet(PEER.pod_v6, SUBPEER.pod_v6),
    ];
    let frames = pairs.map(|packet| packet.macs(GATEWAY, UPLINK_MAC).frame());
    assert_pass(frames, Pass::NotToPod);
}

#[test]
fn what_only_the_stack_can_judge_passes() {
    let [v4, v6] = incoming();
    let icmp = |packet: &Builder, kind| packet.clone().transport(Transport::Icmp { kind }).frame();
    let cases = [
        (v4.frame().with(12, &[0x08, 0x06]), Pass::NotIp),
        (v6.frame().with(14, &[0x40]), Pass::NotIp),
        (v4.clone().fragment(0x2000).frame(), Pass::Fragment),
        (v6.clone().extension(44).frame(), Pass::Fragment),
        (v4.clone().options(&[1; 8]).frame(), Pass::Options),
        (v6.clone().extension(0).frame(), Pass::Options),
        (icmp(&v4, 3), Pass::Icmp),
        (icmp(&v6, 2), Pass::Icmp),
        (v4.clone().hop_limit(1).frame(), Pass::HopLimit),
        (v6.clone().hop_limit(0).frame(), Pass::HopLimit),
    ];
    lab(|lab| {
        for (frame, reason) in &cases {
            lab.assert_outcome(Hook::FromUplink, frame, Outcome::Passed(*reason));
        }
    });
}
