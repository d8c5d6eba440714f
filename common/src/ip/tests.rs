use core::net::IpAddr;
use std::vec::Vec;

use super::*;
use crate::testing::{CLIENT, Frame, PEER, SERVER, Transport, checksum, checksums_hold, packet};

fn v4() -> crate::testing::Builder {
    packet(CLIENT.v4, SERVER.v4)
}

fn v6() -> crate::testing::Builder {
    packet(CLIENT.v6, SERVER.v6)
}

fn parse(frame: &Frame) -> Result<Header, Pass> {
    let [high, low] = frame.load(12).unwrap();
    Header::parse(frame, u16::from_be_bytes([high, low]))
}

#[test]
fn a_header_is_read_field_by_field() {
    let address = |address: IpAddr| Address::from(address);
    let header = parse(&v4().hop_limit(17).transport(Transport::Udp).frame()).unwrap();
    assert_eq!(header.source, address(CLIENT.v4.into()));
    assert_eq!(header.destination, address(SERVER.v4.into()));
    assert_eq!((header.hop_limit, header.protocol), (17, UDP));
    assert_eq!(header.family, Family::V4);

    let header = parse(&v6().hop_limit(17).transport(Transport::Udp).frame()).unwrap();
    assert_eq!(header.source, address(CLIENT.v6.into()));
    assert_eq!(header.destination, address(SERVER.v6.into()));
    assert_eq!((header.hop_limit, header.protocol), (17, UDP));
    assert_eq!(header.family, Family::V6);
}

#[test]
fn only_the_two_ethertypes_of_ip_are_ip() {
    let frame = v4().frame();
    for ethertype in 0..=u16::MAX {
        let judged = Header::parse(&frame, ethertype);
        // The version inside says IPv4, whatever the Ethernet header says.
        assert_eq!(
            judged.is_ok(),
            ethertype == ETHERTYPE_V4,
            "{ethertype:#06x}"
        );
        assert_eq!(judged.err().unwrap_or(Pass::NotIp), Pass::NotIp);
    }
}

#[test]
fn a_version_that_contradicts_the_ethertype_is_not_ip() {
    for byte in 0..=255u8 {
        let expected = match byte {
            0x45 => None,
            0x46..=0x4f => Some(Pass::Options),
            _ => Some(Pass::NotIp),
        };
        let frame = v4().frame().with(ETHERNET, &[byte]);
        assert_eq!(parse(&frame).err(), expected, "IPv4, {byte:#04x}");

        let expected = (byte >> 4 != 6).then_some(Pass::NotIp);
        let frame = v6().frame().with(ETHERNET, &[byte]);
        assert_eq!(parse(&frame).err(), expected, "IPv6, {byte:#04x}");
    }
}

#[test]
fn fragments_pass_but_dont_fragment_and_the_reserved_bit_do_not_matter() {
    for bits in 0..=u16::MAX {
        let frame = v4().frame().with(ETHERNET + 6, &bits.to_be_bytes());
        let expected = (bits & 0x3fff != 0).then_some(Pass::Fragment);
        assert_eq!(parse(&frame).err(), expected, "{bits:#06x}");
    }
}

#[test]
fn options_of_every_length_pass() {
    for words in 1..=10 {
        let frame = v4().options(&[1; 40][..words * 4]).frame();
        assert_eq!(parse(&frame), Err(Pass::Options));
    }
}

#[test]
fn of_ipv6_headers_only_known_transports_are_judged() {
    for protocol in 0..=255u8 {
        let frame = v6().transport(Transport::Other(protocol)).frame();
        // What is no ICMP echo in this payload is an ICMP error.
        let expected = match protocol {
            TCP | UDP | SCTP => None,
            ICMPV6 => Some(Pass::Icmp),
            FRAGMENT_HEADER => Some(Pass::Fragment),
            _ => Some(Pass::Options),
        };
        assert_eq!(parse(&frame).err(), expected, "next header {protocol}");
    }
    for extension in [0, 43, 50, 51, 60, 135] {
        let frame = v6().extension(extension).frame();
        assert_eq!(parse(&frame), Err(Pass::Options), "next header {extension}");
    }
}

#[test]
fn of_icmp_only_echo_its_reply_and_errors_are_judged() {
    for kind in 0..=255 {
        let icmp = Transport::Icmp { kind };
        let error = |builder: crate::testing::Builder| {
            parse(&builder.transport(icmp).frame()).map(|header| header.error)
        };
        let expected = match kind {
            0 | 8 => Ok(false),
            3 | 11 | 12 => Ok(true),
            _ => Err(Pass::Icmp),
        };
        assert_eq!(error(v4()), expected, "{kind}");
        let expected = match kind {
            128 | 129 => Ok(false),
            1..=4 => Ok(true),
            _ => Err(Pass::Icmp),
        };
        assert_eq!(error(v6()), expected, "{kind}");
    }
}

