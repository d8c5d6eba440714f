//! VLANs of a bridge: bridges that filter by them, and what a port is a member of.

use std::{fmt, ops::RangeInclusive};

use anyhow::{Context, Error, Result};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags as Flags, InfoBridge,
        LinkAttribute, LinkMessage,
    },
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::net::{Netlink, mac::Mac};

/// Every VLAN that there can be.
const ALL: RangeInclusive<u16> = 1..=4094;

/// What a port of a bridge is a member of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortVlans {
    /// The VLAN of frames without a tag, both ways; none leaves that to the bridge.
    pub native: Option<u16>,
    /// VLANs whose frames have tags, ascending and apart.
    pub tagged: Vec<RangeInclusive<u16>>,
    /// Whether the port stays in the VLAN that the bridge has put it into, which usually is 1.
    pub keep_default: bool,
}

/// The kernel was built without VLAN filtering of bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVlanFiltering;

impl Netlink {
    /// Creates a bridge that is up and filters by VLAN; returns false, and changes nothing, if the name is taken.
    ///
    /// # Errors
    ///
    /// [`NoVlanFiltering`], where the kernel cannot.
    pub async fn create_vlan_bridge(&self, name: &str, mac: Mac, mtu: Option<u32>) -> Result<bool> {
        let filtering = vec![InfoBridge::VlanFiltering(true)];
        let created = self.create_bridge_with(name, mac, mtu, filtering).await;
        created.map_err(explained)
    }

    /// Makes a port that has just joined its bridge a member of VLANs.
    ///
    /// # Errors
    ///
    /// [`NoVlanFiltering`], where the kernel cannot.
    pub async fn set_port_vlans(&self, index: u32, vlans: &PortVlans) -> Result<()> {
        let context = || format!("link {index}: set {vlans}");
        if let Some(message) = vlans.leave(index) {
            let left = self.request(RouteNetlinkMessage::DelLink(message), 0).await;
            left.with_context(context).map_err(explained)?;
        }
        if let Some(message) = vlans.join(index) {
            let joined = self.request(RouteNetlinkMessage::SetLink(message), 0).await;
            joined.with_context(context).map_err(explained)?;
        }
        Ok(())
    }
}

impl PortVlans {
    fn is_empty(&self) -> bool {
        self.native.is_none() && self.tagged.is_empty()
    }

    /// Has the port leave what the bridge put it into. The kernel passes over VLANs that the port is not in, so that it
    /// need not be asked which that is.
    fn leave(&self, index: u32) -> Option<LinkMessage> {
        let leaves = !self.keep_default && !self.is_empty();
        leaves.then(|| message(index, members(&ALL, Flags::empty())))
    }

    fn join(&self, index: u32) -> Option<LinkMessage> {
        let native = self
            .native
            .iter()
            .flat_map(|id| members(&(*id..=*id), Flags::Pvid | Flags::Untagged));
        let tagged = self
            .tagged
            .iter()
            .flat_map(|ids| members(ids, Flags::empty()));
        (!self.is_empty()).then(|| message(index, native.chain(tagged)))
    }
}

/// One VLAN as one entry, more as the two ends of their range.
fn members(
    ids: &RangeInclusive<u16>,
    flags: Flags,
) -> impl Iterator<Item = BridgeVlanInfo> + use<> {
    let entry = |vid, end| BridgeVlanInfo {
        flags: flags | end,
        vid,
    };
    let (first, last) = (*ids.start(), *ids.end());
    let entries = if first == last {
        [Some(entry(first, Flags::empty())), None]
    } else {
        [(first, Flags::RangeBegin), (last, Flags::RangeEnd)]
            .map(|(vid, end)| Some(entry(vid, end)))
    };
    entries.into_iter().flatten()
}

fn message(index: u32, entries: impl IntoIterator<Item = BridgeVlanInfo>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    // To the bridge, not to the port's own driver.
    let mut parts = vec![AfSpecBridge::Flags(BridgeFlag::Controller)];
    parts.extend(entries.into_iter().map(AfSpecBridge::VlanInfo));
    message.attributes.push(LinkAttribute::AfSpecBridge(parts));
    message
}

