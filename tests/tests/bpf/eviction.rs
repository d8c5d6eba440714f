//! What a full map of flows forgets: never a connection that is open, nor a flow that is used.

use beeline_common::{
    Flow, Hook, Segment,
    abi::MIN_FLOWS,
    ip, sticky,
    testing::{Builder, CLIENT, FEATURES, Frame, SERVER, Transport, packet},
};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

use crate::lab::{Lab, lab_with};

const SYN: u8 = Segment::SYN;
const ACK: u8 = Segment::ACK;
const FIN: u8 = Segment::FIN;
const RST: u8 = Segment::RST;

/// A packet of a flow of `SERVER` to `CLIENT` through the stack, by number.
fn there(number: u32, transport: Transport, flags: u8) -> Frame {
    going(number, transport, flags).frame()
}

/// Acknowledges what `CLIENT` sent up to a sequence number.
fn acknowledging(number: u32, sequence: u32) -> Frame {
    going(number, TCP, ACK).sequence(2, sequence).frame()
}

fn going(number: u32, transport: Transport, flags: u8) -> Builder {
    let [source, destination] = ports(number);
    packet(SERVER.v4, CLIENT.v4)
        .macs(SERVER.mac, CLIENT.mac)
        .transport(transport)
        .ports(source, destination)
        .flags(flags)
        .payload(0)
}

/// The answer to such a flow.
fn back(number: u32, transport: Transport, flags: u8) -> Frame {
    let [source, destination] = ports(number);
    packet(CLIENT.v4, SERVER.v4)
        .macs(CLIENT.mac, SERVER.mac)
        .transport(transport)
        .ports(destination, source)
        .flags(flags)
        .payload(0)
        .frame()
}

fn ports(number: u32) -> [u16; 2] {
    [(number & 0xffff) as u16, (number >> 16) as u16]
}

fn flow(frame: &Frame) -> Flow {
    let header = ip::Header::parse(frame, 0x0800).expect("an IPv4 header");
    header.segment(frame).expect("ports").flow
}

fn run(lab: &Lab, hook: Hook, frame: &Frame) {
    lab.run(hook, frame, false).expect("run");
}

/// Runs `test` over maps of `MIN_FLOWS` flows, on one CPU: each CPU has a few free entries to itself, which it would
/// take before it makes room.
fn crowded(test: impl FnOnce(&Lab) + Send) {
    lab_with(FEATURES, MIN_FLOWS, |lab| {
        let mut one = CpuSet::new();
        let cpu = sched_getcpu().expect("a CPU");
        one.set(cpu).expect("a CPU that exists");
        sched_setaffinity(Pid::from_raw(0), &one).expect("stay on a CPU");
        test(lab);
    });
}

/// Remembers so many flows that nobody uses again, from number `from` on.
fn churn(lab: &Lab, from: u32, count: u32, transport: Transport, flags: u8) {
    for number in from..from + count {
        run(lab, Hook::ToPod, &there(number, transport, flags));
    }
}

/// Opens connections through the stack: half as many as the map holds.
fn open_connections(lab: &Lab) {
    for number in 0..CONNECTIONS {
        open(lab, number);
    }
    assert_connected(lab);
}

fn open(lab: &Lab, number: u32) {
    run(lab, Hook::ToPod, &there(number, TCP, SYN));
    run(lab, Hook::FromPod, &back(number, TCP, SYN | ACK));
    run(lab, Hook::ToPod, &there(number, TCP, ACK));
}

/// Asserts that the connections are the stack's still.
fn assert_connected(lab: &Lab) {
    let lost = (0..CONNECTIONS).filter(|&number| {
        let flow = flow(&back(number, TCP, ACK));
        !lab.holds(sticky::Table::Conns, &flow)
    });
    assert_eq!(lost.count(), 0, "of {CONNECTIONS} connections");
}

const TCP: Transport = Transport::Tcp { options: 0 };
const UDP: Transport = Transport::Udp;
const CONNECTIONS: u32 = MIN_FLOWS / 2;
/// More than the maps hold, many times over; and a number above those of all else.
const MANY: u32 = 16 * MIN_FLOWS;
const OTHERS: u32 = 1 << 16;

#[test]
fn datagrams_and_unanswered_syns_push_out_no_idle_connection() {
    crowded(|lab| {
        open_connections(lab);
        churn(lab, OTHERS, MANY, UDP, 0);
        churn(lab, OTHERS, MANY, TCP, SYN);
        assert_connected(lab);
        // Else nothing was pushed out, and this proves nothing.
        for first in [there(OTHERS, UDP, 0), there(OTHERS, TCP, SYN)] {
            assert!(!lab.holds(sticky::Table::Flows, &flow(&first)));
        }
    });
}

#[test]
fn connections_that_close_push_out_no_idle_one() {
    crowded(|lab| {
        open_connections(lab);
        for number in OTHERS..OTHERS + MANY {
            open(lab, number);
            if number % 2 == 0 {
                run(lab, Hook::FromPod, &back(number, TCP, RST));
                continue;
            }
            run(lab, Hook::ToPod, &there(number, TCP, FIN | ACK));
            run(lab, Hook::FromPod, &back(number, TCP, FIN | ACK));
            // The FIN had number 1, and was empty.
            run(lab, Hook::ToPod, &acknowledging(number, 2));
        }
        assert_connected(lab);
        assert_eq!(lab.flows_in(sticky::Table::Conns), CONNECTIONS as usize);
    });
}

/// What holds of the kernel's approximate LRU, measured on Linux 6.18: 128 live flows survived if used every 896
/// insertions into a map of 1024.
#[test]
fn a_flow_that_is_used_now_and_then_survives_any_number_of_others() {
    const LIVE: u32 = 64;
    const EVERY: u32 = MIN_FLOWS / 2;
    crowded(|lab| {
        churn(lab, 0, LIVE, UDP, 0);
        for round in 1..=MANY / EVERY {
            churn(lab, round * OTHERS, EVERY, UDP, 0);
            for number in 0..LIVE {
                let answer = back(number, UDP, 0);
                let held = lab.holds(sticky::Table::Flows, &flow(&answer));
                assert!(held, "flow {number} in round {round}");
                run(lab, Hook::FromPod, &answer);
            }
        }
        // Else nothing was pushed out, and this proves nothing.
        let first = flow(&there(OTHERS, UDP, 0));
        assert!(!lab.holds(sticky::Table::Flows, &first));
        assert!(lab.flows_in(sticky::Table::Flows) <= MIN_FLOWS as usize);
    });
}
