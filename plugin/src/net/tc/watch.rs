//! Word of changes to traffic control, as they happen.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload};
use netlink_packet_route::{AddressFamily, link::LinkHeader, tc::TcHeader};
use nix::libc;

use crate::net::{exchange::messages, notices::Notices};

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A qdisc or a filter of the link with this index came, changed or went.
    Tc(u32),
    /// The link with this index is gone.
    Gone(u32),
    /// Anything may have happened: notices were lost, or one did not say where.
    Unknown,
}

/// A subscription to changes in the network namespace that it was opened in.
pub struct Watch {
    notices: Notices,
    pending: VecDeque<Change>,
}

impl Watch {
    /// Subscribes, within a runtime: what changes after this returns is not missed.
    pub fn open() -> Result<Self> {
        let groups = [libc::RTNLGRP_TC, libc::RTNLGRP_LINK];
        let notices = Notices::open(&groups, |_| Ok(()));
        Ok(Self {
            notices: notices.context("netlink: watch traffic control")?,
            pending: VecDeque::new(),
        })
    }

    /// Waits for the next change; what was not waited for to the end is not lost.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Ok(change);
            }
            match self.notices.next().await? {
                Some(datagram) => self.pending.extend(changes(datagram)),
                None => return Ok(Change::Unknown),
            }
        }
    }
}

#[cfg(test)]
impl Watch {
    /// Leaves room for few notices only.
    pub(super) fn shrink(&self) -> Result<()> {
        self.notices.shrink()
    }
}

pub(crate) fn changes(datagram: &[u8]) -> impl Iterator<Item = Change> {
    messages(datagram).filter_map(|message| match message.map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(Notice(change))) => change,
        Ok(NetlinkPayload::Overrun(_)) | Err(_) => Some(Change::Unknown),
        Ok(_) => None,
    })
}

/// What a notice says that matters here.
pub(crate) struct Notice(Option<Change>);

impl NetlinkDeserializable for Notice {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let change = match header.message_type {
            libc::RTM_NEWQDISC
            | libc::RTM_DELQDISC
            | libc::RTM_NEWTFILTER
            | libc::RTM_DELTFILTER => Some(at(TcHeader::parse(payload)?.index)),
            libc::RTM_DELLINK => {
                let link = LinkHeader::parse(payload)?;
                // A port that leaves its bridge is announced as deleted too, by the family of bridges.
                (link.interface_family == AddressFamily::Unspec).then_some(Change::Gone(link.index))
            }
            _ => None,
        };
        Ok(Self(change))
    }
}

/// Where traffic control changed; a block that several links share has no index.
fn at(index: i32) -> Change {
    u32::try_from(index).map_or(Change::Unknown, Change::Tc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut notice = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        notice.extend(kind.to_ne_bytes());
        notice.extend([0; 10]);
        notice.extend(payload);
        notice
    }

    #[test]
    fn a_change_without_a_link_can_be_anywhere() {
        let mut shared = [0; 20];
        shared[4..8].copy_from_slice(&TcHeader::TCM_IFINDEX_MAGIC_BLOCK.to_ne_bytes());
        let cut = &shared[..19];
        for payload in [&shared[..], cut] {
            let notice = notice(libc::RTM_NEWTFILTER, payload);
            assert!(changes(&notice).eq([Change::Unknown]));
        }
    }

    #[test]
    fn what_is_no_change_of_traffic_control_is_passed_over() {
        let mut link = [0; 16];
        link[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        let (new, gone) = (
            notice(libc::RTM_NEWLINK, &link),
            notice(libc::RTM_DELLINK, &link),
        );
        assert!(changes(&[new, gone].concat()).eq([Change::Gone(7)]));
    }
}
