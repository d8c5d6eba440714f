use super::*;
use crate::testing::Transport::{Icmp, Sctp, Tcp, Udp};

fn assert_remembers(frame: &Frame) {
    assert_notes(delivered_with, &cluster(), frame, Pass::StackFlow, true);
}

#[track_caller]
fn assert_ignores(frame: &Frame, reason: Pass) {
    assert_notes(delivered_with, &cluster(), frame, reason, false);
}

/// What the stack sends to a pod, from pods of this node and of all peers.
fn delivered() -> Vec<Builder> {
    let mut packets = local(&SERVER, &CLIENT).to_vec();
    for peer in [PEER, SUBPEER, FAR] {
        packets.extend(incoming(&peer, &CLIENT));
    }
    packets
}

#[test]
fn what_pods_send_to_pods_is_remembered() {
    for packet in delivered() {
        for transport in [Tcp { options: 0 }, Udp, Sctp] {
            assert_remembers(&packet.clone().transport(transport).frame());
        }
        assert_remembers(&packet.clone().hop_limit(0).frame());
        // The bridge's own address is the frame's source, and nobody asks for it.
        assert_remembers(&packet.macs(GATEWAY, THIRD.mac).frame().for_somebody_else());
    }
}

#[test]
fn what_no_pod_sends_is_not_remembered() {
    for packet in incoming(&STRANGER, &CLIENT) {
        assert_ignores(&packet.frame(), Pass::NotFromPod);
    }
    for source in ["10.244.1.1", "10.96.0.10", "192.168.1.12"] {
        let source: core::net::Ipv4Addr = source.parse().unwrap();
        assert_ignores(&packet(source, CLIENT.v4).frame(), Pass::NotFromPod);
    }
}

#[test]
fn what_no_pod_of_this_node_receives_is_not_remembered() {
    let packets = [outgoing(&CLIENT, &PEER), outgoing(&CLIENT, &STRANGER)];
    for packet in packets.concat() {
        assert_ignores(&packet.frame(), Pass::NotToPod);
    }
}

#[test]
fn flows_of_slow_pods_are_remembered_for_when_they_are_fast() {
    for slow in [CLIENT, SERVER] {
        let mut maps = cluster();
        maps.flag_pod(slow.ifindex, Pod::SLOW);
        for packet in local(&SERVER, &CLIENT) {
            let frame = packet.frame();
            assert_notes(delivered_with, &maps, &frame, Pass::StackFlow, true);
        }
    }
}

#[test]
fn errors_are_about_other_flows() {
    for packet in delivered() {
        let kinds = match packet.frame().bytes[12] {
            0x08 => [3, 11, 12, 5],
            _ => [1, 2, 3, 4],
        };
        for kind in kinds {
            let frame = packet.clone().transport(Icmp { kind }).frame();
            assert_ignores(&frame, Pass::Icmp);
        }
    }
}

#[test]
fn the_first_fragment_of_a_datagram_is_remembered_as_the_datagram_would_be() {
    for packet in delivered() {
        for transport in [Udp, Sctp, Icmp { kind: 8 }, Icmp { kind: 128 }] {
            let whole = packet.clone().transport(transport).frame();
            let maps = cluster();
            if delivered_with(&maps, &whole) != Verdict::Pass(Pass::StackFlow) {
                continue; // The other family's echo.
            }
            let first = packet.clone().transport(transport).fragment(0x2000);
            let fragments = cluster();
            let verdict = delivered_with(&fragments, &first.extension(44).frame());
            assert_eq!(verdict, Verdict::Pass(Pass::StackFlow));
            assert_eq!(*maps.flows.borrow(), *fragments.flows.borrow());
        }
    }
}

#[test]
fn later_fragments_and_those_of_tcp_are_not_remembered() {
    for packet in delivered() {
        for fragment in [0x0001, 0x2001, 0x1fff] {
            let later = packet.clone().transport(Udp).fragment(fragment);
            assert_ignores(&later.extension(44).frame(), Pass::Fragment);
        }
        let tcp = packet.fragment(0x2000).extension(44);
        assert_ignores(&tcp.frame(), Pass::Fragment);
    }
}

#[test]
fn a_fragment_whose_addresses_or_ports_do_not_tell_is_not_remembered() {
    let mapped = packet(SERVER.v4.to_ipv6_mapped(), CLIENT.v4.to_ipv6_mapped());
    let mapped = mapped.transport(Udp).fragment(0x2000).extension(44);
    assert_ignores(&mapped.frame(), Pass::Fragment);
    for (packet, ports) in local(&SERVER, &CLIENT).into_iter().zip([20, 48]) {
        let first = packet.transport(Udp).fragment(0x2000).extension(44);
        let frame = first.frame();
        assert_remembers(&frame.clone().truncated(IP + ports + 4));
        for length in 0..IP + ports + 4 {
            assert_ignores(&frame.clone().truncated(length), Pass::NotIp);
        }
    }
}

#[test]
fn what_is_remembered_already_is_not_written_again() {
    let maps = cluster();
    for packet in delivered() {
        let frame = packet.transport(Udp).frame();
        delivered_with(&maps, &frame);
        for value in maps.flows.borrow_mut().values_mut() {
            *value = 77;
        }
        delivered_with(&maps, &frame);
        assert!(maps.flows.borrow().values().all(|&value| value == 77));
    }
}

#[test]
fn a_reset_of_an_unknown_connection_is_not_remembered() {
    for packet in delivered() {
        let reset = packet.flags(Segment::RST).frame();
        assert_ignores(&reset, Pass::StackFlow);
    }
}

#[test]
fn what_cannot_be_judged_is_not_remembered() {
    for packet in delivered() {
        assert_ignores(&packet.frame().tagged(), Pass::Tagged);
        assert_ignores(&packet.frame().with(12, &[0x08, 0x06]), Pass::NotIp);
    }
    for packets in [local(&SERVER, &CLIENT), incoming(&PEER, &CLIENT)] {
        for (frame, enough) in cut_off(&packets) {
            let reason = if enough { Pass::StackFlow } else { Pass::NotIp };
            assert_notes(delivered_with, &cluster(), &frame, reason, enough);
        }
    }
}
