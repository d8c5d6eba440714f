//! Creation of bridges and veth pairs, in as few messages as the kernel allows.

use std::{
    fmt,
    os::fd::{AsRawFd, BorrowedFd},
};

use anyhow::{Context, Error, Result};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind,
        InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
    },
};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{PortFlags, PortVlans, reported};
use crate::net::{Netlink, mac::Mac};

/// A veth pair between a bridge and a container.
#[derive(Clone, Copy, Debug)]
pub struct VethSpec<'a> {
    /// Name of the end that becomes the bridge's port.
    pub host_name: &'a str,
    /// Ethernet address of that end.
    pub host_mac: Mac,
    /// Name of the other end, in the container.
    pub container_name: &'a str,
    /// Ethernet address of the container's end.
    pub container_mac: Mac,
    /// The container's network namespace.
    pub netns: BorrowedFd<'a>,
    /// Index of the bridge.
    pub controller: u32,
    /// MTU of both ends; the kernel's default if none.
    pub mtu: Option<u32>,
    /// How the host's end behaves as a port.
    pub port: PortFlags,
    /// The VLANs of the host's end; the bridge's default if none.
    pub vlans: Option<&'a PortVlans>,
}

/// A link could not be created as its name is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlreadyExists {
    /// The name that is taken.
    pub name: String,
    /// Whether it is taken in the container rather than on the host.
    pub in_container: bool,
}

impl Netlink {
    /// Creates a bridge that is up; returns false, and changes nothing, if the name is taken.
    ///
    /// The MAC is given with the creation, as a bridge without one takes those of its ports in turn.
    pub async fn create_bridge(&self, name: &str, mac: Mac, mtu: Option<u32>) -> Result<bool> {
        self.create_bridge_with(name, mac, mtu, Vec::new()).await
    }

    pub(super) async fn create_bridge_with(
        &self,
        name: &str,
        mac: Mac,
        mtu: Option<u32>,
        data: Vec<InfoBridge>,
    ) -> Result<bool> {
        let builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge)
            .set_info_data(InfoData::Bridge(data));
        let message = described(builder, name, mac, mtu);
        let created = self.request(
            RouteNetlinkMessage::NewLink(message.up().build()),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        match created.await {
            Ok(_) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("bridge {name:?}: create")),
        }
    }

    /// Creates a veth pair, the host's end up and in its bridge, the container's end down in its namespace.
    ///
    /// Returns the index of the host's end. A taken name is an [`AlreadyExists`].
    pub async fn create_veth(&self, spec: &VethSpec<'_>) -> Result<u32> {
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
        let replies = match self
            .request(RouteNetlinkMessage::NewLink(spec.message()), flags)
            .await
        {
            Ok(replies) => replies,
            Err(errno) => return Err(self.explain(errno, spec).await),
        };
        let index = match replies.into_iter().find_map(reported) {
            Some(link) => link.index,
            // Before Linux 6.2 the kernel does not echo what it created.
            None => {
                self.link(spec.host_name)
                    .await?
                    .with_context(|| format!("link {:?}: gone", spec.host_name))?
                    .index
            }
        };
        if let Err(error) = self.settle_port(index, spec).await {
            // The pair is of no use, but that it could not be deleted either would hide why.
            let _ = self.delete(index).await;
            return Err(error);
        }
        Ok(index)
    }

    /// Configures what the kernel refuses (address generation) or ignores (port flags, VLANs) in the message that
    /// creates a link, while the port has no carrier yet.
    ///
    /// A bridge's port needs no IPv6 address of its own; without one it sends the pod no ND or MLD packets.
    async fn settle_port(&self, index: u32, spec: &VethSpec<'_>) -> Result<()> {
        let port = spec.port;
        if let Some(vlans) = spec.vlans {
            self.set_port_vlans(index, vlans).await?;
        }
        let mut message = LinkUnspec::new_with_index(index).build();
        message.attributes.extend(port_info(port));
        message.attributes.push(without_ipv6_address());
        match self.request(RouteNetlinkMessage::NewLink(message), 0).await {
            Ok(_) => Ok(()),
            // No IPv6 in this kernel, or none at this MTU: there is nothing to silence.
            Err(Errno::EAFNOSUPPORT) => self.set_port(index, port).await,
            Err(errno) => Err(errno)
                .with_context(|| format!("link {index}: set {port:?} and no ipv6 address")),
        }
    }

    async fn explain(&self, errno: Errno, spec: &VethSpec<'_>) -> Error {
        let error = Error::new(errno);
        let host = format!("veth {:?}: create", spec.host_name);
        match errno {
            Errno::EEXIST => match self.link(spec.host_name).await {
                Ok(Some(_)) => error.context(AlreadyExists::new(spec.host_name, false)),
                Ok(None) => error.context(AlreadyExists::new(spec.container_name, true)),
                Err(_) => error.context(host),
            },
            // Linux has 1,024 (`BR_MAX_PORTS`), and keeps the first for itself.
            Errno::EXFULL => {
                let name = match self.link_at(spec.controller).await {
                    Ok(Some(bridge)) => format!("{:?}", bridge.name),
                    _ => spec.controller.to_string(),
                };
                error.context(format!(
                    "bridge {name}: all 1023 ports of a Linux bridge are taken"
                ))
            }
            _ => error.context(host),
        }
    }
}

impl VethSpec<'_> {
    fn message(&self) -> LinkMessage {
        let builder = LinkMessageBuilder::<LinkUnspec>::new;
        let peer = described(builder(), self.container_name, self.container_mac, self.mtu)
            .setns_by_fd(self.netns.as_raw_fd())
            .build();
        described(
            LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth),
            self.host_name,
            self.host_mac,
            self.mtu,
        )
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .controller(self.controller)
        .up()
        .build()
    }
}

/// Adds what every new link is given.
pub(super) fn described(
    builder: LinkMessageBuilder<LinkUnspec>,
    name: &str,
    mac: Mac,
    mtu: Option<u32>,
) -> LinkMessageBuilder<LinkUnspec> {
    let builder = builder.name(name).address(mac.0.to_vec());
    match mtu {
        Some(mtu) => builder.mtu(mtu),
        None => builder,
    }
}

/// The attribute that keeps a link from giving itself an IPv6 address.
pub(super) fn without_ipv6_address() -> LinkAttribute {
    let silent = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![silent])])
}

/// The attribute that sets a port's flags, if any is to be set.
pub(super) fn port_info(flags: PortFlags) -> Option<LinkAttribute> {
    let wanted = [
        flags.hairpin.then_some(InfoBridgePort::HairpinMode(true)),
        flags.isolated.then_some(InfoBridgePort::Isolated(true)),
    ];
    let wanted: Vec<_> = wanted.into_iter().flatten().collect();
    (!wanted.is_empty()).then(|| {
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(wanted)),
        ])
    })
}

impl AlreadyExists {
    fn new(name: &str, in_container: bool) -> Self {
        Self {
            name: name.to_owned(),
            in_container,
        }
    }
}

impl fmt::Display for AlreadyExists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.in_container {
            " in the container"
        } else {
            ""
        };
        write!(f, "interface {:?}: already exists{place}", self.name)
    }
}

impl std::error::Error for AlreadyExists {}
