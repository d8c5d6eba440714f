//! The packets whose cost is measured.

use std::net::Ipv4Addr;

use beeline_common::abi::REDIRECTED;
use beeline_common::flow::End;
use beeline_common::testing::{
    Builder, CLIENT, GATEWAY, PEER, SERVER, STRANGER, UPLINK, UPLINK_MAC, packet,
};
use beeline_common::{Address, Flow, Hook, Mac, Outcome, Pass};

use crate::bench::types::ProgramCost;

/// Runs of one system call: a routed packet loses one hop each.
const BATCH: u32 = 200;

/// A round of a sample that each run changes, which takes a system call a run.
const SINGLE: u32 = 2_000;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;

/// The client's and the server's port of a flow that the stack has.
const KNOWN: [u16; 2] = [40_001, 80];

/// The port of servers of flows that the stack has not, as yet.
const NEW: u16 = 81;

/// The address of [`PEER`]'s uplink.
const PEER_MAC: Mac = Mac([2, 0, 192, 168, 1, 12]);

const NOT_TO_POD: Outcome = Outcome::Passed(Pass::NotToPod);
const STACK_FLOW: Outcome = Outcome::Passed(Pass::StackFlow);

/// Which program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// What a first attempt would be.
    Naive,
    /// One of the datapath's, with the features that a node may lack left out.
    Plain(Hook),
    /// The same with every rule on.
    EveryRule(Hook),
}

/// What a run does that the next must not meet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Takes the packet's mark off.
    Unmarks,
    /// Remembers the packet's flow.
    Remembers,
}

/// A packet, and what becomes of it.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) subject: Subject,
    pub(super) outcome: Outcome,
    pub(super) effect: Effect,
    note: &'static str,
    packet: Builder,
}

impl Sample {
    fn new(hook: Hook, outcome: Outcome, packet: Builder) -> Self {
        Self {
            subject: Subject::Plain(hook),
            outcome,
            effect: Effect::None,
            note: "",
            packet: packet.hop_limit(255),
        }
    }

    fn of(self, subject: Subject) -> Self {
        Self { subject, ..self }
    }

