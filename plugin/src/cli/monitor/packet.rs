//! What a packet says of itself, as far as it was captured.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpSlice, TransportSlice};

/// ICMP types by name, of RFC 792 and RFC 4443.
const ICMP: [(u8, &str); 4] = [
    (0, "echo reply"),
    (3, "unreachable"),
    (8, "echo request"),
    (11, "time exceeded"),
];
const ICMPV6: [(u8, &str); 8] = [
    (1, "unreachable"),
    (2, "too big"),
    (3, "time exceeded"),
    (128, "echo request"),
    (129, "echo reply"),
    (133, "router solicitation"),
    (135, "neighbour solicitation"),
    (136, "neighbour advertisement"),
];

/// A packet in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Who sends and who shall receive it.
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    /// Their ports.
    pub(super) ports: Option<(u16, u16)>,
    /// What it is: `TCP`, `ICMP`, `ARP` ….
    pub(super) protocol: String,
    /// What more there is to say: TCP flags, the kind of ICMP message.
    pub(super) info: String,
}

impl Summary {
    /// Reads as much as there is.
    pub(super) fn of(frame: &[u8]) -> Self {
        let mut summary = Self::default();
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
            "short".clone_into(&mut summary.protocol);
            return summary;
        };
        summary.read_network(&packet);
        match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                summary.ports = Some((tcp.source_port(), tcp.destination_port()));
                summary.info = flags(tcp);
            }
            Some(TransportSlice::Udp(udp)) => {
                summary.ports = Some((udp.source_port(), udp.destination_port()));
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                summary.info = message(&ICMP, icmp.type_u8(), icmp.code_u8());
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                summary.info = message(&ICMPV6, icmp.type_u8(), icmp.code_u8());
            }
            _ => {}
        }
        summary
    }

    fn read_network(&mut self, packet: &LaxSlicedPacket<'_>) {
        let (addresses, payload) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let (header, payload) = (ip.header(), ip.payload());
                let ends = (header.source_addr(), header.destination_addr());
                ((ends.0.into(), ends.1.into()), payload)
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let (header, payload) = (ip.header(), ip.payload());
                let ends = (header.source_addr(), header.destination_addr());
                ((ends.0.into(), ends.1.into()), payload)
            }
            Some(LaxNetSlice::Arp(arp)) => {
                "ARP".clone_into(&mut self.protocol);
                let address = |octets: &[u8]| <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from);
                let sender = address(arp.sender_protocol_addr());
                let target = address(arp.target_protocol_addr());
                self.addresses = sender.zip(target).map(|(a, b)| (a.into(), b.into()));
                return;
            }
            None => {
                self.protocol = ether_type(packet).unwrap_or_default();
                return;
            }
        };
        self.addresses = Some(addresses);
        let number = payload.ip_number;
        self.protocol = match number.keyword_str() {
            Some("IPv6-ICMP") => "ICMPv6".to_owned(),
            Some(keyword) => keyword.to_owned(),
            None => format!("IP protocol {}", number.0),
        };
        if payload.fragmented {
            "fragment".clone_into(&mut self.info);
        }
    }

    /// Whether an address is one of the two.
    pub(super) fn is_between(&self, is_wanted: impl Fn(IpAddr) -> bool) -> bool {
        self.addresses
            .is_some_and(|(source, destination)| is_wanted(source) || is_wanted(destination))
    }
}

/// `10.244.1.2:40000 > 10.244.2.5:80 TCP S`.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addresses, self.ports) {
            (Some((source, destination)), Some((from, to))) => {
                let end = |address: IpAddr, port| std::net::SocketAddr::new(address, port);
                write!(f, "{} > {} ", end(source, from), end(destination, to))?;
            }
            (Some((source, destination)), None) => write!(f, "{source} > {destination} ")?,
            (None, _) => {}
        }
        f.write_str(&self.protocol)?;
        if !self.info.is_empty() {
            write!(f, " {}", self.info)?;
        }
        Ok(())
    }
}

fn ether_type(packet: &LaxSlicedPacket<'_>) -> Option<String> {
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else {
        return None;
    };
    let EtherType(number) = ethernet.ether_type();
    Some(format!("Ethernet type {number:#06x}"))
}

/// The flags as tcpdump has them.
fn flags(tcp: &TcpSlice<'_>) -> String {
    let all = [
        (tcp.fin(), 'F'),
        (tcp.syn(), 'S'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
        (tcp.ack(), '.'),
        (tcp.urg(), 'U'),
        (tcp.ece(), 'E'),
        (tcp.cwr(), 'W'),
    ];
    all.into_iter()
        .filter_map(|(set, letter)| set.then_some(letter))
        .collect()
}

fn message(names: &[(u8, &str)], kind: u8, code: u8) -> String {
    match names.iter().find(|(number, _)| *number == kind) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("type {kind} code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};

    use super::*;

    const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    fn syn(options: &[TcpOptionElement]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(MACS.0, MACS.1)
            .ipv4([10, 244, 1, 2], [10, 244, 2, 5], 64)
            .tcp(40_000, 80, 1, 64_000)
            .syn()
            .options(options)
            .unwrap();
        let mut frame = Vec::new();
        builder.write(&mut frame, b"").unwrap();
        frame
    }

    #[test]
    fn tcp_is_told_by_ends_and_flags() {
        let text = Summary::of(&syn(&[])).to_string();
        assert_eq!(text, "10.244.1.2:40000 > 10.244.2.5:80 TCP S");
    }

    #[test]
    fn what_was_cut_off_is_told_as_far_as_it_goes() {
        let frame = syn(&[TcpOptionElement::MaximumSegmentSize(1460)]);
        let addresses = "10.244.1.2 > 10.244.2.5 TCP";
        assert_eq!(Summary::of(&frame[..40]).to_string(), addresses);
        assert_eq!(Summary::of(&frame[..10]).to_string(), "short");
        for length in 0..frame.len() {
            // Nothing panics on it.
            Summary::of(&frame[..length]);
        }
    }

    #[test]
    fn udp_over_ipv6_and_pings_are_told() {
        let ends = ([0xfd; 16], [0xfe; 16]);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(MACS.0, MACS.1)
            .ipv6(ends.0, ends.1, 64)
            .udp(5, 53)
            .write(&mut frame, b"x")
            .unwrap();
        let summary = Summary::of(&frame);
        assert_eq!((summary.ports, &*summary.protocol), (Some((5, 53)), "UDP"));
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(MACS.0, MACS.1)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4_echo_request(1, 1)
            .write(&mut frame, b"x")
            .unwrap();
        let text = Summary::of(&frame).to_string();
        assert_eq!(text, "10.0.0.1 > 10.0.0.2 ICMP echo request");
    }

    #[test]
    fn arp_and_the_unknown_are_told() {
        let arp = [
            &[0xff; 6][..],
            &[2; 6],
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &[2; 6],
            &[10, 0, 0, 1],
            &[0; 6],
            &[10, 0, 0, 2],
        ]
        .concat();
        assert_eq!(Summary::of(&arp).to_string(), "10.0.0.1 > 10.0.0.2 ARP");
        let lldp = [&[0xff; 6][..], &[2; 6], &[0x88, 0xcc], &[0; 40]].concat();
        assert_eq!(Summary::of(&lldp).to_string(), "Ethernet type 0x88cc");
    }
}
