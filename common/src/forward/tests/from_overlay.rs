//! The overlay, in both directions.

use super::*;
use crate::testing::Transport::{Tcp, Udp};

fn to_overlay(frame: &Frame, features: Features) -> (Verdict, Frame) {
    judged(frame, |frame| {
        from_pod(frame, &cluster(), features, CLIENT.ifindex)
    })
}

fn out_of_overlay(frame: &Frame, features: Features) -> (Verdict, Frame) {
    judged(frame, |frame| from_overlay(frame, &cluster(), features))
}

/// The verdict on what goes to pods of `FAR`, by family.
fn to_far() -> [Verdict; 2] {
    [FAR.v4.into(), FAR.v6.into()].map(|node: core::net::IpAddr| Verdict::ToOverlay {
        ifindex: OVERLAY,
        node: Address::from(node),
        vni: VNI,
    })
}

#[test]
fn a_packet_to_a_peer_behind_the_overlay_is_routed_into_it() {
    for (packet, expected) in outgoing(&CLIENT, &FAR).into_iter().zip(to_far()) {
        let frame = packet.frame();
        let (verdict, after) = to_overlay(&frame, FEATURES);
        assert_eq!(verdict, expected);
        assert_routed(&frame, &after, Some([FAR_MAC, OVERLAY_MAC]));
    }
}

#[test]
fn what_exceeds_the_overlays_mtu_passes() {
    for (packet, ip) in outgoing(&CLIENT, &FAR).into_iter().zip([20, 40]) {
        for (transport, header) in [(Tcp { options: 0 }, 20), (Udp, 8)] {
            let room = 1450 - ip - header;
            for (more, fits) in [(0, true), (1, false)] {
                let packet = packet.clone().transport(transport);
                let whole = packet.clone().payload(room + more).frame();
                let aggregate = packet.payload(9000).frame().segmented((room + more) as u32);
                for frame in [whole, aggregate] {
                    let passes = sent(&frame).0 == Verdict::Pass(Pass::TooBig);
                    assert_eq!(passes, !fits, "{transport:?}");
                }
            }
        }
    }
}

#[test]
fn a_hop_limit_that_ends_here_passes() {
    for packet in outgoing(&CLIENT, &FAR) {
        assert_sent_passes(&packet.hop_limit(1).frame(), Pass::HopLimit);
    }
    for packet in incoming(&FAR, &CLIENT) {
        let frame = packet.hop_limit(1).frame().tunnelled(VNI);
        let verdict = out_of_overlay(&frame, FEATURES).0;
        assert_eq!(verdict, Verdict::Pass(Pass::HopLimit));
    }
}

#[test]
fn only_what_is_sent_to_the_gateway_enters_the_overlay() {
    for packet in outgoing(&CLIENT, &FAR) {
        for mac in [SERVER.mac, OVERLAY_MAC, FAR_MAC] {
            let frame = packet.clone().macs(CLIENT.mac, mac).frame();
            assert_sent_passes(&frame, Pass::OtherMac);
        }
    }
}

#[test]
fn a_node_without_an_overlay_reaches_every_peer_natively() {
    let without = Features { vni: 0, ..FEATURES };
    let nodes = [FAR.v4.into(), FAR.v6.into()].map(|node: core::net::IpAddr| Address::from(node));
    for (packet, node) in outgoing(&CLIENT, &FAR).into_iter().zip(nodes) {
        let frame = packet.frame();
        let (verdict, after) = to_overlay(&frame, without);
        let ifindex = OVERLAY;
        assert_eq!(verdict, Verdict::ToPeer { ifindex, node });
        assert_routed(&frame, &after, None);
    }
}

#[test]
fn a_node_with_an_overlay_reaches_its_neighbours_natively() {
    for (packet, expected) in outgoing(&CLIENT, &PEER).into_iter().zip(to_peer(&PEER)) {
        let frame = packet.frame();
        let (verdict, after) = to_overlay(&frame, FEATURES);
        assert_eq!(verdict, expected);
        assert_routed(&frame, &after, None);
    }
}

#[test]
fn what_comes_out_of_the_overlay_is_delivered() {
    for peer in [FAR, PEER] {
        for packet in incoming(&peer, &CLIENT) {
            let frame = packet.macs(FAR_MAC, OVERLAY_MAC).frame().tunnelled(VNI);
            let (verdict, after) = out_of_overlay(&frame, FEATURES);
            assert_eq!(verdict, to_pod(&CLIENT));
            assert_routed(&frame, &after, Some([CLIENT.mac, GATEWAY]));
        }
    }
}

#[test]
fn the_overlay_is_judged_as_an_uplink_is() {
    let forged = incoming(&STRANGER, &CLIENT).map(|packet| (packet.frame(), Pass::NotFromPod));
    let elsewhere =
        incoming(&FAR, &CLIENT).map(|packet| (packet.frame().for_somebody_else(), Pass::OtherMac));
    let cases = forged.into_iter().chain(elsewhere);
    for (frame, reason) in cases.chain(unjudgeable(incoming(&FAR, &CLIENT))) {
        let verdict = out_of_overlay(&frame.tunnelled(VNI), FEATURES).0;
        assert_eq!(verdict, Verdict::Pass(reason));
    }
}

#[test]
fn what_comes_out_of_another_overlay_is_dropped_whatever_it_is() {
    let foreign = Verdict::Drop(Drop::ForeignVni);
    let mut frames = incoming(&FAR, &CLIENT)
        .map(|packet| packet.frame())
        .to_vec();
    frames.extend(
        unjudgeable(incoming(&FAR, &CLIENT))
            .into_iter()
            .map(|(frame, _)| frame),
    );
    frames.push(Frame::new(Vec::new()));
    for frame in frames {
        for vni in [0, VNI - 1, VNI + 1, VNI + (1 << 24), u32::MAX] {
            let (verdict, after) = out_of_overlay(&frame.clone().tunnelled(vni), FEATURES);
            assert_eq!(verdict, foreign);
            assert_eq!(after.bytes, frame.bytes);
        }
        assert_eq!(out_of_overlay(&frame, FEATURES).0, foreign, "without any");
        let without = Features { vni: 0, ..FEATURES };
        assert_eq!(out_of_overlay(&frame, without).0, foreign, "without any");
    }
}