    fn noted(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    fn with(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// How many batches a round is, and how many runs a batch.
    pub(super) fn batches(&self, repeat: u32) -> (u32, u32) {
        match self.effect {
            Effect::None => (repeat.div_ceil(BATCH), repeat.min(BATCH)),
            Effect::Unmarks | Effect::Remembers => (repeat.min(SINGLE), 1),
        }
    }

    /// The packet of a batch.
    pub(super) fn frame(&self, batch: u32) -> Vec<u8> {
        let packet = self.packet.clone();
        match self.effect {
            Effect::Remembers => packet.ports(10_000 + batch as u16, NEW).frame().bytes,
            Effect::None | Effect::Unmarks => packet.frame().bytes,
        }
    }

    /// The packet's mark.
    pub(super) fn mark(&self) -> u32 {
        match self.effect {
            Effect::Unmarks => REDIRECTED,
            Effect::None | Effect::Remembers => 0,
        }
    }

    /// The interface where the program runs.
    pub(super) fn ifindex(&self) -> u32 {
        match self.subject {
            Subject::Plain(Hook::FromUplink | Hook::ToUplink) => UPLINK,
            _ => CLIENT.ifindex,
        }
    }

    /// A measurement without rounds.
    pub(super) fn cost(&self) -> ProgramCost {
        let (program, every_rule) = match self.subject {
            Subject::Naive => (ProgramCost::NAIVE, false),
            Subject::Plain(hook) => (hook.name(), false),
            Subject::EveryRule(hook) => (hook.name(), true),
        };
        ProgramCost {
            program: program.to_owned(),
            outcome: format!("{}{}", self.outcome.name(), self.note),
            every_rule,
            ..ProgramCost::default()
        }
    }
}

/// All samples: the naive program next to what it is compared with. Those with every rule on only if asked for.
pub(super) fn all(every_rule: bool) -> Vec<Sample> {
    let mut samples = Vec::new();
    for sample in from_pod() {
        if samples.is_empty() {
            samples.push(sample.clone().of(Subject::Naive));
        }
        let again = sample.clone().of(Subject::EveryRule(Hook::FromPod));
        samples.push(sample);
        samples.extend(every_rule.then_some(again));
    }
    samples.extend(from_uplink());
    samples.extend(to_pod());
    samples.extend(to_uplink());
    samples
}

/// The flows of samples that the stack has.
pub(super) fn known() -> [Flow; 2] {
    let end = |address: Ipv4Addr, port: u16| End {
        address: Address::from_v4(address.octets()),
        port: port.to_be_bytes(),
    };
    let [client, server] = KNOWN;
    [SERVER.v4, PEER.pod_v4]
        .map(|other| Flow::new(TCP, end(CLIENT.v4, client), end(other, server)).0)
}

/// So many other flows of each map.
pub(super) fn others(count: u32) -> impl Iterator<Item = Flow> {
    let end = |number: u32| End {
        address: Address::from_v4((0x0d00_0000 + number).to_be_bytes()),
        port: [0, 1],
    };
    let flow = move |number| [TCP, UDP].map(|protocol| Flow::new(protocol, end(0), end(number)).0);
    (1..=count).flat_map(flow)
}

/// Whether a sample has left the flow behind.
pub(super) fn is_new(flow: &Flow) -> bool {
    flow.ends().iter().any(|end| end.port == NEW.to_be_bytes())
}

/// What a pod sends. Only here can rules be off.
fn from_pod() -> [Sample; 4] {
    let sample = |outcome, packet| Sample::new(Hook::FromPod, outcome, packet);
    let routed = |to| packet(CLIENT.v4, to).macs(CLIENT.mac, GATEWAY);
    let bridged = packet(CLIENT.v4, SERVER.v4).macs(CLIENT.mac, SERVER.mac);
    let [client, server] = KNOWN;
    [
        sample(Outcome::ToPod, bridged.clone()),
        sample(Outcome::ToPeer, routed(PEER.pod_v4)),
        sample(NOT_TO_POD, routed(STRANGER.pod_v4)),
        sample(STACK_FLOW, bridged.ports(client, server)),
    ]
}

/// What comes from other nodes.
fn from_uplink() -> [Sample; 2] {
    let sample = |outcome, to| {
        let packet = packet(PEER.pod_v4, to).macs(PEER_MAC, UPLINK_MAC);
        Sample::new(Hook::FromUplink, outcome, packet)
    };
    [
        sample(Outcome::ToPod, CLIENT.v4),
        sample(NOT_TO_POD, STRANGER.pod_v4),
    ]
}

/// What the stack delivers to a pod: also what comes from the outside.
fn to_pod() -> [Sample; 3] {
    let sample = |outcome, packet| Sample::new(Hook::ToPod, outcome, packet);
    let from = |source| packet(source, CLIENT.v4).macs(GATEWAY, CLIENT.mac);
    let [client, server] = KNOWN;
    let (answer, request) = (
        from(SERVER.v4).ports(server, client),
        from(SERVER.v4).flags(SYN),
    );
    [
        sample(Outcome::Passed(Pass::NotFromPod), from(STRANGER.pod_v4)),
        sample(STACK_FLOW, answer).noted(" (known)"),
        sample(STACK_FLOW, request)
            .noted(" (new)")
            .with(Effect::Remembers),
    ]
}

/// What leaves by the uplink.
fn to_uplink() -> [Sample; 3] {
    let packet = packet(CLIENT.v4, PEER.pod_v4).macs(UPLINK_MAC, PEER_MAC);
    let sample = |outcome, packet| Sample::new(Hook::ToUplink, outcome, packet);
    let [client, server] = KNOWN;
    [
        sample(Outcome::Passed(Pass::Redirected), packet.clone()).with(Effect::Unmarks),
        sample(STACK_FLOW, packet.clone().ports(client, server)).noted(" (known)"),
        sample(STACK_FLOW, packet.flags(SYN))
            .noted(" (new)")
            .with(Effect::Remembers),
    ]
}