#[test]
fn a_header_cut_off_anywhere_is_not_ip() {
    let icmp = |kind| Transport::Icmp { kind };
    for (frame, headers) in [
        (v4().frame(), 14 + 20),
        (v4().transport(icmp(8)).frame(), 14 + 20 + 1),
        (v6().frame(), 14 + 40),
        (v6().transport(icmp(128)).frame(), 14 + 40 + 1),
    ] {
        for length in ETHERNET..frame.bytes.len() {
            let judged = parse(&frame.clone().truncated(length));
            let expected = (length < headers).then_some(Pass::NotIp);
            assert_eq!(judged.err(), expected, "{length} bytes");
        }
    }
}

/// Every one of the 65,536 checksums: the rest of the header is chosen so that it is the right one, with every TTL
/// that a router lets through.
#[test]
fn a_decremented_checksum_is_the_recomputed_one() {
    for identification in 0..=u16::MAX {
        let ttl = (2 + identification % 254) as u8;
        let mut header = [
            0x45, 0, 0, 60, 0, 0, 0x40, 0, ttl, TCP, 0, 0, 10, 244, 1, 2, 10, 244, 2, 5,
        ];
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        let before = checksum(&[&header]);
        header[8] -= 1;
        let after = checksum(&[&header]);
        assert_eq!(decremented_checksum(before), after, "{before:#06x}");
    }
}

/// Says the same without a header: every checksum there is, the two zeros of one's complement included.
#[test]
fn a_decremented_checksum_makes_up_for_the_hop_exactly() {
    let mut seen = Vec::new();
    for before in 0..=u16::MAX {
        // The word of TTL and protocol with the largest TTL, and one word of all the rest that makes the sum right.
        let word = 0xff06u16;
        let rest = checksum(&[&word.to_be_bytes(), &before.to_be_bytes()]);
        let after = decremented_checksum(before);
        let words = [word - 0x0100, rest, after].map(u16::to_be_bytes).concat();
        assert_eq!(checksum(&[&words]), 0, "{before:#06x} became {after:#06x}");
        // A recomputed checksum is never the second zero.
        assert_ne!(after, 0xffff, "{before:#06x}");
        seen.push(after);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 65_535, "only the two zeros may meet");
}

#[test]
fn a_hop_changes_the_hop_limit_and_ipv4s_checksum_alone() {
    for hop_limit in 2..=255 {
        for (builder, changed) in [(v4(), [22, 24, 25]), (v6(), [21; 3])] {
            let before = builder.hop_limit(hop_limit).frame();
            let mut after = before.clone();
            parse(&before)
                .unwrap()
                .decrement_hop_limit(&mut after)
                .unwrap();
            assert_eq!(parse(&after).unwrap().hop_limit, hop_limit - 1);
            assert!(checksums_hold(&after.bytes));
            for (at, (before, after)) in before.bytes.iter().zip(&after.bytes).enumerate() {
                assert!(before == after || changed.contains(&at), "byte {at}");
            }
        }
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for flipped in 0..16 {
        let mut frame = v4().frame();
        frame.bytes[24 + flipped / 8] ^= 1 << (flipped % 8);
        let header = parse(&frame).unwrap();
        header.decrement_hop_limit(&mut frame).unwrap();
        assert!(!checksums_hold(&frame.bytes), "bit {flipped}");
    }
}

#[test]
fn the_wire_length_is_that_of_the_largest_segment() {
    let to_peer = |transport| {
        let v4 = packet(CLIENT.v4, PEER.pod_v4)
            .transport(transport)
            .payload(4000);
        let v6 = packet(CLIENT.v6, PEER.pod_v6)
            .transport(transport)
            .payload(4000);
        [v4.frame(), v6.frame()]
    };
    let tcp = |options| Transport::Tcp { options };
    for (transport, header) in [
        (tcp(0), 20),
        (tcp(12), 32),
        (tcp(40), 60),
        (Transport::Udp, 8),
        (Transport::Sctp, 12),
    ] {
        for (frame, ip) in to_peer(transport).into_iter().zip([20, 40]) {
            let length = parse(&frame).unwrap().wire_length(&frame);
            assert_eq!(length, Ok(ip + header + 4000), "{transport:?} whole");
            let frame = frame.segmented(1400);
            let length = parse(&frame).unwrap().wire_length(&frame);
            assert_eq!(length, Ok(ip + header + 1400), "{transport:?} in segments");
        }
    }
    let [frame, _] = to_peer(Transport::Other(47));
    let frame = frame.segmented(1400);
    assert_eq!(parse(&frame).unwrap().wire_length(&frame), Ok(20 + 1400));
}

#[test]
fn an_aggregate_without_its_tcp_header_has_no_wire_length() {
    for (frame, data_offset) in [(v4().frame(), 14 + 20 + 12), (v6().frame(), 14 + 40 + 12)] {
        let whole = frame.segmented(1400);
        for length in data_offset - 12..whole.bytes.len() {
            let frame = whole.clone().truncated(length);
            let judged = parse(&frame).unwrap().wire_length(&frame);
            assert_eq!(judged.is_err(), length <= data_offset, "{length} bytes");
        }
    }
}
