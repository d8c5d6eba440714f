use super::*;
use crate::testing::Transport::{Icmp, Sctp, Tcp, Udp};

#[track_caller]
fn assert_ignores(frame: &Frame, reason: Pass) {
    assert_notes(forwarded_with, &cluster(), frame, reason, false);
}

/// What the stack sends to pods of all peers.
fn forwarded() -> Vec<Builder> {
    [PEER, SUBPEER, FAR]
        .iter()
        .flat_map(|peer| outgoing(&CLIENT, peer))
        .collect()
}

#[test]
fn what_pods_send_to_peers_is_remembered() {
    for packet in forwarded() {
        for transport in [Tcp { options: 0 }, Udp, Sctp] {
            let frame = packet.clone().transport(transport).frame();
            assert_notes(forwarded_with, &cluster(), &frame, Pass::StackFlow, true);
        }
    }
}

#[test]
fn what_the_fast_path_redirected_is_not_remembered_and_forgotten_to_be_so() {
    for packet in forwarded() {
        let maps = cluster();
        let mut frame = packet.frame().redirected();
        let verdict = to_uplink(&mut frame, &maps);
        assert_eq!(verdict, Verdict::Pass(Pass::Redirected));
        assert!(maps.flows.borrow().is_empty());
        assert_eq!(frame, packet.frame(), "the mark is taken away, and no more");
        // The stack may send it again: then it is the stack's.
        let verdict = to_uplink(&mut frame, &maps);
        assert_eq!(verdict, Verdict::Pass(Pass::StackFlow));
        assert_eq!(maps.flows.borrow().len(), 1);
    }
}

#[test]
fn whatever_is_redirected_is_not_looked_at() {
    let maps = cluster();
    let mut frame = Frame::new(Vec::new()).redirected();
    let verdict = to_uplink(&mut frame, &maps);
    assert_eq!(verdict, Verdict::Pass(Pass::Redirected));
}

#[test]
fn what_no_pod_sends_is_not_remembered() {
    // Masqueraded, the host's own, and what the node routes for others.
    for packet in [
        packet(STRANGER.v4, PEER.pod_v4),
        packet(STRANGER.v6, PEER.pod_v6),
        packet(SUBPEER.pod_v4, PEER.pod_v4),
        packet(SUBPEER.pod_v6, PEER.pod_v6),
    ] {
        assert_ignores(&packet.frame(), Pass::NotFromPod);
    }
}

#[test]
fn what_goes_to_no_peer_is_not_remembered() {
    let packets = [outgoing(&CLIENT, &STRANGER), local(&CLIENT, &SERVER)];
    for packet in packets.concat() {
        assert_ignores(&packet.frame(), Pass::NotToPod);
    }
}

#[test]
fn flows_of_slow_pods_are_remembered_for_when_they_are_fast() {
    let mut maps = cluster();
    maps.flag_pod(CLIENT.ifindex, Pod::SLOW);
    for packet in forwarded() {
        let frame = packet.frame();
        assert_notes(forwarded_with, &maps, &frame, Pass::StackFlow, true);
    }
}

#[test]
fn errors_are_about_other_flows() {
    for packet in outgoing(&CLIENT, &PEER) {
        let kind = match packet.frame().bytes[12] {
            0x08 => 3,
            _ => 1,
        };
        let frame = packet.transport(Icmp { kind }).frame();
        assert_ignores(&frame, Pass::Icmp);
    }
}

#[test]
fn of_fragments_only_the_first_of_a_datagram_is_remembered() {
    for packet in forwarded() {
        let fragment = |bits| packet.clone().fragment(bits).extension(44);
        let first = fragment(0x2000).transport(Udp).frame();
        assert_notes(forwarded_with, &cluster(), &first, Pass::StackFlow, true);
        let later = fragment(0x2001).transport(Udp).frame();
        assert_ignores(&later, Pass::Fragment);
        assert_ignores(&fragment(0x2000).frame(), Pass::Fragment);
    }
}

#[test]
fn what_cannot_be_judged_is_not_remembered() {
    for (frame, enough) in cut_off(&outgoing(&CLIENT, &PEER)) {
        let reason = if enough { Pass::StackFlow } else { Pass::NotIp };
        assert_notes(forwarded_with, &cluster(), &frame, reason, enough);
    }
}
