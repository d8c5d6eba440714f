//! Neighbour entries (ARP and ND).

use std::net::IpAddr;

use anyhow::{Context, Result};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};
use nix::errno::Errno;

use super::{Netlink, family};

impl Netlink {
    /// Forgets what MAC an address has on a link; needed when the address is given to another pod.
    pub async fn flush_neighbour(&self, index: u32, ip: IpAddr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = index;
        message.attributes = vec![NeighbourAttribute::Destination(match ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        })];
        match self
            .request(RouteNetlinkMessage::DelNeighbour(message), 0)
            .await
        {
            // ENXIO: a link without IPv6, whose neighbours cannot be either.
            Ok(_) | Err(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("link {index}: flush neighbour {ip}")),
        }
    }
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
}
