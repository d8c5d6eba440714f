//! Stickiness, hook by hook: what the stack carried keeps to it, and all else to the fast path.

use super::*;
use crate::testing::Transport::{self, Icmp, Other, Sctp, Tcp, Udp};

const SYN: u8 = Segment::SYN;
const ACK: u8 = Segment::ACK;
const FIN: u8 = Segment::FIN;
const RST: u8 = Segment::RST;

/// A way through the stack, and the hook that the answers meet.
#[derive(Clone)]
struct Way {
    name: &'static str,
    there: Builder,
    back: Builder,
    takes_note: Observer,
    answers: fn(&HostMaps, &Frame) -> Verdict,
}

fn answered_by_client(maps: &HostMaps, frame: &Frame) -> Verdict {
    sent_with(maps, frame).0
}

fn answered_at_uplink(maps: &HostMaps, frame: &Frame) -> Verdict {
    received_with(maps, frame).0
}

fn answered_by_overlay(maps: &HostMaps, frame: &Frame) -> Verdict {
    let frame = frame.clone().tunnelled(VNI);
    judged(&frame, |frame| from_overlay(frame, maps, FEATURES)).0
}

/// Every way, both families.
fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for (name, there, back, takes_note, answers) in [
        (
            "pod to pod",
            local(&SERVER, &CLIENT),
            local(&CLIENT, &SERVER),
            delivered_with as Observer,
            answered_by_client as Observer,
        ),
        (
            "peer to pod",
            incoming(&PEER, &CLIENT),
            outgoing(&CLIENT, &PEER),
            delivered_with,
            answered_by_client,
        ),
        (
            "overlay to pod",
            incoming(&FAR, &CLIENT),
            outgoing(&CLIENT, &FAR),
            delivered_with,
            answered_by_client,
        ),
        (
            "pod to peer",
            outgoing(&CLIENT, &SUBPEER),
            incoming(&SUBPEER, &CLIENT),
            forwarded_with,
            answered_at_uplink,
        ),
        (
            "pod to overlay",
            outgoing(&CLIENT, &FAR),
            incoming(&FAR, &CLIENT),
            forwarded_with,
            answered_by_overlay,
        ),
    ] {
        for (there, back) in there.into_iter().zip(back) {
            ways.push(Way {
                name,
                there,
                back: back.ports(80, 40_000),
                takes_note,
                answers,
            });
        }
    }
    ways
}

impl Way {
    /// The way of a transport; ICMP is echo, whichever the family has.
    fn carrying(mut self, transport: Transport) -> Self {
        let is_v4 = self.there.frame().bytes[12] == 0x08;
        let [request, reply] = match transport {
            Icmp { .. } if is_v4 => [8, 0].map(|kind| Icmp { kind }),
            Icmp { .. } => [128, 129].map(|kind| Icmp { kind }),
            other => [other; 2],
        };
        if let Icmp { .. } = transport {
            // The identifier is the same in both directions.
            self.back = self.back.ports(40_000, 80);
        }
        self.there = self.there.transport(request);
        self.back = self.back.transport(reply);
        self
    }

    fn goes(&self, maps: &HostMaps, flags: u8) {
        let frame = self.there.clone().flags(flags).frame();
        let verdict = (self.takes_note)(maps, &frame);
        assert_eq!(verdict, Verdict::Pass(Pass::StackFlow), "{}", self.name);
    }

    fn comes(&self, maps: &HostMaps, packet: &Builder) -> bool {
        match (self.answers)(maps, &packet.frame()) {
            Verdict::Pass(Pass::StackFlow) => true,
            Verdict::ToPod { .. } | Verdict::ToPeer { .. } | Verdict::ToOverlay { .. } => false,
            other => panic!("{}: {other:?}", self.name),
        }
    }

    #[track_caller]
    fn assert_answer_passes(&self, maps: &HostMaps, flags: u8) {
        assert!(
            self.comes(maps, &self.back.clone().flags(flags)),
            "{}",
            self.name
        );
    }

    #[track_caller]
    fn assert_answer_is_fast(&self, maps: &HostMaps, flags: u8) {
        assert!(
            !self.comes(maps, &self.back.clone().flags(flags)),
            "{}",
            self.name
        );
    }
}

/// What has flows: but for TCP, which is told apart by its flags.
fn transports(way: &Way) -> Vec<Transport> {
    let mut transports = std::vec![Udp, Sctp, Icmp { kind: 0 }];
    if way.there.frame().bytes[12] == 0x08 {
        transports.push(Other(47));
    }
    transports
}

#[test]
fn an_answer_to_the_stack_passes_and_all_else_goes_fast() {
    for way in ways() {
        for transport in transports(&way) {
            let way = way.clone().carrying(transport);
            let maps = cluster();
            way.assert_answer_is_fast(&maps, 0);
            way.goes(&maps, 0);
            way.assert_answer_passes(&maps, 0);
            way.assert_answer_passes(&maps, 0);
            if !matches!(transport, Other(_)) {
                let another = way.back.clone().ports(81, 81);
                assert!(!way.comes(&maps, &another), "{}: {transport:?}", way.name);
            }
            let other_transport = way.clone().carrying(Tcp { options: 0 });
            other_transport.assert_answer_is_fast(&maps, SYN | ACK);
        }
    }
}

