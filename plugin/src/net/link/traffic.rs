//! What went over links.

use std::collections::HashMap;

use anyhow::{Context, Result};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use serde::Serialize;

use crate::net::Netlink;

/// So many packets of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What went over a link since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The link's name.
    pub name: String,
    /// What it received: of a host veth, what its pod sent.
    pub received: Amount,
    /// What it sent.
    pub sent: Amount,
}

impl Netlink {
    /// Reads what went over every link of the namespace, by index.
    pub async fn traffic(&self) -> Result<HashMap<u32, Traffic>> {
        let query = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let replies = self.request(query, NLM_F_DUMP).await;
        let replies = replies.context("links: list with statistics")?;
        Ok(replies.into_iter().filter_map(read).collect())
    }
}

pub(crate) fn read(reply: RouteNetlinkMessage) -> Option<(u32, Traffic)> {
    let RouteNetlinkMessage::NewLink(message) = reply else {
        return None;
    };
    let mut traffic = Traffic::default();
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => traffic.name = name,
            LinkAttribute::Stats64(stats) => {
                traffic.received = Amount {
                    packets: stats.rx_packets,
                    bytes: stats.rx_bytes,
                };
                traffic.sent = Amount {
                    packets: stats.tx_packets,
                    bytes: stats.tx_bytes,
                };
            }
            _ => {}
        }
    }
    Some((message.header.index, traffic))
}
