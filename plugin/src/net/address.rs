//! IP addresses of links.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};
use nix::errno::Errno;

use super::{Netlink, family};

/// How often [`Netlink::wait_for_dad`] looks.
const POLL: Duration = Duration::from_millis(20);

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address and the length of its prefix.
    pub network: IpNetwork,
    /// Whether duplicate address detection has not ended yet, so that the address cannot be used.
    pub tentative: bool,
    /// Whether another node was found to have the address.
    pub dad_failed: bool,
    /// Where the address is valid: 0 everywhere, 253 on the link, 254 on the host.
    pub scope: u8,
}

/// Whether IPv6 looks for duplicates before it uses an address; IPv4 never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dad {
    /// As the interface is configured; takes a second or more.
    On,
    /// Never; the address can be used at once.
    Off,
}

impl Netlink {
    /// Lists the IPv4 and IPv6 addresses of a link.
    pub async fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let mut query = AddressMessage::default();
        query.header.index = index;
        let replies = self
            .request(RouteNetlinkMessage::GetAddress(query), NLM_F_DUMP)
            .await;
        let replies = replies.with_context(|| format!("link {index}: list addresses"))?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| reported(reply, index))
            .collect())
    }

    /// Lists the addresses of all links: what is sent there, stays on this node.
    pub async fn own_addresses(&self) -> Result<Vec<IpAddr>> {
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let replies = self.request(query, NLM_F_DUMP).await;
        let replies = replies.context("addresses: list")?;
        let address = |reply| match reply {
            RouteNetlinkMessage::NewAddress(message) => read(message),
            _ => None,
        };
        Ok(replies
            .into_iter()
            .filter_map(address)
            .map(|address| address.network.ip())
            .collect())
    }

    /// Gives a link an address; that it has it already is success.
    pub async fn add_address(&self, index: u32, network: IpNetwork, dad: Dad) -> Result<()> {
        let mut message = described(index, network);
        if dad == Dad::Off && network.is_ipv6() {
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match self
            .request(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await
        {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => {
                Err(errno).with_context(|| format!("link {index}: add address {network}"))
            }
        }
    }

    /// Takes an address from a link; already gone is success.
    pub async fn delete_address(&self, index: u32, network: IpNetwork) -> Result<()> {
        let message = described(index, network);
        match self
            .request(RouteNetlinkMessage::DelAddress(message), 0)
            .await
        {
            // IPv6 reports a link without IPv6 as ENXIO.
            Ok(_) | Err(Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::ENXIO) => Ok(()),
            Err(errno) => {
                Err(errno).with_context(|| format!("link {index}: delete address {network}"))
            }
        }
    }

    /// Waits until duplicate address detection has ended for what a link was given.
    ///
    /// A link-local address is not waited for: nothing here uses it, and it is tentative for longer.
    pub async fn wait_for_dad(&self, index: u32, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let addresses = self.addresses(index).await?;
            let mut given = addresses
                .iter()
                .filter(|address| address.scope != u8::from(AddressScope::Link));
            if let Some(duplicate) = given.clone().find(|address| address.dad_failed) {
                bail!(
                    "address {}: another node on the link has it",
                    duplicate.network
                );
            }
            let Some(tentative) = given.find(|address| address.tentative) else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                bail!(
                    "address {}: still tentative after {timeout:?}",
                    tentative.network
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn described(index: u32, network: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(network.ip());
    message.header.prefix_len = network.prefix();
    // IPv4 takes its own address from IFA_LOCAL, IPv6 from either.
    message.attributes = vec![
        AddressAttribute::Local(network.ip()),
        AddressAttribute::Address(network.ip()),
    ];
    // What programs are told when they ask for it; the kernel's own routes do not depend on it.
    if let IpNetwork::V4(network) = network
        && network.prefix() < 31
    {
        let broadcast = AddressAttribute::Broadcast(network.broadcast());
        message.attributes.push(broadcast);
    }
    message
}

fn reported(reply: RouteNetlinkMessage, index: u32) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = reply else {
        return None;
    };
    // Kernels without strict checking list every link.
    if message.header.index != index {
        return None;
    }
    read(message)
}

pub(crate) fn read(message: AddressMessage) -> Option<Address> {
    let (mut local, mut address): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => address = Some(ip),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    Some(Address {
        network: IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()?,
        tentative: flags.contains(AddressFlags::Tentative),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
        scope: message.header.scope.into(),
    })
}

#[cfg(test)]
mod netns_tests {
    use super::*;
    use crate::net::{mac::Mac, sysctl, testing};

    async fn bridge(netlink: &Netlink, name: &str) -> Result<u32> {
        netlink.create_bridge(name, Mac::random(), None).await?;
        let index = netlink.link(name).await?.context("bridge")?.index;
        sysctl::ensure(&format!("net/ipv6/conf/{name}/addr_gen_mode"), "1")?;
        Ok(index)
    }

    #[test]
    fn an_address_can_be_added_and_deleted_twice() {
        testing::netlink(async |netlink| {
            let index = bridge(netlink, "br0").await?;
            let other = bridge(netlink, "br1").await?;
            netlink
                .add_address(other, "10.9.0.1/24".parse()?, Dad::Off)
                .await?;
            for network in ["10.1.2.3/24", "10.1.2.4/32", "fd00:1::3/64"] {
                let network: IpNetwork = network.parse()?;
                netlink.add_address(index, network, Dad::Off).await?;
                netlink.add_address(index, network, Dad::Off).await?;
                let added = Address {
                    network,
                    tentative: false,
                    dad_failed: false,
                    scope: 0,
                };
                assert_eq!(netlink.addresses(index).await?, [added]);
                netlink.delete_address(index, network).await?;
                netlink.delete_address(index, network).await?;
                assert_eq!(netlink.addresses(index).await?, []);
            }
            Ok(())
        });
    }

    #[test]
    fn programs_are_told_the_broadcast_address_of_a_network_that_has_one() {
        testing::netlink(async |netlink| {
            let index = bridge(netlink, "br0").await?;
            for (network, broadcast) in [
                ("10.1.2.3/23", Some("10.1.3.255")),
                ("10.2.0.0/31", None),
                ("10.3.0.1/32", None),
            ] {
                let network: IpNetwork = network.parse()?;
                netlink.add_address(index, network, Dad::Off).await?;
                let mut query = AddressMessage::default();
                query.header.index = index;
                query.header.family = family(network.ip());
                let replies = netlink.request(RouteNetlinkMessage::GetAddress(query), NLM_F_DUMP);
                let held = replies.await?.into_iter().find_map(|reply| match reply {
                    RouteNetlinkMessage::NewAddress(message) => Some(
                        message
                            .attributes
                            .into_iter()
                            .find_map(|attribute| match attribute {
                                AddressAttribute::Broadcast(ip) => Some(ip.to_string()),
                                _ => None,
                            }),
                    ),
                    _ => None,
                });
                assert_eq!(held.flatten().as_deref(), broadcast, "{network}");
                netlink.delete_address(index, network).await?;
            }
            Ok(())
        });
    }

    #[test]
    fn the_addresses_of_a_link_that_is_gone_cannot_be_listed_but_deleted() {
        testing::netlink(async |netlink| {
            let error = netlink.addresses(99).await.unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                "link 99: list addresses: ENODEV: No such device"
            );
            netlink.delete_address(99, "10.1.2.3/24".parse()?).await?;
            netlink.delete_address(99, "fd00::3/64".parse()?).await
        });
    }

    #[test]
    fn waiting_ends_with_duplicate_address_detection() {
        testing::netlink(async |netlink| {
            // Without a port the bridge has no carrier, and so its address stays tentative.
            let index = bridge(netlink, "br0").await?;
            netlink
                .add_address(index, "fd00::1/64".parse()?, Dad::On)
                .await?;
            let error = netlink
                .wait_for_dad(index, Duration::from_millis(50))
                .await
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                "address fd00::1/64: still tentative after 50ms"
            );
            netlink.delete_address(index, "fd00::1/64".parse()?).await?;
            netlink
                .add_address(index, "fd00::1/64".parse()?, Dad::Off)
                .await?;
            netlink.wait_for_dad(index, Duration::ZERO).await
        });
    }
}