#[test]
fn what_goes_fast_is_not_remembered() {
    for way in ways() {
        let maps = cluster();
        for transport in transports(&way) {
            way.clone()
                .carrying(transport)
                .assert_answer_is_fast(&maps, 0);
        }
        for flags in [SYN, SYN | ACK, ACK, FIN | ACK, RST] {
            way.assert_answer_is_fast(&maps, flags);
        }
        assert!(maps.flows.borrow().is_empty(), "{}", way.name);
    }
}

#[test]
fn a_connection_stays_with_the_stack_from_its_syn_to_its_last_ack() {
    for way in ways() {
        let maps = cluster();
        way.goes(&maps, SYN);
        way.assert_answer_passes(&maps, SYN | ACK);
        way.assert_answer_passes(&maps, ACK);
        way.goes(&maps, ACK);
        way.assert_answer_passes(&maps, FIN | ACK);
        way.goes(&maps, ACK);
        way.assert_answer_passes(&maps, ACK);
        let last = way.there.clone().sequence(1000, 2).payload(0);
        (way.takes_note)(&maps, &last.flags(FIN | ACK).frame());
        way.assert_answer_passes(&maps, FIN | ACK);
        // Waits for what the other end has sent long ago.
        assert!(way.comes(&maps, &way.back.clone().sequence(2, 1000).flags(ACK)));
        assert!(way.comes(&maps, &way.back.clone().sequence(2, 1001).flags(ACK)));
        way.assert_answer_is_fast(&maps, ACK);
    }
}

#[test]
fn a_connection_ends_where_its_header_says_whatever_the_frame_is_padded_with() {
    for way in ways() {
        for (options, payload) in [(0, 0), (12, 0), (40, 1), (0, 100)] {
            let carrying = |builder: &Builder| {
                let builder = builder.clone().transport(Tcp { options });
                builder.payload(payload).sequence(u32::MAX, 0)
            };
            let maps = cluster();
            way.goes(&maps, ACK);
            let mut second = carrying(&way.there).flags(FIN | ACK).frame();
            second.bytes.extend([0; 6]);
            way.assert_answer_passes(&maps, FIN | ACK);
            (way.takes_note)(&maps, &second);
            // The FIN takes a number, too.
            let end = payload as u32;
            for acknowledged in [end.wrapping_sub(1), end + 1] {
                let ack = way.back.clone().sequence(7, acknowledged).flags(ACK);
                assert!(way.comes(&maps, &ack));
                assert_eq!(maps.flows.borrow().len(), 1);
            }
            let ack = way.back.clone().sequence(7, end).flags(ACK);
            assert!(way.comes(&maps, &ack));
            assert!(maps.flows.borrow().is_empty(), "{}: {payload}", way.name);
        }
    }
}

#[test]
fn an_aggregate_longer_than_a_header_can_say_ends_where_it_ends() {
    let [way, ..] = &ways()[..] else {
        unreachable!("there are ways")
    };
    let maps = cluster();
    way.goes(&maps, ACK);
    way.assert_answer_passes(&maps, FIN | ACK);
    let big = way.there.clone().payload(70_000).sequence(0, 0);
    // The length of BIG TCP is 0 in IPv4's header.
    let big = big.flags(FIN | ACK).frame().with(IP + 2, &[0, 0]);
    delivered_with(&maps, &big.segmented(1448));
    let ack = |number| way.back.clone().sequence(7, number).flags(ACK);
    assert!(way.comes(&maps, &ack(70_000)));
    assert!(way.comes(&maps, &ack(70_001)));
    way.assert_answer_is_fast(&maps, ACK);
}

#[test]
fn a_refusal_passes_and_leaves_nothing_open() {
    for way in ways() {
        let maps = cluster();
        way.goes(&maps, SYN);
        way.assert_answer_passes(&maps, RST | ACK);
        way.assert_answer_is_fast(&maps, ACK);
    }
}

#[test]
fn a_connection_in_progress_is_the_stacks_with_its_next_segment() {
    for way in ways() {
        for flags in [ACK, FIN | ACK] {
            let maps = cluster();
            way.assert_answer_is_fast(&maps, ACK);
            way.goes(&maps, flags);
            way.assert_answer_passes(&maps, ACK);
            way.goes(&maps, RST);
            way.assert_answer_is_fast(&maps, ACK);
        }
    }
}

#[test]
fn a_pod_that_calls_from_the_ports_of_a_stack_flow_takes_the_stack_too() {
    for way in ways() {
        let maps = cluster();
        way.goes(&maps, SYN);
        way.assert_answer_passes(&maps, SYN);
        way.goes(&maps, SYN | ACK);
        way.assert_answer_passes(&maps, ACK);
    }
}
