//! Links: what there is, and changes to it. [`create`] and [`vxlan`] make new ones.

use anyhow::{Context, Result};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet, AfSpecUnspec, InfoBridge, InfoBridgePort, InfoData, InfoPortData,
        LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, State,
    },
};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::{Netlink, mac::Mac};

pub mod create;
pub mod inside;
#[cfg(test)]
mod netns_tests;
pub(crate) mod traffic;
pub mod vlan;
pub mod vxlan;

pub use create::{AlreadyExists, VethSpec};
pub use traffic::{Amount, Traffic};
pub use vlan::{NoVlanFiltering, PortVlans};
pub use vxlan::{Vxlan, VxlanSpec};

/// A network interface as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its ifindex, unique in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one of six octets.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it can pass packets too: it has a carrier, and whoever is to know has been told (RFC 2863).
    pub operational: bool,
    /// What makes it, such as `bridge` or `veth`; none for loopback and hardware.
    pub kind: Option<String>,
    /// The ifindex of the bridge (or bond, or VRF) that it is a port of.
    pub controller: Option<u32>,
    /// The ifindex of a veth's other end, in that end's namespace, or of a VLAN's parent.
    pub peer_index: Option<u32>,
    /// What this namespace calls the one that a veth's other end is in; none if it is this one.
    pub peer_netns: Option<i32>,
    /// Whether it is set to be promiscuous.
    pub promiscuous: bool,
    /// How it behaves as a bridge port; none if it is not one.
    pub port: Option<PortFlags>,
    /// Whether it is a bridge that keeps VLANs apart.
    pub filters_vlans: bool,
    /// How it works as a VXLAN device; none if it is not one.
    pub vxlan: Option<Vxlan>,
    /// How it treats IPv4; none if the kernel does not say.
    pub ipv4: Option<Ipv4Conf>,
}

/// How a link treats IPv4: its own settings, beside those of all links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv4Conf {
    /// Whether what it receives is forwarded.
    pub forwarding: bool,
    /// `rp_filter`: 1 drops what another link leads back to, 2 what none does.
    pub rp_filter: i32,
}

/// How a bridge port behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFlags {
    /// Sends frames back out of the port they came from.
    pub hairpin: bool,
    /// Exchanges no frames with other isolated ports.
    pub isolated: bool,
}

