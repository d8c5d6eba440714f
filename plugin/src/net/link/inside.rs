//! The ends of veths that are inside of pods, as they are seen from the node: no namespace is entered.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{RouteNetlinkMessage, link::LinkAttribute};
use nix::{errno::Errno, libc};
use rtnetlink::LinkUnspec;

use super::{Link, reported, without_statistics};
use crate::net::{Netlink, exchange::messages, mac::Mac, notices::Notices};

impl Netlink {
    /// The other end of the veth with this index, in whichever namespace it is (Linux 4.15); `None` if there is none.
    pub async fn other_end(&self, index: u32) -> Result<Option<Link>> {
        let Some(near) = self.link_at(index).await? else {
            return Ok(None);
        };
        let (Some(far), Some(netns)) = (near.peer_index, near.peer_netns) else {
            return Ok(None);
        };
        let mut query = without_statistics(LinkUnspec::new_with_index(far).build());
        query.attributes.push(LinkAttribute::IfNetnsId(netns));
        let found = match self.request(RouteNetlinkMessage::GetLink(query), 0).await {
            Ok(replies) => replies.into_iter().find_map(reported),
            // The link or its namespace went in the meantime.
            Err(Errno::ENODEV | Errno::EINVAL) => None,
            Err(errno) => {
                return Err(errno).with_context(|| format!("link {index}: get its other end"));
            }
        };
        Ok(found.filter(|link| link.peer_index == Some(index)))
    }
}

/// What happened to a veth's end in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The other end of the veth with this index has this MAC.
    Mac(u32, Mac),
    /// Anything may have happened: notices were lost.
    Unknown,
}

/// A subscription to changes of links in all namespaces that have a link into the one that it was opened in.
///
/// What it says is a hint: a pod may have links, with indices of the same number, that lead elsewhere.
/// [`other_end`](Netlink::other_end) tells how it is.
pub struct Watch {
    notices: Notices,
    pending: VecDeque<Change>,
}

impl Watch {
    /// Subscribes, within a runtime: what changes after this returns is not missed.
    pub fn open() -> Result<Self> {
        let notices = Notices::open(&[libc::RTNLGRP_LINK], |socket| {
            socket.set_listen_all_namespaces(true)
        });
        Ok(Self {
            notices: notices.context("netlink: watch links of all namespaces")?,
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

/// Of links that lead elsewhere, with their MACs. A message that cannot be decoded is about nothing that matters here.
pub(crate) fn changes(datagram: &[u8]) -> impl Iterator<Item = Change> {
    messages(datagram).filter_map(|message| match message.map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(notice)) => mac(reported(notice)?),
        Ok(NetlinkPayload::Overrun(_)) => Some(Change::Unknown),
        Ok(_) | Err(_) => None,
    })
}

fn mac(link: Link) -> Option<Change> {
    link.peer_netns?;
    Some(Change::Mac(link.peer_index?, link.mac?))
}
