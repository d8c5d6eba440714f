use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use super::*;
use crate::{
    Drop, Features, Mac, Pass, Verdict, forward,
    testing::{
        CLIENT, FEATURES, Frame, GATEWAY, PEER, SERVER, STRANGER, THIRD, Transport, cluster, packet,
    },
};

const BROADCAST: Mac = Mac([0xff; 6]);

fn sent(frame: &Frame, anti_spoof: bool) -> Verdict {
    let features = Features {
        anti_spoof,
        ..FEATURES
    };
    forward::from_pod(&mut frame.clone(), &cluster(), features, CLIENT.ifindex)
}

/// With the rule the frame is dropped, without it passes.
#[track_caller]
fn assert_dropped(frame: &Frame) {
    assert_eq!(sent(frame, true), Verdict::Drop(Drop::Spoofed));
    assert!(matches!(sent(frame, false), Verdict::Pass(_)));
}

#[track_caller]
fn assert_passes(frame: &Frame) {
    let verdict = sent(frame, true);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
}

fn arp(mac: Mac, sender_mac: Mac, sender: Ipv4Addr) -> Frame {
    let mut bytes = [BROADCAST.0, mac.0].concat();
    bytes.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(sender_mac.0);
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(SERVER.v4.octets());
    Frame::new(bytes)
}

fn advertisement(target: Ipv6Addr) -> Frame {
    advertisement_behind(&[], target)
}

/// A neighbour advertisement behind extension headers of so many bytes.
fn advertisement_behind(extensions: &[(u8, usize)], target: Ipv6Addr) -> Frame {
    let packet = packet(CLIENT.v6, SERVER.v6)
        .macs(CLIENT.mac, SERVER.mac)
        .transport(Transport::Icmp { kind: 136 });
    let mut bytes = packet.frame().with(ETHERNET + 48, &target.octets()).bytes;
    let (mut at, mut next) = (ETHERNET + 40, ETHERNET + 6);
    for &(kind, length) in extensions {
        bytes[next] = kind;
        let mut header = std::vec![0; length];
        header[..2].copy_from_slice(&[ICMPV6, (length / 8 - 1) as u8]);
        bytes.splice(at..at, header);
        (next, at) = (at, at + length);
    }
    Frame::new(bytes)
}

#[test]
fn addresses_of_others_are_dropped() {
    let v4 = [
        THIRD.v4,
        SERVER.v4,
        PEER.pod_v4,
        STRANGER.pod_v4,
        Ipv4Addr::BROADCAST,
    ];
    let v6 = [THIRD.v6, SERVER.v6, PEER.pod_v6, STRANGER.pod_v6];
    let v4 = v4.map(|source| packet(source, STRANGER.pod_v4));
    let v6 = v6.map(|source| packet(source, STRANGER.pod_v6));
    for builder in v4.into_iter().chain(v6) {
        let builder = builder.macs(CLIENT.mac, GATEWAY);
        assert_dropped(&builder.frame());
        assert_dropped(&builder.clone().options(&[1; 4]).extension(0).frame());
        assert_dropped(&builder.fragment(0x2000).extension(44).frame());
    }
}

#[test]
fn macs_of_others_are_dropped_whatever_they_carry() {
    for mac in [SERVER.mac, GATEWAY, Mac([0; 6])] {
        let frames = [
            packet(CLIENT.v4, SERVER.v4).macs(mac, SERVER.mac).frame(),
            packet(CLIENT.v6, SERVER.v6).macs(mac, SERVER.mac).frame(),
            packet(CLIENT.v4, SERVER.v4)
                .macs(mac, SERVER.mac)
                .frame()
                .with(12, &[0x88, 0xcc]),
            arp(mac, mac, CLIENT.v4),
        ];
        frames.iter().for_each(assert_dropped);
    }
}

#[test]
fn every_bit_of_the_source_mac_counts() {
    for bit in 0..48 {
        let mut frame = packet(CLIENT.v4, SERVER.v4)
            .macs(CLIENT.mac, SERVER.mac)
            .frame();
        frame.bytes[6 + bit / 8] ^= 1 << (bit % 8);
        assert_dropped(&frame);
    }
}

#[test]
fn arp_for_others_is_dropped_and_ones_own_passes() {
    assert_passes(&arp(CLIENT.mac, CLIENT.mac, CLIENT.v4));
    assert_passes(&arp(CLIENT.mac, CLIENT.mac, Ipv4Addr::UNSPECIFIED));
    assert_dropped(&arp(CLIENT.mac, SERVER.mac, CLIENT.v4));
    assert_dropped(&arp(CLIENT.mac, CLIENT.mac, SERVER.v4));
    assert_dropped(&arp(CLIENT.mac, CLIENT.mac, Ipv4Addr::new(10, 244, 1, 1)));
    // RARP's and InARP's fields are elsewhere or mean something else.
    assert_dropped(&arp(CLIENT.mac, CLIENT.mac, CLIENT.v4).with(ETHERNET, &[0, 6]));
}

