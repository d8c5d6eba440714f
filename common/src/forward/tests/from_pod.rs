use super::*;
use crate::testing::Transport::{Icmp, Sctp, Tcp, Udp};

#[test]
fn a_bridged_packet_arrives_byte_for_byte() {
    for frame in local(&CLIENT, &SERVER).map(|packet| packet.frame()) {
        assert_eq!(sent(&frame), (to_pod(&SERVER), frame));
    }
}

#[test]
fn a_bridged_packet_may_have_any_hop_limit_and_size() {
    for packet in local(&CLIENT, &SERVER) {
        for hop_limit in [0, 1, 2, 255] {
            let frame = packet.clone().hop_limit(hop_limit).payload(9000).frame();
            assert_eq!(sent(&frame), (to_pod(&SERVER), frame));
        }
        let frame = packet.payload(60_000).frame().segmented(8900);
        assert_eq!(sent(&frame), (to_pod(&SERVER), frame));
    }
}

#[test]
fn a_packet_to_the_gateway_is_routed_to_the_pod() {
    for packet in local(&CLIENT, &SERVER) {
        let frame = packet.macs(CLIENT.mac, GATEWAY).frame();
        let (verdict, after) = sent(&frame);
        assert_eq!(verdict, to_pod(&SERVER));
        assert_routed(&frame, &after, Some([SERVER.mac, GATEWAY]));
    }
}

#[test]
fn a_packet_to_another_mac_than_the_receivers_passes() {
    let broadcast = Mac([0xff; 6]);
    let mut almost = SERVER.mac;
    almost.0[5] ^= 1;
    for mac in [THIRD.mac, CLIENT.mac, broadcast, Mac([0; 6]), almost] {
        for packet in local(&CLIENT, &SERVER) {
            assert_sent_passes(&packet.macs(CLIENT.mac, mac).frame(), Pass::OtherMac);
        }
    }
}

#[test]
fn macs_are_compared_to_the_last_bit() {
    for bit in 0..48 {
        for packet in local(&CLIENT, &SERVER) {
            let mut frame = packet.frame();
            frame.bytes[bit / 8] ^= 1 << (bit % 8);
            assert_sent_passes(&frame, Pass::OtherMac);
        }
    }
}

#[test]
fn a_pod_that_sends_to_itself_is_left_to_the_stack() {
    for packet in local(&CLIENT, &CLIENT) {
        assert_sent_passes(&packet.frame(), Pass::SamePod);
        let routed = packet.macs(CLIENT.mac, GATEWAY).frame();
        assert_sent_passes(&routed, Pass::SamePod);
    }
}

#[test]
fn the_second_address_of_a_pod_is_the_same_pod() {
    let mut maps = cluster();
    let second = core::net::Ipv4Addr::new(10, 244, 1, 222);
    let pod = maps.pods[&Address::from_v4(CLIENT.v4.octets())];
    maps.add_pod(second, pod);
    let own = packet(CLIENT.v4, second)
        .macs(CLIENT.mac, CLIENT.mac)
        .frame();
    assert_eq!(sent_with(&maps, &own).0, Verdict::Pass(Pass::SamePod));
    let other = packet(second, SERVER.v4)
        .macs(CLIENT.mac, SERVER.mac)
        .frame();
    assert_eq!(sent_with(&maps, &other).0, to_pod(&SERVER));
}

#[test]
fn a_source_that_is_not_the_senders_passes() {
    let forged = local(&THIRD, &SERVER).into_iter();
    let unknown = incoming(&STRANGER, &SERVER).into_iter();
    let of_a_peer = incoming(&PEER, &SERVER).into_iter();
    for packet in forged.chain(unknown).chain(of_a_peer) {
        for mac in [SERVER.mac, GATEWAY] {
            let frame = packet.clone().macs(CLIENT.mac, mac).frame();
            assert_sent_passes(&frame, Pass::NotFromPod);
        }
    }
}

#[test]
fn a_pod_that_takes_anothers_address_and_mac_is_known_by_its_veth() {
    for packet in [local(&THIRD, &SERVER), outgoing(&THIRD, &PEER)].concat() {
        for mac in [SERVER.mac, GATEWAY] {
            let frame = packet.clone().macs(THIRD.mac, mac).frame();
            assert_sent_passes(&frame, Pass::NotFromPod);
            let mut forged = frame;
            let verdict = from_pod(&mut forged, &cluster(), FEATURES, CLIENT.ifindex);
            assert_eq!(verdict, Verdict::Drop(Drop::Spoofed));
        }
    }
}

#[test]
fn a_destination_that_is_no_pod_passes() {
    for packet in outgoing(&CLIENT, &STRANGER) {
        assert_sent_passes(&packet.frame(), Pass::NotToPod);
    }
    for destination in [
        "10.244.1.1",
        "10.244.1.255",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
    ] {
        let destination: core::net::Ipv4Addr = destination.parse().unwrap();
        let frame = packet(CLIENT.v4, destination)
            .macs(CLIENT.mac, GATEWAY)
            .frame();
        assert_sent_passes(&frame, Pass::NotToPod);
    }
    for destination in ["ff02::1", "fe80::1", "::1", "::"] {
        let destination: core::net::Ipv6Addr = destination.parse().unwrap();
        let frame = packet(CLIENT.v6, destination)
            .macs(CLIENT.mac, GATEWAY)
            .frame();
        assert_sent_passes(&frame, Pass::NotToPod);
    }
}