impl Netlink {
    /// Finds a link by its name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        // Nor could the kernel be asked for one.
        if name.is_empty() || name.len() > 15 || name.contains('\0') {
            return Ok(None);
        }
        let query = LinkUnspec::new_with_name(name).build();
        self.find(query)
            .await
            .with_context(|| format!("link {name:?}: get"))
    }

    /// Finds a link by its index.
    pub async fn link_at(&self, index: u32) -> Result<Option<Link>> {
        // No link has it; the kernel takes it for a question without one.
        if index == 0 {
            return Ok(None);
        }
        let query = LinkUnspec::new_with_index(index).build();
        self.find(query)
            .await
            .with_context(|| format!("link {index}: get"))
    }

    /// Lists every link of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let query = without_statistics(LinkMessage::default());
        let replies = self
            .request(RouteNetlinkMessage::GetLink(query), NLM_F_DUMP)
            .await;
        Ok(replies
            .context("links: list")?
            .into_iter()
            .filter_map(reported)
            .collect())
    }

    /// Sets how a bridge port behaves; sends nothing if nothing is asked for.
    pub async fn set_port(&self, index: u32, flags: PortFlags) -> Result<()> {
        let Some(info) = create::port_info(flags) else {
            return Ok(());
        };
        let mut message = LinkUnspec::new_with_index(index).build();
        message.attributes.push(info);
        // RTM_SETLINK ignores port attributes.
        let changed = self.request(RouteNetlinkMessage::NewLink(message), 0).await;
        changed
            .map(drop)
            .with_context(|| format!("link {index}: set {flags:?}"))
    }

    /// Sets a link administratively up.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        self.change(
            index,
            "set up",
            LinkUnspec::new_with_index(index).up().build(),
        )
        .await
    }

    /// Sets a link administratively down.
    pub async fn set_down(&self, index: u32) -> Result<()> {
        self.change(
            index,
            "set down",
            LinkUnspec::new_with_index(index).down().build(),
        )
        .await
    }

    /// Makes a link promiscuous.
    pub async fn set_promiscuous(&self, index: u32) -> Result<()> {
        self.change(
            index,
            "set promiscuous",
            LinkUnspec::new_with_index(index).promiscuous(true).build(),
        )
        .await
    }

    /// Gives a link another Ethernet address.
    pub async fn set_mac(&self, index: u32, mac: Mac) -> Result<()> {
        let message = LinkUnspec::new_with_index(index)
            .address(mac.0.to_vec())
            .build();
        self.change(index, &format!("set mac address {mac}"), message)
            .await
    }

    /// Gives a link another MTU.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.change(
            index,
            &format!("set mtu {mtu}"),
            LinkUnspec::new_with_index(index).mtu(mtu).build(),
        )
        .await
    }

    /// Deletes a link, and with a veth its other end; already gone is success, as DEL may be repeated.
    pub async fn delete(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).build();
        match self.request(RouteNetlinkMessage::DelLink(message), 0).await {
            Ok(_) | Err(Errno::ENODEV) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("link {index}: delete")),
        }
    }

    async fn find(&self, query: LinkMessage) -> Result<Option<Link>, Errno> {
        match self
            .request(RouteNetlinkMessage::GetLink(without_statistics(query)), 0)
            .await
        {
            // An empty answer is a reply that could not be decoded, not a missing link.
            Ok(replies) => replies
                .into_iter()
                .find_map(reported)
                .map(Some)
                .ok_or(Errno::EBADMSG),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    async fn change(&self, index: u32, action: &str, message: LinkMessage) -> Result<()> {
        let changed = self.request(RouteNetlinkMessage::SetLink(message), 0).await;
        changed
            .map(drop)
            .with_context(|| format!("link {index}: {action}"))
    }
}

/// Spares the kernel counting packets over all CPUs, and the caller reading it.
fn without_statistics(mut query: LinkMessage) -> LinkMessage {
    query
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    query
}

/// The link in a kernel's answer, if it is one.
pub(crate) fn reported(reply: RouteNetlinkMessage) -> Option<Link> {
    match reply {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
        _ => None,
    }
}

fn ipv4(families: &[AfSpecUnspec]) -> Option<Ipv4Conf> {
    let mut settings = families.iter().filter_map(|family| match family {
        AfSpecUnspec::Inet(settings) => Some(settings),
        _ => None,
    });
    settings.next()?.iter().find_map(|setting| match setting {
        AfSpecInet::DevConf(conf) => Some(Ipv4Conf {
            forwarding: conf.forwarding != 0,
            rp_filter: conf.rp_filter,
        }),
        _ => None,
    })
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            promiscuous: message.header.flags.contains(LinkFlags::Promisc),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(octets) => link.mac = octets.try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.peer_index = Some(index),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(id),
                LinkAttribute::OperState(state) => link.operational = state == State::Up,
                LinkAttribute::LinkInfo(infos) => link.read(infos),
                LinkAttribute::AfSpecUnspec(families) => link.ipv4 = ipv4(&families),
                _ => {}
            }
        }
        link
    }
}

impl Link {
    fn read(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Bridge(attributes)) => {
                    self.filters_vlans = attributes.contains(&InfoBridge::VlanFiltering(true));
                }
                LinkInfo::Data(InfoData::Vxlan(attributes)) => {
                    self.vxlan = Some(attributes.into());
                }
                LinkInfo::PortData(InfoPortData::BridgePort(attributes)) => {
                    let mut flags = PortFlags::default();
                    for attribute in attributes {
                        match attribute {
                            InfoBridgePort::HairpinMode(on) => flags.hairpin = on,
                            InfoBridgePort::Isolated(on) => flags.isolated = on,
                            _ => {}
                        }
                    }
                    self.port = Some(flags);
                }
                _ => {}
            }
        }
    }
}
