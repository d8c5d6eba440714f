use core::net::IpAddr;
use std::vec::Vec;

use super::*;
use crate::{
    Address,
    flow::End,
    ip,
    testing::{CLIENT, HostMaps, PEER, SERVER},
};

const SYN: u8 = Segment::SYN;
const SYN_ACK: u8 = Segment::SYN | Segment::ACK;
const ACK: u8 = Segment::ACK;
const FIN_ACK: u8 = Segment::FIN | Segment::ACK;
const RST: u8 = Segment::RST;

fn segment(protocol: u8, from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Segment {
    let end = |(address, port): (IpAddr, u16)| End {
        address: Address::from(address),
        port: port.to_be_bytes(),
    };
    let (flow, from_lower) = Flow::new(protocol, end(from), end(to));
    Segment {
        flow,
        from_lower,
        flags,
        // Each FIN ends its sender's numbers at 1000; all else acknowledges just that.
        end: 1000,
        acknowledged: 1000,
    }
}

/// Segments of a connection by their flags, there and back.
type Connection = [fn(u8) -> Segment; 2];

/// A TCP segment of the client to the server, and one back; both orders of addresses.
fn connections() -> Vec<Connection> {
    fn there(flags: u8) -> Segment {
        let ends = ((CLIENT.v4.into(), 40_000), (SERVER.v4.into(), 80));
        segment(ip::TCP, ends.0, ends.1, flags)
    }
    fn back(flags: u8) -> Segment {
        let ends = ((CLIENT.v4.into(), 40_000), (SERVER.v4.into(), 80));
        segment(ip::TCP, ends.1, ends.0, flags)
    }
    fn there_v6(flags: u8) -> Segment {
        let ends = ((PEER.pod_v6.into(), 40_000), (CLIENT.v6.into(), 80));
        segment(ip::TCP, ends.0, ends.1, flags)
    }
    fn back_v6(flags: u8) -> Segment {
        let ends = ((PEER.pod_v6.into(), 40_000), (CLIENT.v6.into(), 80));
        segment(ip::TCP, ends.1, ends.0, flags)
    }
    std::vec![
        [there, back],
        [back, there],
        [there_v6, back_v6],
        [back_v6, there_v6]
    ]
}

fn held(maps: &HostMaps, table: Table) -> usize {
    let flows = maps.flows.borrow();
    flows.keys().filter(|(held, _)| *held == table).count()
}

/// Opens a connection through the stack.
fn opened([there, back]: Connection) -> HostMaps {
    let maps = HostMaps::default();
    remember(&maps, &there(SYN));
    assert!(is_remembered(&maps, &back(SYN_ACK)));
    remember(&maps, &there(ACK));
    maps
}

#[test]
fn a_flow_that_the_stack_never_saw_is_not_its() {
    let maps = HostMaps::default();
    for [there, _] in connections() {
        for flags in [SYN, SYN_ACK, ACK, FIN_ACK, RST] {
            assert!(!is_remembered(&maps, &there(flags)));
        }
        assert!(!is_known(&maps, &there(0).flow));
    }
    assert!(maps.flows.borrow().is_empty(), "looking remembers nothing");
}

#[test]
fn the_answer_to_what_the_stack_delivered_is_the_stacks() {
    for protocol in [ip::UDP, ip::SCTP, ip::ICMP, ip::ICMPV6, 47] {
        let maps = HostMaps::default();
        let (client, server) = ((CLIENT.v4.into(), 4000), (SERVER.v4.into(), 53));
        remember(&maps, &segment(protocol, client, server, 0));
        for answer in [(client, server), (server, client)] {
            let answer = segment(protocol, answer.0, answer.1, 0);
            assert!(is_remembered(&maps, &answer), "protocol {protocol}");
            assert!(is_known(&maps, &answer.flow));
        }
        let other = segment(protocol, server, (CLIENT.v4.into(), 4001), 0);
        assert!(!is_remembered(&maps, &other));
    }
}

#[test]
fn a_server_may_speak_first_as_soon_as_it_has_answered() {
    for [there, back] in connections() {
        let maps = HostMaps::default();
        remember(&maps, &there(SYN));
        assert!(is_remembered(&maps, &back(SYN_ACK)));
        assert!(is_remembered(&maps, &back(ACK)), "before the client's ACK");
    }
}

#[test]
fn a_refusal_is_the_stacks_too() {
    for [there, back] in connections() {
        let maps = HostMaps::default();
        remember(&maps, &there(SYN));
        assert!(is_remembered(&maps, &back(RST | ACK)));
    }
}

#[test]
fn syns_that_nobody_answers_stay_out_of_the_map_of_connections() {
    let maps = HostMaps::default();
    for port in 1..1000 {
        let (client, server) = ((CLIENT.v4.into(), port), (SERVER.v4.into(), 80));
        remember(&maps, &segment(ip::TCP, client, server, SYN));
    }
    assert_eq!(
        (held(&maps, Table::Flows), held(&maps, Table::Conns)),
        (999, 0)
    );
}

#[test]
fn a_connection_that_began_before_the_maps_is_found_with_its_next_segment() {
    for [there, back] in connections() {
        let maps = HostMaps::default();
        assert!(!is_remembered(&maps, &back(ACK)));
        remember(&maps, &there(ACK));
        assert!(is_remembered(&maps, &back(ACK)));
    }
}

#[test]
fn a_connection_stays_until_the_last_ack_after_both_fins() {
    for [there, back] in connections() {
        for client_first in [true, false] {
            let maps = opened([there, back]);
            let fins: [&dyn Fn(); 2] = [&|| remember(&maps, &there(FIN_ACK)), &|| {
                assert!(is_remembered(&maps, &back(FIN_ACK)));
            }];
            let order = if client_first { [0, 1] } else { [1, 0] };
            fins[order[0]]();
            // Half closed: the other end may go on for as long as it likes.
            assert!(is_remembered(&maps, &back(ACK)));
            remember(&maps, &there(ACK));
            fins[order[1]]();
            // Sent again, as the last ACK got lost.
            fins[order[1]]();
            assert_eq!(held(&maps, Table::Conns), 1);
            if client_first {
                remember(&maps, &there(ACK));
            } else {
                assert!(is_remembered(&maps, &back(ACK)), "the last ACK itself");
            }
            assert_eq!(held(&maps, Table::Conns), 0);
        }
    }
}

#[test]
fn a_reset_of_either_end_closes() {
    for [there, back] in connections() {
        let maps = opened([there, back]);
        assert!(is_remembered(&maps, &back(RST)));
        assert_eq!(held(&maps, Table::Conns), 0);

        let maps = opened([there, back]);
        remember(&maps, &there(RST));
        assert_eq!(held(&maps, Table::Conns), 0);
        remember(&maps, &there(RST));
        assert_eq!(held(&maps, Table::Conns), 0, "a reset opens nothing");
    }
}

#[test]
fn one_direction_that_is_closed_twice_does_not_close_the_other() {
    for [there, back] in connections() {
        let maps = opened([there, back]);
        for _ in 0..3 {
            remember(&maps, &there(FIN_ACK));
            remember(&maps, &there(ACK));
        }
        assert!(is_remembered(&maps, &back(ACK)));
        assert_eq!(held(&maps, Table::Conns), 1);
    }
}

/// Both ends' FINs, the first of which is `there`'s, with what they and later ACKs say in numbers.
fn closing([there, back]: Connection) -> HostMaps {
    let maps = opened([there, back]);
    remember(&maps, &there(FIN_ACK));
    let second = Segment {
        end: 0xffff_fffe,
        ..back(FIN_ACK)
    };
    assert!(is_remembered(&maps, &second));
    maps
}

#[test]
fn an_ack_that_waits_for_lost_data_does_not_close() {
    for [there, back] in connections() {
        let maps = closing([there, back]);
        for acknowledged in [0, 1, 1000, 0xffff_fffd, 0xffff_ffff] {
            let waits = Segment {
                acknowledged,
                ..there(ACK)
            };
            remember(&maps, &waits);
            assert!(is_remembered(&maps, &back(ACK)), "sent again");
        }
        let last = Segment {
            acknowledged: 0xffff_fffe,
            ..there(ACK)
        };
        remember(&maps, &last);
        assert_eq!(held(&maps, Table::Conns), 0);
    }
}

#[test]
fn ports_that_are_used_anew_start_anew() {
    for [there, back] in connections() {
        for half_closed in [true, false] {
            let maps = if half_closed {
                let maps = opened([there, back]);
                remember(&maps, &there(FIN_ACK));
                maps
            } else {
                closing([there, back])
            };
            // Whatever was pushed out of the other map meanwhile.
            maps.forget(Table::Flows, &there(0).flow);
            remember(&maps, &there(SYN));
            assert!(is_remembered(&maps, &back(SYN_ACK)));
            remember(&maps, &there(ACK));
            assert!(is_remembered(&maps, &back(FIN_ACK)));
            for _ in 0..3 {
                remember(&maps, &there(ACK));
                assert!(is_remembered(&maps, &back(ACK)), "only half closed");
            }
        }
    }
}
