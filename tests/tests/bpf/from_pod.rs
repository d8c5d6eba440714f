//! What a pod sends.

use beeline_common::{
    Drop, Features, Hook, Mac, Outcome, Pass,
    abi::MIN_FLOWS,
    ip::ETHERNET,
    testing::{
        Builder, CLIENT, FAR, FEATURES, Frame, GATEWAY, PEER, SERVER, STRANGER, SUBPEER, THIRD,
        Transport, packet,
    },
};

use crate::lab::{lab, lab_with};

fn local() -> [Builder; 2] {
    [packet(CLIENT.v4, SERVER.v4), packet(CLIENT.v6, SERVER.v6)]
        .map(|packet| packet.macs(CLIENT.mac, SERVER.mac))
}

fn routed() -> [Builder; 2] {
    local().map(|packet| packet.macs(CLIENT.mac, GATEWAY))
}

fn to_peer() -> [Builder; 2] {
    [
        packet(CLIENT.v4, PEER.pod_v4),
        packet(CLIENT.v6, PEER.pod_v6),
    ]
    .map(|packet| packet.macs(CLIENT.mac, GATEWAY))
}

/// Asserts what becomes of the packets, none of which is forged.
fn assert_outcomes(frames: impl IntoIterator<Item = Frame>, outcome: Outcome) {
    let frames: Vec<Frame> = frames.into_iter().collect();
    assert_outcomes_with(true, &frames, outcome);
}

fn assert_outcomes_with(anti_spoof: bool, frames: &[Frame], outcome: Outcome) {
    let features = Features {
        anti_spoof,
        ..FEATURES
    };
    lab_with(features, MIN_FLOWS, |lab| {
        for frame in frames {
            lab.assert_outcome(Hook::FromPod, frame, outcome);
        }
    });
}

/// Asserts that the packets pass for the reason, and are dropped if what is forged shall be.
fn assert_forged(frames: impl IntoIterator<Item = Frame>, reason: Pass) {
    let frames: Vec<Frame> = frames.into_iter().collect();
    assert_outcomes_with(false, &frames, Outcome::Passed(reason));
    assert_outcomes_with(true, &frames, Outcome::Dropped(Drop::Spoofed));
}

fn assert_pass(frames: impl IntoIterator<Item = Frame>, reason: Pass) {
    assert_outcomes(frames, Outcome::Passed(reason));
}

#[test]
fn bridged_packets_are_redirected_untouched() {
    let frames = local().map(|packet| packet.frame());
    lab(|lab| {
        for frame in frames {
            lab.assert_outcome(Hook::FromPod, &frame, Outcome::ToPod);
            let output = lab.run(Hook::FromPod, &frame, false).unwrap();
            assert_eq!(output.bytes, frame.bytes);
        }
    });
}

#[test]
fn routed_packets_are_redirected_one_hop_on() {
    let frames = routed().map(|packet| packet.frame());
    lab(|lab| {
        for frame in frames {
            lab.assert_outcome(Hook::FromPod, &frame, Outcome::ToPod);
            let output = lab.run(Hook::FromPod, &frame, false).unwrap();
            assert_eq!(output.bytes[..6], SERVER.mac.0);
            assert_eq!(output.bytes[6..12], GATEWAY.0);
            assert!(beeline_common::testing::checksums_hold(&output.bytes));
        }
    });
}

#[test]
fn every_transport_is_redirected() {
    let mut frames = Vec::new();
    for packet in [local(), routed()].concat() {
        for transport in [
            Transport::Tcp { options: 12 },
            Transport::Udp,
            Transport::Sctp,
        ] {
            frames.push(packet.clone().transport(transport).frame());
        }
    }
    for (packet, kinds) in local().into_iter().zip([[0, 8], [128, 129]]) {
        frames.extend(kinds.map(|kind| packet.clone().transport(Transport::Icmp { kind }).frame()));
    }
    assert_outcomes(frames, Outcome::ToPod);
}

#[test]
fn packets_for_peers_are_redirected_to_them() {
    let [v4, v6] = to_peer();
    let sub = [
        packet(CLIENT.v4, SUBPEER.pod_v4),
        packet(CLIENT.v6, SUBPEER.pod_v6),
    ];
    let sub = sub.map(|packet| packet.macs(CLIENT.mac, GATEWAY).frame());
    let mut frames = vec![v4.frame(), v6.frame(), v4.fragment(0x4000).frame()];
    frames.extend(sub);
    assert_outcomes(frames, Outcome::ToPeer);
}

#[test]
fn packets_for_peers_behind_the_overlay_are_redirected_into_it() {
    let far = [packet(CLIENT.v4, FAR.pod_v4), packet(CLIENT.v6, FAR.pod_v6)];
    let far = far.map(|packet| packet.macs(CLIENT.mac, GATEWAY));
    let frames = far.clone().map(|packet| packet.frame());
    assert_outcomes(frames, Outcome::ToOverlay);
    assert_pass(far.map(|packet| packet.payload(1420).frame()), Pass::TooBig);
}

#[test]
fn the_largest_packets_that_fit_the_uplink_are_redirected() {
    let [v4, v6] = to_peer();
    let v4 = [
        v4.clone().payload(1460).frame(),
        v4.payload(1460).frame().segmented(1460),
    ];
    let v6 = [
        v6.clone().payload(1440).frame(),
        v6.payload(1440).frame().segmented(1440),
    ];
    assert_outcomes([v4, v6].concat(), Outcome::ToPeer);
}

