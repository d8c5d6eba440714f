//! Packets to be mutated: one of each kind that is judged differently.

use core::net::IpAddr;
use std::vec::Vec;

use super::{
    Builder, CLIENT, FAR, Frame, GATEWAY, OVERLAY_MAC, PEER, SERVER, STRANGER, SUBPEER, THIRD,
    Transport, UPLINK_MAC, packet,
};
use crate::{Mac, Segment, ip::ETHERNET};

/// Packets that [`CLIENT`] sends, or that come in for it, and their answers.
pub fn seeds() -> Vec<Frame> {
    let mut seeds = Vec::new();
    for (there, back) in exchanges() {
        for kind in KINDS {
            seeds.push(kind(there.clone()).frame());
            seeds.push(kind(back.clone()).frame());
        }
        seeds.extend(errors(&there, &back));
        seeds.extend(errors(&back, &there));
    }
    seeds.extend(claims());
    seeds
}

const SYN: u8 = Segment::SYN;
const ACK: u8 = Segment::ACK;

const KINDS: [fn(Builder) -> Builder; 14] = [
    |seed| seed,
    |seed| seed.transport(Transport::Tcp { options: 12 }),
    |seed| seed.flags(SYN),
    |seed| seed.flags(SYN | ACK),
    |seed| seed.flags(Segment::FIN | ACK),
    // Acknowledges the FIN.
    |seed| seed.flags(ACK).sequence(35, 35).payload(0),
    |seed| seed.flags(Segment::RST),
    |seed| seed.transport(Transport::Udp),
    |seed| seed.transport(Transport::Sctp),
    |seed| seed.transport(Transport::Icmp { kind: 8 }),
    |seed| seed.transport(Transport::Icmp { kind: 128 }),
    |seed| first_fragment(seed.transport(Transport::Udp)),
    first_fragment,
    |seed| seed.options(&[1; 4]).extension(60),
];

fn first_fragment(seed: Builder) -> Builder {
    seed.fragment(0x2000).extension(44)
}

/// Packets of [`CLIENT`] to each kind of receiver, and of that back to it.
fn exchanges() -> Vec<(Builder, Builder)> {
    let exchange = |(one, other, to, from): (IpAddr, IpAddr, Mac, [Mac; 2])| {
        let there = packet(one, other).macs(CLIENT.mac, to);
        let back = packet(other, one).macs(from[0], from[1]);
        (there, back.ports(80, 40_000))
    };
    let out = [UPLINK_MAC, OVERLAY_MAC];
    let mut exchanges = Vec::new();
    for (v4, v6, to, from) in [
        (SERVER.v4, SERVER.v6, SERVER.mac, [SERVER.mac, CLIENT.mac]),
        (SERVER.v4, SERVER.v6, GATEWAY, [GATEWAY, CLIENT.mac]),
        (THIRD.v4, THIRD.v6, THIRD.mac, [THIRD.mac, CLIENT.mac]),
        (PEER.pod_v4, PEER.pod_v6, GATEWAY, [GATEWAY, out[0]]),
        (SUBPEER.pod_v4, SUBPEER.pod_v6, GATEWAY, [GATEWAY, out[0]]),
        (FAR.pod_v4, FAR.pod_v6, GATEWAY, [GATEWAY, out[1]]),
        (STRANGER.pod_v4, STRANGER.pod_v6, GATEWAY, [GATEWAY, out[0]]),
    ] {
        exchanges.push(exchange((CLIENT.v4.into(), v4.into(), to, from)));
        exchanges.push(exchange((CLIENT.v6.into(), v6.into(), to, from)));
    }
    exchanges
}

/// Errors that say what became of a packet.
fn errors(of: &Builder, about: &Builder) -> Vec<Frame> {
    let kind = match of.frame().bytes[12] {
        0x08 => 3,
        _ => 1,
    };
    let about = [Transport::Tcp { options: 0 }, Transport::Udp]
        .map(|transport| about.clone().transport(transport).frame());
    about
        .map(|about| of.clone().error(kind, &about).frame())
        .to_vec()
}

/// What a pod says of where an address is: ARP, and a neighbour advertisement as it is and behind another header.
fn claims() -> Vec<Frame> {
    let mut arp = [[0xff; 6], CLIENT.mac.0].concat();
    arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend(CLIENT.mac.0);
    arp.extend(CLIENT.v4.octets());
    arp.extend([0; 6]);
    arp.extend(SERVER.v4.octets());
    let advertisement = packet(CLIENT.v6, SERVER.v6)
        .macs(CLIENT.mac, SERVER.mac)
        .transport(Transport::Icmp { kind: 136 });
    let target = CLIENT.v6.octets();
    [
        Frame::new(arp),
        advertisement.frame().with(ETHERNET + 48, &target),
        // Its length and options are those of no extension header, but nobody reads them.
        advertisement
            .extension(60)
            .frame()
            .with(ETHERNET + 56, &target),
    ]
    .to_vec()
}