fn explained(error: Error) -> Error {
    match error.downcast_ref() {
        Some(Errno::EOPNOTSUPP) => error.context(NoVlanFiltering),
        _ => error,
    }
}

impl fmt::Display for PortVlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let native = self.native.iter().map(|id| format!("VLAN {id} untagged"));
        let tagged = self
            .tagged
            .iter()
            .map(|ids| match (ids.start(), ids.end()) {
                (first, last) if first == last => format!("VLAN {first} tagged"),
                (first, last) => format!("VLANs {first} to {last} tagged"),
            });
        let all: Vec<_> = native.chain(tagged).collect();
        f.write_str(if all.is_empty() { "no VLANs" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

impl fmt::Display for NoVlanFiltering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this kernel's bridges cannot filter by VLAN (CONFIG_BRIDGE_VLAN_FILTERING)")
    }
}

impl std::error::Error for NoVlanFiltering {}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;

    use super::*;

    /// What follows the interface's index, flags and mask in a message.
    fn attributes(message: &LinkMessage) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let (header, attributes) = bytes.split_at(16);
        let index = 4711_u32.to_ne_bytes();
        // AF_BRIDGE
        let expected = [&[7, 0, 0, 0][..], &index, &[0; 8]].concat();
        assert_eq!(header, expected);
        attributes.to_vec()
    }

    fn vlans(native: Option<u16>, tagged: &[RangeInclusive<u16>]) -> PortVlans {
        PortVlans {
            native,
            tagged: tagged.to_vec(),
            keep_default: false,
        }
    }

    /// `IFLA_AF_SPEC` with `IFLA_BRIDGE_FLAGS` (to the bridge), and an `IFLA_BRIDGE_VLAN_INFO` for each flags and VLAN.
    fn af_spec(entries: &[(u16, u16)]) -> Vec<u8> {
        let words = |words: &[u16]| {
            words
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect::<Vec<u8>>()
        };
        let length = 4 + 8 + 8 * entries.len() as u16;
        let mut bytes = words(&[length, 26, 6, 0, 1, 0]);
        for (flags, vlan) in entries {
            bytes.extend(words(&[8, 2, *flags, *vlan]));
        }
        bytes
    }

    /// The bytes are those that iproute2's `bridge vlan add dev … vid 100 pvid untagged master` sends.
    #[test]
    fn an_access_port_joins_its_vlan_without_tags() {
        let joins = vlans(Some(100), &[]).join(4711).unwrap();
        assert_eq!(attributes(&joins), af_spec(&[(0b110, 100)]));
    }

    /// Ranges as iproute2's `bridge vlan add dev … vid 200-210 master` sends them.
    #[test]
    fn a_trunk_joins_its_native_vlan_without_and_the_others_with_tags() {
        let trunk = vlans(Some(1), &[5..=5, 200..=210, 4094..=4094]);
        let expected = [
            (0b110, 1),
            (0, 5),
            (0b0_1000, 200),
            (0b1_0000, 210),
            (0, 4094),
        ];
        assert_eq!(attributes(&trunk.join(4711).unwrap()), af_spec(&expected));
    }

    /// The bytes are those that iproute2's `bridge vlan del dev … vid 1-4094 master` sends.
    #[test]
    fn a_port_leaves_whatever_vlan_the_bridge_gave_it_unless_that_is_to_stay() {
        let leaves = vlans(Some(100), &[]).leave(4711).unwrap();
        let all = [(0b0_1000, 1), (0b1_0000, 4094)];
        assert_eq!(attributes(&leaves), af_spec(&all));
        let stays = PortVlans {
            keep_default: true,
            ..vlans(Some(100), &[])
        };
        assert!(stays.leave(4711).is_none() && stays.join(4711).is_some());
    }

    #[test]
    fn without_vlans_nothing_is_asked_of_the_kernel() {
        let none = PortVlans::default();
        assert!(none.leave(4711).is_none() && none.join(4711).is_none());
    }

    #[test]
    fn vlans_are_told_for_people() {
        assert_eq!(vlans(None, &[]).to_string(), "no VLANs");
        let trunk = vlans(Some(1), &[5..=5, 200..=210]);
        let text = "VLAN 1 untagged, VLAN 5 tagged, VLANs 200 to 210 tagged";
        assert_eq!(trunk.to_string(), text);
    }
}
