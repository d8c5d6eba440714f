use super::*;
use crate::testing::Transport;

#[test]
fn a_peers_packet_is_delivered_to_the_pod() {
    for peer in [PEER, SUBPEER] {
        for packet in incoming(&peer, &CLIENT) {
            let frame = packet.frame();
            let (verdict, after) = received(&frame);
            assert_eq!(verdict, to_pod(&CLIENT));
            assert_routed(&frame, &after, Some([CLIENT.mac, GATEWAY]));
        }
    }
}

#[test]
fn an_aggregate_is_delivered_whole() {
    for packet in incoming(&PEER, &CLIENT) {
        let frame = packet.payload(30_000).frame().segmented(1448);
        let (verdict, after) = received(&frame);
        assert_eq!(verdict, to_pod(&CLIENT));
        assert_routed(&frame, &after, Some([CLIENT.mac, GATEWAY]));
    }
}

#[test]
fn what_is_addressed_to_somebody_else_passes() {
    for packet in incoming(&PEER, &CLIENT) {
        assert_received_passes(&packet.frame().for_somebody_else(), Pass::OtherMac);
    }
    // Before anything else is looked at: a bridge floods what is not ours, whatever it is.
    let empty = Frame::new(Vec::new()).for_somebody_else();
    assert_received_passes(&empty, Pass::OtherMac);
}

#[test]
fn a_source_in_no_peers_cidr_passes() {
    let mut packets = incoming(&STRANGER, &CLIENT).to_vec();
    // A pod of this node does not come in from outside.
    packets.extend(local(&SERVER, &CLIENT));
    for packet in packets {
        assert_received_passes(&packet.frame(), Pass::NotFromPod);
    }
}

#[test]
fn a_destination_that_is_no_pod_of_this_node_passes() {
    let to_a_peer = [
        packet(PEER.pod_v4, SUBPEER.pod_v4),
        packet(PEER.pod_v6, SUBPEER.pod_v6),
    ];
    let to_the_node = [
        packet(PEER.pod_v4, STRANGER.v4),
        packet(PEER.pod_v6, STRANGER.v6),
    ];
    let to_none = [
        packet(STRANGER.pod_v4, PEER.pod_v4),
        packet(STRANGER.pod_v6, PEER.pod_v6),
    ];
    for packet in [to_a_peer, to_the_node, to_none].concat() {
        let frame = packet.macs(GATEWAY, UPLINK_MAC).frame();
        assert_received_passes(&frame, Pass::NotToPod);
    }
}

#[test]
fn a_hop_limit_that_ends_here_passes() {
    for packet in incoming(&PEER, &CLIENT) {
        for hop_limit in [0, 1] {
            let frame = packet.clone().hop_limit(hop_limit).frame();
            assert_received_passes(&frame, Pass::HopLimit);
        }
        let frame = packet.hop_limit(2).frame();
        assert_eq!(received(&frame).0, to_pod(&CLIENT));
    }
}

#[test]
fn echoes_are_delivered() {
    let [v4, v6] = incoming(&PEER, &CLIENT);
    for (packet, kinds) in [(v4, [0, 8]), (v6, [128, 129])] {
        for kind in kinds {
            let frame = packet.clone().transport(Transport::Icmp { kind }).frame();
            let (verdict, after) = received(&frame);
            assert_eq!(verdict, to_pod(&CLIENT), "ICMP type {kind}");
            assert_routed(&frame, &after, Some([CLIENT.mac, GATEWAY]));
        }
    }
}

#[test]
fn what_only_the_stack_can_judge_passes() {
    for (frame, reason) in unjudgeable(incoming(&PEER, &CLIENT)) {
        assert_received_passes(&frame, reason);
    }
}

#[test]
fn a_packet_cut_off_within_its_headers_passes() {
    for (frame, enough) in cut_off(&incoming(&PEER, &CLIENT)) {
        let (verdict, _) = received(&frame);
        let passes = verdict == Verdict::Pass(Pass::NotIp);
        assert_eq!(passes, !enough, "{} bytes", frame.bytes.len());
    }
}