#[test]
fn a_pod_without_an_address_may_ask_for_one() {
    let dhcp = packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)
        .macs(CLIENT.mac, BROADCAST)
        .transport(Transport::Udp);
    assert_passes(&dhcp.frame());
    assert_dropped(&dhcp.transport(Transport::Tcp { options: 0 }).frame());
    let solicitation = packet(Ipv6Addr::UNSPECIFIED, SERVER.v6)
        .macs(CLIENT.mac, BROADCAST)
        .transport(Transport::Icmp { kind: 135 });
    assert_passes(&solicitation.frame());
}

#[test]
fn link_local_addresses_are_everyones() {
    for source in ["fe80::1", "fe80::858:aff:fef4:102", "febf::1"] {
        let source: Ipv6Addr = source.parse().unwrap();
        assert_passes(&packet(source, SERVER.v6).macs(CLIENT.mac, GATEWAY).frame());
    }
    for source in ["fec0::1", "fe00::1", "fd00::1"] {
        let source: Ipv6Addr = source.parse().unwrap();
        assert_dropped(&packet(source, SERVER.v6).macs(CLIENT.mac, GATEWAY).frame());
    }
}

#[test]
fn a_pod_advertises_only_its_own_neighbourhood() {
    assert_passes(&advertisement(CLIENT.v6));
    assert_passes(&advertisement("fe80::1".parse().unwrap()));
    assert_dropped(&advertisement(SERVER.v6));
    assert_dropped(&advertisement(STRANGER.v6));
}

#[test]
fn extension_headers_hide_no_advertisement() {
    for extensions in [
        &[(0, 8)][..],
        &[(60, 8)],
        &[(43, 24)],
        &[(0, 8), (60, 2048)],
        &[(0, 8), (60, 16), (43, 8), (60, 8)],
    ] {
        assert_passes(&advertisement_behind(extensions, CLIENT.v6));
        let forged = advertisement_behind(extensions, SERVER.v6);
        assert_dropped(&forged);
        let cut = forged.bytes.len() - 24 - 8;
        assert_dropped(&forged.truncated(cut));
    }
    assert_dropped(&advertisement_behind(&[(60, 8); 5], CLIENT.v6));
    let other = packet(CLIENT.v6, SERVER.v6).macs(CLIENT.mac, SERVER.mac);
    assert_passes(&other.extension(60).frame());
}

#[test]
fn tags_hide_what_is_behind_them() {
    let frame = packet(CLIENT.v4, SERVER.v4).macs(CLIENT.mac, SERVER.mac);
    assert_dropped(&frame.frame().tagged());
}

#[test]
fn what_is_cut_off_cannot_be_vouched_for() {
    let frame = packet(THIRD.v4, SERVER.v4).macs(CLIENT.mac, SERVER.mac);
    let arp = arp(CLIENT.mac, CLIENT.mac, CLIENT.v4);
    for length in 0..ETHERNET + 16 {
        assert_dropped(&frame.frame().truncated(length));
    }
    for length in 0..ETHERNET + 18 {
        assert_dropped(&arp.clone().truncated(length));
    }
}

#[test]
fn honest_packets_go_where_they_would_go_without_the_rule() {
    let frames: Vec<Frame> = [
        packet(CLIENT.v4, SERVER.v4).macs(CLIENT.mac, SERVER.mac),
        packet(CLIENT.v4, STRANGER.pod_v4).macs(CLIENT.mac, GATEWAY),
        packet(CLIENT.v6, PEER.pod_v6).macs(CLIENT.mac, GATEWAY),
        packet(CLIENT.v6, CLIENT.v6).macs(CLIENT.mac, GATEWAY),
        packet(CLIENT.v4, SERVER.v4)
            .macs(CLIENT.mac, SERVER.mac)
            .fragment(0x2000),
        packet(CLIENT.v4, SERVER.v4)
            .macs(CLIENT.mac, SERVER.mac)
            .transport(Transport::Icmp { kind: 13 }),
    ]
    .map(|packet| packet.frame())
    .to_vec();
    for frame in &frames {
        assert_eq!(sent(frame, true), sent(frame, false));
    }
    let other = packet(CLIENT.v4, SERVER.v4)
        .macs(CLIENT.mac, THIRD.mac)
        .frame();
    assert_eq!(sent(&other, true), Verdict::Pass(Pass::OtherMac));
}
