//! VXLAN devices that learn from each packet's route or program where to send it.

use anyhow::{Context, Error, Result, bail};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVxlan, LinkMessage},
};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{
    Link,
    create::{described, without_ipv6_address},
};
use crate::net::{Netlink, mac::Mac};

/// A VXLAN device for many peers.
#[derive(Clone, Copy, Debug)]
pub struct VxlanSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its MTU, which leaves room for the outer headers.
    pub mtu: u32,
    /// The UDP port of it and its peers.
    pub port: u16,
}

/// How a VXLAN device works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vxlan {
    /// Its UDP port.
    pub port: u16,
    /// Whether each packet's route or program says where it goes, and in which network (`external`).
    pub collect_metadata: bool,
    /// Whether it learns from what it receives where addresses are.
    pub learning: bool,
    /// Whether it accepts IPv6 packets without a UDP checksum.
    pub zero_checksum_rx: bool,
}

impl Netlink {
    /// Creates a VXLAN device that is up and has no IPv6 address; returns it, and false if it was there already.
    ///
    /// One of that name that is anything else is an error, as is another device that has the port.
    pub async fn create_vxlan(&self, spec: &VxlanSpec<'_>) -> Result<(Link, bool)> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let created = self.request(RouteNetlinkMessage::NewLink(spec.message()), flags);
        let created = match created.await {
            Ok(_) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno).with_context(|| spec.failed("create")),
        };
        let settled = self.settle_named(spec).await;
        if settled.is_err()
            && created
            && let Ok(Some(link)) = self.link(spec.name).await
        {
            // That it could not be deleted either would hide why.
            let _ = self.delete(link.index).await;
        }
        Ok((settled?, created))
    }

    async fn settle_named(&self, spec: &VxlanSpec<'_>) -> Result<Link> {
        let Some(link) = self.link(spec.name).await? else {
            return Err(self.port_taken(spec, Errno::EEXIST).await);
        };
        let differences = spec.differences(&link);
        if !differences.is_empty() {
            bail!("link {:?}: {}", spec.name, differences.join(", "));
        }
        self.settle_vxlan(&link, spec).await?;
        let link = self.link(spec.name).await?;
        link.with_context(|| format!("link {:?}: gone as soon as created", spec.name))
    }

    /// Does what cannot be done in the message that creates it; again if it exists, as that may have been cut off.
    async fn settle_vxlan(&self, link: &Link, spec: &VxlanSpec<'_>) -> Result<()> {
        let mut silent = LinkUnspec::new_with_index(link.index).build();
        silent.attributes.push(without_ipv6_address());
        match self.request(RouteNetlinkMessage::NewLink(silent), 0).await {
            // No IPv6 in this kernel, or none at this MTU: there is nothing to silence.
            Ok(_) | Err(Errno::EAFNOSUPPORT) => {}
            Err(errno) => return Err(errno).with_context(|| spec.failed("set no ipv6 address")),
        }
        let up = LinkUnspec::new_with_index(link.index).up().build();
        match self.request(RouteNetlinkMessage::SetLink(up), 0).await {
            Ok(_) => Ok(()),
            Err(Errno::EADDRINUSE) => Err(self.port_taken(spec, Errno::EADDRINUSE).await),
            Err(errno) => Err(errno).with_context(|| spec.failed("set up")),
        }
    }

    /// Names who has the port, if it is another VXLAN device of the namespace.
    async fn port_taken(&self, spec: &VxlanSpec<'_>, errno: Errno) -> Error {
        let links = self.links().await.unwrap_or_default();
        let owner = links.into_iter().find(|link| {
            link.name != spec.name && link.vxlan.is_some_and(|vxlan| vxlan.port == spec.port)
        });
        let owner = owner.map_or_else(String::new, |link| format!(" by {:?}", link.name));
        let taken = format!("port {} is taken{owner}", spec.port);
        Error::new(errno).context(spec.failed(&taken))
    }
}

impl VxlanSpec<'_> {
    fn message(&self) -> LinkMessage {
        let info = vec![
            InfoVxlan::CollectMetadata(true),
            InfoVxlan::Port(self.port),
            InfoVxlan::Learning(false),
            // Routes and programs send without, as the frame inside has checksums of its own.
            InfoVxlan::UDPZeroCsumRX(true),
        ];
        described(
            LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Vxlan),
            self.name,
            self.mac,
            Some(self.mtu),
        )
        .set_info_data(InfoData::Vxlan(info))
        .build()
    }

    /// What a device would have to be or to have.
    fn differences(&self, link: &Link) -> Vec<String> {
        let Some(vxlan) = link.vxlan else {
            let kind = link.kind.as_deref().unwrap_or("device");
            return vec![format!("is a {kind}, not a vxlan")];
        };
        let mac = link
            .mac
            .map_or_else(|| "none".to_owned(), |mac| mac.to_string());
        let values = [
            ("port", vxlan.port.to_string(), self.port.to_string()),
            ("mac address", mac, self.mac.to_string()),
            ("mtu", link.mtu.to_string(), self.mtu.to_string()),
        ];
        let switches = [
            ("external", vxlan.collect_metadata, true),
            ("learning", vxlan.learning, false),
            ("udp6zerocsumrx", vxlan.zero_checksum_rx, true),
        ];
        let values = values
            .into_iter()
            .filter(|(_, is, wanted)| is != wanted)
            .map(|(what, is, wanted)| format!("has {what} {is}, not {wanted}"));
        let switches = switches
            .into_iter()
            .filter(|(_, is, wanted)| is != wanted)
            .map(|(what, is, _)| format!("has {what} {}", if is { "on" } else { "off" }));
        values.chain(switches).collect()
    }

    fn failed(&self, what: &str) -> String {
        format!("vxlan {:?}: {what}", self.name)
    }
}

