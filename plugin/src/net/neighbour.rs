//! Neighbour entries (ARP and ND).

use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use nix::errno::Errno;

use super::{Netlink, family, mac::Mac};

/// A neighbour whose Ethernet address was given by hand, and which is never asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// How far the kernel is with finding out a neighbour's Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was given by hand.
    Permanent,
    /// It is asked for, and was not answered yet.
    Incomplete,
    /// Nobody has answered.
    Failed,
    /// It is known, or will be asked for when it is needed.
    Usable,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The index of the link that it is on.
    pub interface: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address, if that is known.
    pub mac: Option<Mac>,
    /// How far the kernel is.
    pub state: State,
}

impl Netlink {
    /// Lists what the kernel knows of the neighbours on all links.
    pub async fn neighbour_entries(&self) -> Result<Vec<Entry>> {
        let query = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let replies = self.request(query, NLM_F_DUMP).await;
        let replies = replies.context("neighbours: list")?;
        Ok(replies.into_iter().filter_map(entry).collect())
    }

    /// Makes an address have an Ethernet address on a link, for good.
    pub async fn replace_neighbour(&self, index: u32, neighbour: Neighbour) -> Result<()> {
        let Neighbour { ip, mac } = neighbour;
        let mut message = described(index, ip);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let replaced = self.request(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        );
        replaced
            .await
            .map(drop)
            .with_context(|| format!("link {index}: replace neighbour {ip} {mac}"))
    }

    /// Lists the permanent neighbours of a link; none if there is no such link.
    pub async fn neighbours(&self, index: u32) -> Result<Vec<Neighbour>> {
        let mut query = NeighbourMessage::default();
        query.attributes = vec![NeighbourAttribute::IfIndex(index)];
        let replies = self
            .request(RouteNetlinkMessage::GetNeighbour(query), NLM_F_DUMP)
            .await;
        let replies = match replies {
            Err(Errno::ENODEV) => return Ok(Vec::new()),
            replies => replies.with_context(|| format!("link {index}: list neighbours"))?,
        };
        Ok(replies
            .into_iter()
            .filter_map(|reply| reported(reply, index))
            .collect())
    }

    /// Forgets what MAC an address has on a link; needed when the address is given to another pod.
    pub async fn flush_neighbour(&self, index: u32, ip: IpAddr) -> Result<()> {
        match self
            .request(RouteNetlinkMessage::DelNeighbour(described(index, ip)), 0)
            .await
        {
            // ENXIO: a link without IPv6, whose neighbours cannot be either.
            Ok(_) | Err(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("link {index}: flush neighbour {ip}")),
        }
    }
}

fn described(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    })];
    message
}

/// The neighbour in a kernel's answer, if it is a permanent one of this link.
fn reported(reply: RouteNetlinkMessage, index: u32) -> Option<Neighbour> {
    // Kernels without strict checking list every link.
    let ours = |entry: &Entry| entry.interface == index && entry.state == State::Permanent;
    let Entry { ip, mac, .. } = entry(reply).filter(ours)?;
    Some(Neighbour { ip, mac: mac? })
}

pub(crate) fn entry(reply: RouteNetlinkMessage) -> Option<Entry> {
    let RouteNetlinkMessage::NewNeighbour(message) = reply else {
        return None;
    };
    let state = match message.header.state {
        NeighbourState::Permanent => State::Permanent,
        NeighbourState::Incomplete => State::Incomplete,
        NeighbourState::Failed => State::Failed,
        _ => State::Usable,
    };
    let (mut ip, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(v4.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(v6.into()),
            NeighbourAttribute::LinkLayerAddress(octets) => mac = octets.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Entry {
        interface: message.header.ifindex,
        ip: ip?,
        mac,
        state,
    })
}

#[cfg(test)]
mod netns_tests {
    use std::process::Command;

    use anyhow::ensure;

    use super::*;
    use crate::net::{mac::Mac, testing};

    fn ip(args: &str) -> Result<String> {
        let output = Command::new("ip").args(args.split(' ')).output()?;
        ensure!(
            output.status.success(),
            "ip {args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    #[test]
    fn a_flushed_neighbour_is_gone_and_flushing_it_again_succeeds() {
        testing::netlink(async |netlink| {
            netlink.create_bridge("br0", Mac::random(), None).await?;
            let bridge = netlink.link("br0").await?.context("br0")?;
            for address in ["10.0.0.9", "fd00::9"] {
                ip(&format!(
                    "neigh add {address} lladdr 02:00:00:00:00:09 dev br0"
                ))?;
                assert!(ip("neigh show dev br0 nud all")?.contains(address));
                netlink
                    .flush_neighbour(bridge.index, address.parse()?)
                    .await?;
                netlink
                    .flush_neighbour(bridge.index, address.parse()?)
                    .await?;
                let left = ip("neigh show dev br0 nud permanent nud reachable")?;
                assert!(!left.contains(address), "{left}");
            }
            Ok(())
        });
    }

    #[test]
    fn a_permanent_neighbour_can_be_replaced_listed_and_deleted() {
        testing::netlink(async |netlink| {
            netlink.create_bridge("br0", Mac::random(), None).await?;
            netlink.create_bridge("br1", Mac::random(), None).await?;
            let index = netlink.link("br0").await?.context("br0")?.index;
            let other = netlink.link("br1").await?.context("br1")?.index;
            // A neighbour that the kernel learned is not among them.
            ip("neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 dev br0 nud reachable")?;
            for address in ["192.168.1.12", "fd01::12", "fe80::12"] {
                let address = address.parse()?;
                for mac in [Mac::random(), Mac::random()] {
                    let neighbour = Neighbour { ip: address, mac };
                    netlink.replace_neighbour(index, neighbour).await?;
                    assert_eq!(netlink.neighbours(index).await?, [neighbour]);
                    assert_eq!(netlink.neighbours(other).await?, []);
                }
                netlink.flush_neighbour(index, address).await?;
                assert_eq!(netlink.neighbours(index).await?, []);
            }
            assert_eq!(netlink.neighbours(4711).await?, []);
            Ok(())
        });
    }
}
