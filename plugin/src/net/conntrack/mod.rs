//! What conntrack knows of the connections of the calling thread's network namespace.
//!
//! A connection that it translates must stay with it: replies that took another way would never be translated back.

use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_core::{DecodeError, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, Nla};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        self, ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple,
        Status,
    },
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::exchange::exchange;

#[cfg(test)]
mod netns_tests;

/// `NFNL_SUBSYS_CTNETLINK` of linux/netfilter/nfnetlink.h.
const SUBSYSTEM: u16 = 1;

// linux/netfilter/nfnetlink_conntrack.h: identifiers of echo requests.
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;

/// A connection, or what conntrack takes for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Packets as whoever began it sends them, before any translation.
    pub original: Tuple,
    /// Packets of the answers, before they are translated back.
    pub reply: Tuple,
    /// Whether its addresses or ports are translated.
    pub translated: bool,
    /// How far a TCP connection is; none for other protocols.
    pub tcp: Option<TcpState>,
}

/// What packets in one direction of a connection have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The IP protocol number.
    pub protocol: u8,
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// The port they come from, or the identifier of ICMP echoes; 0 in a protocol that has neither.
    pub source_port: u16,
    /// The port they go to, or the identifier of ICMP echoes again; 0 in a protocol that has neither.
    pub destination_port: u16,
}

/// How far a TCP connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// The handshake has not ended.
    Opening,
    /// Both sides may send.
    Established,
    /// One side has ended, and packets still flow.
    Closing,
    /// Both sides have ended, or one broke off.
    Closed,
}

/// Lists all connections, IPv4 and IPv6. One that begins or ends meanwhile may be missing.
pub fn connections() -> Result<Vec<Connection>> {
    list(|_| true)
}

/// Lists the connections whose addresses or ports are translated.
pub fn translated() -> Result<Vec<Connection>> {
    list(|connection| connection.translated)
}

fn list(wanted: impl Fn(&Connection) -> bool) -> Result<Vec<Connection>> {
    let every_family = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let query = NetfilterMessage::new(every_family, ConntrackMessage::Get(Vec::new()));
    let listed = exchange(
        NETLINK_NETFILTER,
        query,
        NLM_F_DUMP,
        |Answer(connection)| connection.filter(&wanted),
    );
    listed.context("conntrack: list connections")
}

/// The connection that a message tells of, if it is one of conntrack's and does.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Option<Connection>);

impl NetlinkDeserializable for Answer {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        // What other parts of netfilter say is not decoded: netlink-packet-netfilter 0.4.0 panics at attributes of
        // nf_tables' that are shorter than they say.
        if header.message_type >> 8 != SUBSYSTEM {
            return Ok(Self(None));
        }
        let message = NetfilterMessage::deserialize(header, payload)?;
        Ok(Self(match message.inner {
            NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => {
                Connection::read(&attributes)
            }
            _ => None,
        }))
    }
}

impl Connection {
    fn read(attributes: &[ConntrackAttribute]) -> Option<Self> {
        let (mut original, mut reply, mut tcp) = (None, None, None);
        let mut status = Status::empty();
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => original = Tuple::read(tuple),
                ConntrackAttribute::CtaTupleReply(tuple) => reply = Tuple::read(tuple),
                ConntrackAttribute::CtaStatus(bits) => status = *bits,
                ConntrackAttribute::CtaProtoInfo(infos) => tcp = TcpState::read(infos),
                _ => {}
            }
        }
        Some(Self {
            original: original?,
            reply: reply?,
            translated: status.intersects(Status::NatMask),
            tcp,
        })
    }
}

impl Tuple {
    fn read(parts: &[conntrack::Tuple]) -> Option<Self> {
        let (mut source, mut destination, mut protocol) = (None, None, None);
        let (mut source_port, mut destination_port) = (0, 0);
        for part in parts {
            match part {
                conntrack::Tuple::Ip(addresses) => {
                    for address in addresses {
                        match address {
                            IPTuple::SourceAddress(ip) => source = Some(*ip),
                            IPTuple::DestinationAddress(ip) => destination = Some(*ip),
                            _ => {}
                        }
                    }
                }
                conntrack::Tuple::Proto(attributes) => {
                    for attribute in attributes {
                        match attribute {
                            ProtoTuple::Protocol(number) => protocol = Some((*number).into()),
                            ProtoTuple::SourcePort(port) => source_port = *port,
                            ProtoTuple::DestinationPort(port) => destination_port = *port,
                            other => {
                                if let Some(identifier) = echo_identifier(other) {
                                    (source_port, destination_port) = (identifier, identifier);
                                }
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Some(Self {
            protocol: protocol?,
            source: source?,
            destination: destination?,
            source_port,
            destination_port,
        })
    }
}

impl TcpState {
    fn read(infos: &[ProtoInfo]) -> Option<Self> {
        let of_tcp = infos.iter().find_map(|info| match info {
            ProtoInfo::TCP(attributes) => Some(attributes),
            _ => None,
        });
        of_tcp?.iter().find_map(|attribute| match attribute {
            // linux/netfilter/nf_conntrack_tcp.h: `enum tcp_conntrack`.
            ProtoInfoTCP::State(state) => Some(match state {
                3 => Self::Established,
                4..=6 => Self::Closing,
                7 | 8 => Self::Closed,
                _ => Self::Opening,
            }),
            _ => None,
        })
    }
}

fn echo_identifier(attribute: &ProtoTuple) -> Option<u16> {
    let known = [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMPV6_ID].contains(&attribute.kind());
    if !known || attribute.value_len() != size_of::<u16>() {
        return None;
    }
    let mut identifier = [0; 2];
    attribute.emit_value(&mut identifier);
    Some(u16::from_be_bytes(identifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_another_part_of_netfilter_is_none_of_a_connection() {
        let mut header = NetlinkHeader::default();
        // `NFT_MSG_NEWSET`, with an expression of one byte.
        header.message_type = 0xa09;
        let payload = [2, 0, 0, 0, 5, 0, 17, 0, 1, 0, 0, 0];
        assert!(Answer::deserialize(&header, &payload).unwrap().0.is_none());
        header.message_type = SUBSYSTEM << 8;
        assert!(Answer::deserialize(&header, &payload[..3]).is_err());
    }
}