impl From<Vec<InfoVxlan>> for Vxlan {
    fn from(attributes: Vec<InfoVxlan>) -> Self {
        let mut vxlan = Self::default();
        for attribute in attributes {
            match attribute {
                InfoVxlan::Port(port) => vxlan.port = port,
                InfoVxlan::CollectMetadata(on) => vxlan.collect_metadata = on,
                InfoVxlan::Learning(on) => vxlan.learning = on,
                InfoVxlan::UDPZeroCsumRX(on) => vxlan.zero_checksum_rx = on,
                _ => {}
            }
        }
        vxlan
    }
}

#[cfg(test)]
mod netns_tests {
    use super::*;
    use crate::net::{sysctl, testing};

    const SPEC: VxlanSpec<'_> = VxlanSpec {
        name: "overlay",
        mac: Mac([0x02, 0xbe, 192, 168, 1, 11]),
        mtu: 1450,
        port: 8472,
    };

    #[test]
    fn a_device_is_born_as_described_and_left_alone_the_second_time() {
        testing::netlink(async |netlink| {
            assert!(netlink.create_vxlan(&SPEC).await?.1);
            let link = netlink.link("overlay").await?.context("overlay")?;
            assert_eq!((link.mac, link.mtu, link.up), (Some(SPEC.mac), 1450, true));
            let vxlan = Vxlan {
                port: 8472,
                collect_metadata: true,
                learning: false,
                zero_checksum_rx: true,
            };
            assert_eq!(link.vxlan, Some(vxlan));
            assert_eq!(sysctl::get("net/ipv6/conf/overlay/addr_gen_mode")?, "1");
            assert_eq!(netlink.addresses(link.index).await?, []);
            assert!(!netlink.create_vxlan(&SPEC).await?.1);
            assert_eq!(netlink.link("overlay").await?, Some(link));
            Ok(())
        });
    }

    #[test]
    fn a_device_whose_creation_was_cut_off_is_finished() {
        testing::netlink(async |netlink| {
            let begun = RouteNetlinkMessage::NewLink(SPEC.message());
            netlink.request(begun, NLM_F_CREATE).await?;
            let link = netlink.link("overlay").await?.context("overlay")?;
            assert!(!link.up);
            assert!(!netlink.create_vxlan(&SPEC).await?.1);
            assert!(netlink.link_at(link.index).await?.context("overlay")?.up);
            assert_eq!(netlink.addresses(link.index).await?, []);
            Ok(())
        });
    }

    #[test]
    fn a_device_of_another_making_is_named_with_what_is_wrong() {
        testing::netlink(async |netlink| {
            let bridge = VxlanSpec {
                name: "br0",
                ..SPEC
            };
            netlink.create_bridge("br0", SPEC.mac, None).await?;
            let error = netlink.create_vxlan(&bridge).await.unwrap_err();
            assert_eq!(error.to_string(), "link \"br0\": is a bridge, not a vxlan");
            netlink.create_vxlan(&SPEC).await?;
            let other = VxlanSpec {
                mtu: 1430,
                port: 4789,
                ..SPEC
            };
            let error = netlink.create_vxlan(&other).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "link \"overlay\": has port 8472, not 4789, has mtu 1450, not 1430"
            );
            Ok(())
        });
    }

    #[test]
    fn a_port_that_another_device_has_is_named_with_it() {
        testing::netlink(async |netlink| {
            netlink.create_vxlan(&SPEC).await?;
            let second = VxlanSpec {
                name: "second",
                ..SPEC
            };
            let error = netlink.create_vxlan(&second).await.unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                "vxlan \"second\": port 8472 is taken by \"overlay\": EEXIST: File exists"
            );
            // A socket that is no device's is noticed later, when there is a device already.
            let _socket = std::net::UdpSocket::bind("0.0.0.0:4789")?;
            let third = VxlanSpec {
                name: "third",
                port: 4789,
                ..SPEC
            };
            let error = netlink.create_vxlan(&third).await.unwrap_err();
            assert_eq!(error.to_string(), "vxlan \"third\": port 4789 is taken");
            assert_eq!(netlink.link("third").await?, None);
            Ok(())
        });
    }
}
