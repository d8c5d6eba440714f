//! ICMP errors go the way of the flow that they are about.

use super::*;
use crate::testing::Transport::{Icmp, Other, Sctp, Tcp, Udp};

/// The types of errors, by family.
const KINDS: [&[u8]; 2] = [&[3, 11, 12], &[1, 2, 3, 4]];

/// Errors of every type, from and to the ends that `from` has, about the packet of the same family.
fn errors(from: [Builder; 2], about: [Builder; 2]) -> Vec<(Frame, usize)> {
    let mut errors = Vec::new();
    for (family, (from, about)) in from.into_iter().zip(about).enumerate() {
        for &kind in KINDS[family] {
            errors.push((error(&from, kind, &about), family));
        }
    }
    errors
}

fn error(from: &Builder, kind: u8, about: &Builder) -> Frame {
    from.clone().error(kind, &about.frame()).frame()
}

/// What the client says of a packet, to the local server or a pod of a peer, and what that packet was.
fn of_client() -> [([Builder; 2], [Builder; 2]); 3] {
    [
        (local(&CLIENT, &SERVER), local(&SERVER, &CLIENT)),
        (outgoing(&CLIENT, &PEER), incoming(&PEER, &CLIENT)),
        (outgoing(&CLIENT, &FAR), incoming(&FAR, &CLIENT)),
    ]
}

/// What comes in about a packet of the client's to a pod of `PEER`: from that pod, from a router, from another node.
fn to_client() -> Vec<([Builder; 2], [Builder; 2])> {
    let router = [
        packet(STRANGER.v4, CLIENT.v4),
        packet(STRANGER.v6, CLIENT.v6),
    ];
    let node = [packet(PEER.v4, CLIENT.v4), packet(PEER.v6, CLIENT.v6)];
    [incoming(&PEER, &CLIENT), router, node]
        .map(|from| (from, outgoing(&CLIENT, &PEER)))
        .to_vec()
}

#[test]
fn an_error_of_a_pod_about_a_direct_flow_goes_fast() {
    for (from, about) in of_client() {
        for (frame, _) in errors(from, about) {
            let (verdict, _) = sent(&frame);
            assert!(
                !matches!(verdict, Verdict::Pass(_)),
                "{verdict:?}: {frame:02x?}"
            );
        }
    }
}

#[test]
fn an_error_from_outside_about_a_direct_flow_goes_fast() {
    for (from, about) in to_client() {
        for (frame, _) in errors(from, about) {
            let (verdict, after) = received(&frame);
            assert_eq!(verdict, to_pod(&CLIENT));
            assert_routed(&frame, &after, Some([CLIENT.mac, GATEWAY]));
        }
    }
}

#[test]
fn an_error_about_a_flow_of_the_stack_passes() {
    for flags in [Segment::SYN, Segment::ACK] {
        for transport in [Tcp { options: 0 }, Udp, Sctp] {
            let about = |packets: [Builder; 2]| {
                packets.map(|packet| packet.transport(transport).flags(flags))
            };
            for (from, packets) in of_client() {
                let maps = cluster();
                for packet in about(packets.clone()) {
                    delivered_with(&maps, &packet.frame());
                }
                for (frame, _) in errors(from, about(packets)) {
                    let verdict = sent_with(&maps, &frame).0;
                    assert_eq!(verdict, Verdict::Pass(Pass::StackFlow), "{transport:?}");
                }
            }
            for (from, packets) in to_client() {
                let maps = cluster();
                for packet in about(packets.clone()) {
                    forwarded_with(&maps, &packet.frame());
                }
                for (frame, _) in errors(from, about(packets)) {
                    let verdict = received_with(&maps, &frame).0;
                    assert_eq!(verdict, Verdict::Pass(Pass::StackFlow), "{transport:?}");
                }
            }
        }
    }
}

#[test]
fn an_error_about_an_echo_goes_the_way_of_the_echo() {
    for (from, about) in to_client() {
        let about: Vec<_> = about
            .into_iter()
            .zip([8, 128])
            .map(|(packet, kind)| packet.transport(Icmp { kind }))
            .collect();
        let about: [Builder; 2] = about.try_into().unwrap();
        let maps = cluster();
        let frames = errors(from, about.clone());
        for (frame, _) in &frames {
            assert_eq!(received_with(&maps, frame).0, to_pod(&CLIENT));
        }
        for packet in about {
            forwarded_with(&maps, &packet.frame());
        }
        for (frame, _) in &frames {
            assert_eq!(
                received_with(&maps, frame).0,
                Verdict::Pass(Pass::StackFlow)
            );
        }
    }
}

#[test]
fn an_error_closes_nothing_and_remembers_nothing() {
    for (from, about) in to_client() {
        let maps = cluster();
        for packet in &about {
            forwarded_with(&maps, &packet.clone().flags(Segment::ACK).frame());
        }
        let before = maps.flows.borrow().clone();
        let about = about.map(|packet| packet.flags(Segment::RST));
        for (frame, _) in errors(from, about) {
            received_with(&maps, &frame);
        }
        assert_eq!(*maps.flows.borrow(), before);
    }
}

#[test]
fn an_error_to_another_than_the_quoted_sender_passes() {
    for about in [outgoing(&SERVER, &PEER), outgoing(&THIRD, &FAR)] {
        for (frame, _) in errors(incoming(&PEER, &CLIENT), about) {
            assert_received_passes(&frame, Pass::Icmp);
        }
    }
    for (frame, _) in errors(local(&CLIENT, &SERVER), local(&THIRD, &CLIENT)) {
        assert_sent_passes(&frame, Pass::Icmp);
    }
}

