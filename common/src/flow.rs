//! Flows: who talks to whom, the same whichever way a packet goes.

use crate::{Address, Packet, TooShort, ip, packet::part};

/// Key of `STACK_FLOWS` and `STACK_CONNS`: a flow's 5-tuple, the end with the lower address first.
///
/// ```text
///  0               16              32    34    36         40
///  ├ lower address ┼ upper address ┼ port┼ port┼ protocol ┤
/// ```
///
/// The ports of ICMP echo are its identifier, those of protocols without ports 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    addresses: [Address; 2],
    ports: [[u8; 2]; 2],
    protocol: u32,
}

const _: () = assert!(size_of::<Flow>() == 40);

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub address: Address,
    /// Its port in network order.
    pub port: [u8; 2],
}

impl Flow {
    /// The flow that a packet from `source` to `destination` belongs to, and whether the lower end sends it.
    ///
    /// A pod's flow with itself has a key for each direction; such packets are the stack's anyway.
    #[inline(always)]
    pub const fn new(protocol: u8, source: End, destination: End) -> (Self, bool) {
        let from_lower = source.address.precedes(&destination.address);
        let (low, high) = if from_lower {
            (source, destination)
        } else {
            (destination, source)
        };
        let flow = Self {
            addresses: [low.address, high.address],
            ports: [low.port, high.port],
            protocol: protocol as u32,
        };
        (flow, from_lower)
    }

    /// The two ends, the lower first.
    pub const fn ends(&self) -> [End; 2] {
        let [low, high] = self.addresses;
        let [low_port, high_port] = self.ports;
        [
            End {
                address: low,
                port: low_port,
            },
            End {
                address: high,
                port: high_port,
            },
        ]
    }

    /// The transport protocol's number.
    pub const fn protocol(&self) -> u8 {
        self.protocol as u8
    }
}

/// A packet as a part of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The flow.
    pub flow: Flow,
    /// Whether the flow's lower end sends it.
    pub from_lower: bool,
    /// TCP's flags (RFC 9293, section 3.1); 0 for other protocols, as what follows.
    pub flags: u8,
    /// The sequence number behind a segment with FIN; 0 of others.
    pub end: u32,
    /// The sequence number that the sender waits for, if it acknowledges something.
    pub acknowledged: u32,
}

impl Segment {
    /// The sender has no more to say.
    pub const FIN: u8 = 0x01;
    /// The connection opens.
    pub const SYN: u8 = 0x02;
    /// The connection is no more.
    pub const RST: u8 = 0x04;
    /// Something is acknowledged.
    pub const ACK: u8 = 0x10;

    /// Whether the flow is a TCP connection.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.flow.protocol == ip::TCP as u32
    }

    /// Whether one of these flags is set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Reads what tells of the flow behind an IP header that ends at `at`, `length` bytes before the packet does.
    ///
    /// # Errors
    ///
    /// The packet ends before it.
    #[inline(always)]
    pub fn load<P: Packet>(
        packet: &P,
        protocol: u8,
        addresses: [Address; 2],
        at: usize,
        length: u32,
    ) -> Result<Self, TooShort> {
        if protocol != ip::TCP {
            return Self::load_quoted(packet, protocol, addresses, at);
        }
        let bytes: [u8; 14] = packet.load(at)?;
        let flags = bytes[13];
        let mut end = 0;
        // What nothing asks for is not worked out.
        if flags & Self::FIN != 0 {
            let payload = length.wrapping_sub(u32::from(bytes[12] >> 4) * 4);
            end = u32::from_be_bytes(part(&bytes, 4)).wrapping_add(payload + 1);
        }
        Ok(Self {
            flags,
            end,
            acknowledged: u32::from_be_bytes(part(&bytes, 8)),
            ..Self::new(protocol, addresses, [part(&bytes, 0), part(&bytes, 2)])
        })
    }

    /// Reads the eight bytes that an ICMP error quotes of the transport header; TCP's flags are not among them.
    #[inline(always)]
    pub(crate) fn load_quoted<P: Packet>(
        packet: &P,
        protocol: u8,
        addresses: [Address; 2],
        at: usize,
    ) -> Result<Self, TooShort> {
        let ports = ports(packet, protocol, at)?;
        Ok(Self::new(protocol, addresses, ports))
    }

    #[inline(always)]
    const fn new(protocol: u8, addresses: [Address; 2], ports: [[u8; 2]; 2]) -> Self {
        let [source, destination] = addresses;
        let [source_port, destination_port] = ports;
        let (flow, from_lower) = Flow::new(
            protocol,
            End {
                address: source,
                port: source_port,
            },
            End {
                address: destination,
                port: destination_port,
            },
        );
        Self {
            flow,
            from_lower,
            flags: 0,
            end: 0,
            acknowledged: 0,
        }
    }
}

#[inline(always)]
fn ports<P: Packet>(packet: &P, protocol: u8, at: usize) -> Result<[[u8; 2]; 2], TooShort> {
    match protocol {
        ip::TCP | ip::UDP | ip::SCTP => {
            let bytes: [u8; 4] = packet.load(at)?;
            Ok([part(&bytes, 0), part(&bytes, 2)])
        }
        ip::ICMP | ip::ICMPV6 => {
            let identifier = packet.load(at + 4)?;
            Ok([identifier, identifier])
        }
        _ => Ok([[0; 2]; 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(last: u8, port: u16) -> End {
        End {
            address: Address::from_v4([10, 244, 1, last]),
            port: port.to_be_bytes(),
        }
    }

    #[test]
    fn both_directions_are_one_flow() {
        for (one, other) in [(end(2, 40_000), end(3, 80)), (end(3, 80), end(200, 1))] {
            let (there, from_lower) = Flow::new(ip::TCP, one, other);
            let (back, to_lower) = Flow::new(ip::TCP, other, one);
            assert_eq!(there, back);
            assert_ne!(from_lower, to_lower);
            let (_, first_is_lower) = Flow::new(ip::TCP, there.ends()[0], there.ends()[1]);
            assert!(first_is_lower);
        }
    }

    #[test]
    fn ports_belong_to_their_addresses_and_protocols_are_told_apart() {
        let flow = |protocol, from, to| Flow::new(protocol, from, to).0;
        let flows = [
            flow(ip::TCP, end(2, 1), end(3, 2)),
            flow(ip::TCP, end(2, 2), end(3, 1)),
            flow(ip::UDP, end(2, 1), end(3, 2)),
            flow(ip::TCP, end(2, 1), end(4, 2)),
        ];
        for (index, one) in flows.iter().enumerate() {
            assert!(!flows[..index].contains(one));
        }
    }
}