#[test]
fn packets_that_exceed_the_uplink_pass() {
    let [v4, v6] = to_peer();
    let timestamps = Transport::Tcp { options: 12 };
    let frames = vec![
        v4.clone().payload(1461).frame(),
        v6.clone().payload(1441).frame(),
        v4.clone().payload(3000).frame().segmented(1461),
        v6.clone().payload(3000).frame().segmented(1441),
        v4.clone()
            .transport(timestamps)
            .payload(3000)
            .frame()
            .segmented(1449),
        v6.clone()
            .transport(timestamps)
            .payload(3000)
            .frame()
            .segmented(1429),
        v4.transport(Transport::Udp)
            .payload(3000)
            .frame()
            .segmented(1473),
        v6.transport(Transport::Udp)
            .payload(3000)
            .frame()
            .segmented(1453),
    ];
    assert_pass(frames, Pass::TooBig);
}

#[test]
fn other_protocols_pass() {
    let [v4, v6] = local();
    let mut frames = vec![v4.frame().with(14, &[0x44]), v6.frame().with(14, &[0x40])];
    for ethertype in [[0x81, 0x00], [0x88, 0xa8], [0, 40]] {
        frames.push(v4.frame().with(12, &ethertype));
    }
    assert_pass(frames, Pass::NotIp);
    let confused = [
        v4.frame().with(12, &[0x86, 0xdd]),
        v6.frame().with(12, &[0x08, 0x00]),
        v4.frame().with(12, &[0x08, 0x06]),
    ];
    assert_forged(confused, Pass::NotIp);
}

#[test]
fn packets_for_other_macs_pass() {
    let mut frames = Vec::new();
    for mac in [THIRD.mac, CLIENT.mac, Mac([0xff; 6]), Mac([0; 6])] {
        for packet in [local(), to_peer()].concat() {
            frames.push(packet.macs(CLIENT.mac, mac).frame());
        }
    }
    assert_pass(frames, Pass::OtherMac);
}

#[test]
fn fragments_pass() {
    let mut frames = Vec::new();
    for [v4, v6] in [local(), to_peer()] {
        frames.extend([0x2000, 0x0001, 0x1fff].map(|bits| v4.clone().fragment(bits).frame()));
        frames.push(v6.extension(44).frame());
    }
    assert_pass(frames, Pass::Fragment);
}

#[test]
fn options_and_extension_headers_pass() {
    let mut frames = Vec::new();
    for [v4, v6] in [local(), to_peer()] {
        frames.extend([4, 40].map(|length| v4.clone().options(&[1; 40][..length]).frame()));
        frames.extend([0, 43, 60].map(|kind| v6.clone().extension(kind).frame()));
    }
    assert_pass(frames, Pass::Options);
}

#[test]
fn icmp_errors_and_neighbour_discovery_pass() {
    let [v4, v6] = local();
    let icmp = |packet: &Builder, kind| packet.clone().transport(Transport::Icmp { kind }).frame();
    let mut frames = [3, 4, 5, 11, 12].map(|kind| icmp(&v4, kind)).to_vec();
    frames.extend([1, 2, 3, 4, 133, 135].map(|kind| icmp(&v6, kind)));
    assert_pass(frames, Pass::Icmp);
    let advertisement = icmp(&v6, 136);
    let own = ETHERNET + 48;
    assert_pass(
        [advertisement.clone().with(own, &CLIENT.v6.octets())],
        Pass::Icmp,
    );
    assert_forged([advertisement.with(own, &SERVER.v6.octets())], Pass::Icmp);
}

#[test]
fn sources_that_are_not_the_pods_pass() {
    let forged = [
        packet(THIRD.v4, SERVER.v4),
        packet(THIRD.v6, SERVER.v6),
        packet(STRANGER.pod_v4, SERVER.v4),
        packet(PEER.pod_v6, SERVER.v6),
    ];
    let frames = forged.map(|packet| packet.macs(CLIENT.mac, SERVER.mac).frame());
    assert_forged(frames, Pass::NotFromPod);
    let macs = local().map(|packet| packet.macs(THIRD.mac, SERVER.mac).frame());
    assert_forged(macs, Pass::NotFromPod);
}

#[test]
fn destinations_that_are_no_pods_pass() {
    let out = [
        packet(CLIENT.v4, STRANGER.pod_v4),
        packet(CLIENT.v6, STRANGER.pod_v6),
    ];
    let frames = out.map(|packet| packet.macs(CLIENT.mac, GATEWAY).frame());
    assert_pass(frames, Pass::NotToPod);
}

#[test]
fn packets_to_the_pod_itself_pass() {
    let own = [packet(CLIENT.v4, CLIENT.v4), packet(CLIENT.v6, CLIENT.v6)];
    let frames = own.map(|packet| packet.macs(CLIENT.mac, GATEWAY).frame());
    assert_pass(frames, Pass::SamePod);
}

#[test]
fn hop_limits_that_end_here_pass() {
    let mut frames = Vec::new();
    for packet in [routed(), to_peer()].concat() {
        frames.extend([0, 1].map(|hop_limit| packet.clone().hop_limit(hop_limit).frame()));
    }
    assert_pass(frames, Pass::HopLimit);
}