#[test]
fn a_packet_to_a_peers_pod_is_routed_to_the_peer() {
    for (packet, expected) in outgoing(&CLIENT, &PEER).into_iter().zip(to_peer(&PEER)) {
        let frame = packet.frame();
        let (verdict, after) = sent(&frame);
        assert_eq!(verdict, expected);
        assert_routed(&frame, &after, None);
    }
}

#[test]
fn only_what_is_sent_to_the_gateway_leaves_the_node() {
    for mac in [SERVER.mac, CLIENT.mac, UPLINK_MAC, Mac([0xff; 6])] {
        for packet in outgoing(&CLIENT, &PEER) {
            assert_sent_passes(&packet.macs(CLIENT.mac, mac).frame(), Pass::OtherMac);
        }
    }
}

#[test]
fn a_hop_limit_that_ends_here_passes() {
    for packet in [local(&CLIENT, &SERVER), outgoing(&CLIENT, &PEER)].concat() {
        let packet = packet.macs(CLIENT.mac, GATEWAY);
        for hop_limit in [0, 1] {
            let frame = packet.clone().hop_limit(hop_limit).frame();
            assert_sent_passes(&frame, Pass::HopLimit);
        }
        let (verdict, after) = sent(&packet.hop_limit(2).frame());
        assert!(!matches!(verdict, Verdict::Pass(_)));
        assert!(crate::testing::checksums_hold(&after.bytes));
    }
}

#[test]
fn what_exceeds_the_uplinks_mtu_passes() {
    for (packet, ip) in outgoing(&CLIENT, &PEER).into_iter().zip([20, 40]) {
        for (transport, header) in [
            (Tcp { options: 0 }, 20),
            (Tcp { options: 12 }, 32),
            (Tcp { options: 40 }, 60),
            (Udp, 8),
        ] {
            let room = 1500 - ip - header;
            let packet = packet.clone().transport(transport);
            let fits = packet.clone().payload(room).frame();
            assert_ne!(sent(&fits).0, Verdict::Pass(Pass::TooBig), "{transport:?}");
            let too_big = packet.clone().payload(room + 1).frame();
            assert_sent_passes(&too_big, Pass::TooBig);

            let aggregate = packet.payload(30_000).frame();
            let fits = aggregate.clone().segmented(room as u32);
            assert_ne!(sent(&fits).0, Verdict::Pass(Pass::TooBig), "{transport:?}");
            assert_sent_passes(&aggregate.segmented(room as u32 + 1), Pass::TooBig);
        }
    }
}

#[test]
fn an_aggregate_without_its_tcp_header_passes() {
    for (packet, ip) in outgoing(&CLIENT, &PEER).into_iter().zip([20, 40]) {
        let frame = packet.frame().segmented(1400).truncated(IP + ip + 12);
        assert_sent_passes(&frame, Pass::NotIp);
    }
}

#[test]
fn every_transport_is_carried() {
    for transport in [Tcp { options: 0 }, Udp, Sctp] {
        for packet in local(&CLIENT, &SERVER) {
            let frame = packet.transport(transport).frame();
            assert_eq!(sent(&frame).0, to_pod(&SERVER), "{transport:?}");
        }
    }
    let [v4, v6] = local(&CLIENT, &SERVER);
    for (packet, kinds) in [(v4, [0, 8]), (v6, [128, 129])] {
        for kind in kinds {
            let frame = packet.clone().transport(Icmp { kind }).frame();
            assert_eq!(sent(&frame).0, to_pod(&SERVER), "ICMP type {kind}");
        }
    }
}

#[test]
fn dont_fragment_does_not_matter() {
    let [v4, _] = local(&CLIENT, &SERVER);
    assert_eq!(sent(&v4.fragment(0x4000).frame()).0, to_pod(&SERVER));
    let [v4, _] = outgoing(&CLIENT, &PEER);
    let frame = v4.fragment(0x4000).frame();
    let (verdict, after) = sent(&frame);
    assert_eq!(verdict, to_peer(&PEER)[0]);
    assert_routed(&frame, &after, None);
}

#[test]
fn what_only_the_stack_can_judge_passes() {
    for packets in [local(&CLIENT, &SERVER), outgoing(&CLIENT, &PEER)] {
        for (frame, reason) in unjudgeable(packets) {
            assert_sent_passes(&frame, reason);
        }
    }
}

#[test]
fn a_packet_cut_off_within_its_headers_passes() {
    for packets in [local(&CLIENT, &SERVER), outgoing(&CLIENT, &PEER)] {
        for (frame, enough) in cut_off(&packets) {
            let (verdict, _) = sent(&frame);
            let passes = verdict == Verdict::Pass(Pass::NotIp);
            assert_eq!(passes, !enough, "{} bytes", frame.bytes.len());
        }
    }
}

#[test]
fn an_ipv4_address_in_an_ipv6_header_is_no_pods() {
    let mapped = |v4: core::net::Ipv4Addr| v4.to_ipv6_mapped();
    for (to, mac) in [
        (SERVER.v4, SERVER.mac),
        (SERVER.v4, GATEWAY),
        (PEER.pod_v4, GATEWAY),
    ] {
        let frame = packet(mapped(CLIENT.v4), mapped(to))
            .macs(CLIENT.mac, mac)
            .frame();
        assert_eq!(sent(&frame).0, Verdict::Pass(Pass::NotIp));
    }
}

#[test]
fn a_frame_longer_than_its_header_says_is_not_sent_beyond_the_mtu() {
    for (packet, header) in outgoing(&CLIENT, &PEER).into_iter().zip([34, 54]) {
        let short = packet.clone().payload(0).frame();
        let lying = packet.payload(3000).frame().with(0, &short.bytes[..header]);
        assert_eq!(sent(&lying).0, Verdict::Pass(Pass::TooBig));
    }
}
