//! What must hold of any packet, however broken, and whatever came by before it.

use core::net::IpAddr;
use std::collections::HashMap;

use super::{
    CLIENT, FAR, FAR_MAC, FEATURES, Frame, HostMaps, OVERLAY, OVERLAY_MAC, PEER, SERVER, SUBPEER,
    THIRD, UPLINK, VNI, checksum, checksums_hold, judge,
};
use crate::{
    Address, Drop, Ethernet, Features, Flow, Hook, Pass, Segment, Table, Verdict,
    ip::{self, ETHERNET as IP},
};

/// Judges a packet of the cluster, and holds against the maps what becomes of it.
///
/// # Panics
///
/// If a rule is broken.
pub fn check(hook: Hook, before: &Frame, maps: &HostMaps, features: Features) -> Verdict {
    let known = maps.flows.borrow().clone();
    let mut after = before.clone();
    let verdict = judge(hook, &mut after, maps, features);
    match verdict {
        Verdict::Pass(Pass::Redirected) => {
            assert_eq!(hook, Hook::ToUplink);
            let mut unmarked = before.clone();
            unmarked.redirected = false;
            assert_eq!(after, unmarked);
        }
        Verdict::Pass(_) => assert_eq!(&after, before),
        Verdict::Drop(reason) => {
            assert_eq!(&after, before);
            match hook {
                Hook::FromPod => assert_drops_what_passes_else(before, maps),
                Hook::FromOverlay => assert_eq!(reason, Drop::ForeignVni),
                _ => panic!("{hook:?} drops"),
            }
        }
        _ => {
            assert_goes_where_the_maps_say(hook, before, &after, verdict);
            assert_hop(before, &after);
            assert_is_no_flow_of(&known, before);
        }
    }
    verdict
}

fn assert_drops_what_passes_else(before: &Frame, maps: &HostMaps) {
    let lenient = Features {
        anti_spoof: false,
        ..FEATURES
    };
    let verdict = judge(Hook::FromPod, &mut before.clone(), maps, lenient);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
}

fn assert_goes_where_the_maps_say(hook: Hook, before: &Frame, after: &Frame, verdict: Verdict) {
    match verdict {
        Verdict::ToOverlay { ifindex, node, vni } => {
            assert_eq!((hook, ifindex, vni), (Hook::FromPod, OVERLAY, VNI));
            assert_eq!(after.bytes[..12], [FAR_MAC.0, OVERLAY_MAC.0].concat());
            let far = [FAR.v4.into(), FAR.v6.into()].map(|node: IpAddr| node.into());
            assert!(far.contains(&node), "{node:?}");
        }
        Verdict::ToPod { ifindex } => {
            let pod = [CLIENT, SERVER, THIRD]
                .into_iter()
                .find(|pod| pod.ifindex == ifindex);
            let pod = pod.expect("a known pod");
            assert!(hook != Hook::FromPod || ifindex != CLIENT.ifindex);
            assert_eq!(after.destination(), Some(pod.mac));
        }
        Verdict::ToPeer { ifindex, node } => {
            assert_eq!((hook, ifindex), (Hook::FromPod, UPLINK));
            let known = [PEER, SUBPEER].iter().any(|peer| {
                node == Address::from_v4(peer.v4.octets())
                    || node == Address::from_v6(peer.v6.octets())
            });
            assert!(known, "{node:?}");
            let macs = [&after.bytes[..IP], &before.bytes[..IP]];
            assert_eq!(macs[0], macs[1], "the kernel writes the MACs");
        }
        Verdict::Pass(_) | Verdict::Drop(_) => unreachable!("goes nowhere"),
    }
}

/// Asserts that the packet that goes fast belonged to none of these flows.
fn assert_is_no_flow_of(known: &HashMap<(Table, Flow), u32>, packet: &Frame) {
    let ethernet = Ethernet::load(packet).unwrap();
    let header = ip::Header::parse(packet, ethernet.kind).unwrap();
    let (flow, tables) = if header.error {
        let quoted = header.quoted(packet).unwrap();
        assert_eq!(quoted.source, header.destination);
        (quoted.segment.flow, &[Table::Flows, Table::Conns][..])
    } else {
        let segment = header.segment(packet).unwrap();
        let tables = match (segment.is_tcp(), segment.has(Segment::SYN | Segment::RST)) {
            (true, false) => &[Table::Conns][..],
            (true, true) => &[Table::Flows, Table::Conns],
            _ => &[Table::Flows],
        };
        (segment.flow, tables)
    };
    for &table in tables {
        assert!(
            !known.contains_key(&(table, flow)),
            "{table:?}: {packet:02x?}"
        );
    }
}

/// Asserts that nothing behind the Ethernet header changed, or just what a hop changes.
fn assert_hop(before: &Frame, after: &Frame) {
    assert_eq!(before.bytes.len(), after.bytes.len());
    assert_eq!(checksums_hold(&before.bytes), checksums_hold(&after.bytes));
    let (old, new) = (&before.bytes[IP..], &after.bytes[IP..]);
    if old == new {
        return;
    }
    let (hop_limit, changed) = match old[0] >> 4 {
        4 => (8, 8..12),
        _ => (7, 7..8),
    };
    assert_eq!(new[hop_limit], old[hop_limit] - 1);
    assert_eq!(new[..changed.start], old[..changed.start]);
    assert_eq!(new[changed.end..], old[changed.end..]);
    if hop_limit == 8 {
        assert_eq!(new[9], old[9], "the protocol");
        let sums = [old, new].map(|ip| checksum(&[&ip[..20]]));
        assert_eq!(sums[0], sums[1], "right stays right, wrong stays wrong");
    }
}