#[test]
fn an_error_about_what_went_to_no_peer_passes() {
    for about in [outgoing(&CLIENT, &STRANGER), local(&CLIENT, &SERVER)] {
        for (from, _) in to_client() {
            for (frame, _) in errors(from, about.clone()) {
                assert_received_passes(&frame, Pass::NotFromPod);
            }
        }
    }
}

#[test]
fn an_error_of_a_pod_about_what_went_to_others_passes() {
    // It routes, and may be the way to a Service.
    for about in [
        outgoing(&SERVER, &STRANGER),
        local(&SERVER, &THIRD),
        outgoing(&SERVER, &PEER),
    ] {
        for (frame, _) in errors(local(&CLIENT, &SERVER), about) {
            assert_sent_passes(&frame, Pass::Icmp);
        }
    }
    for (frame, _) in errors(
        outgoing(&CLIENT, &PEER),
        [
            packet(PEER.pod_v4, SERVER.v4),
            packet(PEER.pod_v6, SERVER.v6),
        ],
    ) {
        assert_sent_passes(&frame, Pass::Icmp);
    }
}

#[test]
fn an_error_to_no_pod_passes_and_that_of_no_pod_too() {
    for (frame, _) in errors(outgoing(&CLIENT, &STRANGER), incoming(&STRANGER, &CLIENT)) {
        assert_sent_passes(&frame, Pass::NotToPod);
    }
    for (frame, _) in errors(local(&THIRD, &SERVER), local(&SERVER, &THIRD)) {
        let frame = frame.with(6, &CLIENT.mac.0);
        assert_sent_passes(&frame, Pass::NotFromPod);
    }
}

#[test]
fn an_error_is_a_packet_like_others() {
    for (from, about) in to_client() {
        for (family, (from, about)) in from.into_iter().zip(about).enumerate() {
            let frame = error(&from.clone().hop_limit(1), KINDS[family][0], &about);
            assert_received_passes(&frame, Pass::HopLimit);
            let frame = error(&from, KINDS[family][0], &about);
            assert_received_passes(&frame.clone().for_somebody_else(), Pass::OtherMac);
            let mut maps = cluster();
            maps.flag_pod(CLIENT.ifindex, Pod::SLOW);
            let verdict = received_with(&maps, &frame).0;
            assert_eq!(verdict, Verdict::Pass(Pass::SlowPod));
        }
    }
}

#[test]
fn an_error_that_quotes_what_it_should_not_passes() {
    let [v4, v6] = outgoing(&CLIENT, &PEER);
    let mut quotes = std::vec![
        (0, v4.clone().options(&[1; 4])),
        (0, v4.clone().fragment(0x2000)),
        (0, v4.clone().fragment(0x0001)),
        (0, v6.clone()),
        (1, v4.clone()),
    ];
    for extension in [0, 43, 44, 51, 60] {
        quotes.push((1, v6.clone().extension(extension)));
    }
    quotes.push((1, v6.clone().transport(Other(47))));
    // Errors, and echo replies, which no error may be about or no flow of ours began with.
    quotes.extend([0, 3, 5, 11, 12, 13].map(|kind| (0, v4.clone().transport(Icmp { kind }))));
    quotes.extend([1, 2, 3, 4, 129, 135].map(|kind| (1, v6.clone().transport(Icmp { kind }))));
    for (family, about) in quotes {
        let from = &incoming(&PEER, &CLIENT)[family];
        for &kind in KINDS[family] {
            let frame = error(from, kind, &about);
            let (verdict, _) = received(&frame);
            assert_eq!(verdict, Verdict::Pass(Pass::Icmp), "{about:?}");
        }
    }
}

#[test]
fn an_error_about_a_protocol_without_ports_goes_by_its_addresses() {
    let [about, _] = outgoing(&CLIENT, &PEER).map(|packet| packet.transport(Other(47)));
    let [from, _] = incoming(&PEER, &CLIENT);
    let frame = error(&from, 3, &about);
    let maps = cluster();
    assert_eq!(received_with(&maps, &frame).0, to_pod(&CLIENT));
    forwarded_with(&maps, &about.frame());
    assert_eq!(
        received_with(&maps, &frame).0,
        Verdict::Pass(Pass::StackFlow)
    );
}

#[test]
fn an_error_cut_off_within_what_it_quotes_passes() {
    for (transport, needed) in [
        (Tcp { options: 0 }, 4),
        (Udp, 4),
        (Icmp { kind: 8 }, 6),
        (Icmp { kind: 128 }, 6),
    ] {
        for (family, header) in [(0, 20), (1, 40)] {
            let about = outgoing(&CLIENT, &PEER)[family]
                .clone()
                .transport(transport);
            if matches!(transport, Icmp { kind } if (kind == 8) != (family == 0)) {
                continue; // The other family's echo.
            }
            let frame = error(&incoming(&PEER, &CLIENT)[family], KINDS[family][0], &about);
            let enough = IP + header + 8 + header + needed;
            for length in 0..=frame.bytes.len() {
                let (verdict, _) = received(&frame.clone().truncated(length));
                let expected = if length < enough {
                    Verdict::Pass(Pass::NotIp)
                } else {
                    to_pod(&CLIENT)
                };
                assert_eq!(verdict, expected, "{transport:?}, {length} bytes");
            }
        }
    }
}

#[test]
fn redirects_and_router_discovery_are_no_errors() {
    let [from, _] = incoming(&PEER, &CLIENT);
    let [about, _] = outgoing(&CLIENT, &PEER);
    for kind in [4, 5, 9, 10, 13] {
        assert_received_passes(&error(&from, kind, &about), Pass::Icmp);
    }
}
