use super::*;
use crate::testing::{Random, mutate, seeds};

const PACKETS: usize = 200_000;

/// What must hold of any packet, however broken.
#[test]
fn mutated_packets_pass_untouched_or_go_where_the_maps_say() {
    let maps = cluster();
    let seeds = seeds();
    let mut random = Random::new(0x5eed_0bee);
    let mut carried = 0;
    for _ in 0..PACKETS {
        let mut before = random.pick(&seeds).clone();
        mutate(&mut before, &mut random, 0);
        before.tagged = random.below(64) == 0;
        before.for_host = before.destination() == Some(UPLINK_MAC);

        let mut after = before.clone();
        let verdict = from_pod(&mut after, &maps, FEATURES, CLIENT.ifindex);
        check(&before, &after, verdict, Some(CLIENT.ifindex));
        carried += usize::from(!matches!(verdict, Verdict::Pass(_)));

        let mut after = before.clone();
        let verdict = from_uplink(&mut after, &maps);
        check(&before, &after, verdict, None);
        carried += usize::from(!matches!(verdict, Verdict::Pass(_)));
    }
    // Else the mutations prove little.
    assert!(carried > PACKETS / 10, "only {carried} were carried");
}

fn check(before: &Frame, after: &Frame, verdict: Verdict, sender: Option<u32>) {
    match verdict {
        Verdict::Pass(_) => {
            assert_eq!(after, before);
            return;
        }
        Verdict::Drop(_) => {
            assert!(sender.is_some(), "only what pods send is dropped");
            assert_eq!(after, before);
            return;
        }
        Verdict::ToOverlay { ifindex, node, vni } => {
            assert_eq!((ifindex, vni), (OVERLAY, VNI));
            assert_eq!(after.bytes[..12], [FAR_MAC.0, OVERLAY_MAC.0].concat());
            let far = [FAR.v4.into(), FAR.v6.into()].map(|node: core::net::IpAddr| node.into());
            assert!(far.contains(&node), "{node:?}");
        }
        Verdict::ToPod { ifindex } => {
            let pod = [CLIENT, SERVER, THIRD]
                .into_iter()
                .find(|pod| pod.ifindex == ifindex);
            let pod = pod.expect("a known pod");
            assert_ne!(Some(ifindex), sender, "{before:?}");
            assert_eq!(after.destination(), Some(pod.mac));
        }
        Verdict::ToPeer { ifindex, node } => {
            assert_eq!(ifindex, UPLINK);
            let known = [PEER, SUBPEER].iter().any(|peer| {
                node == Address::from_v4(peer.v4.octets())
                    || node == Address::from_v6(peer.v6.octets())
            });
            assert!(known, "{node:?}");
            assert_eq!(
                after.bytes[..IP],
                before.bytes[..IP],
                "the kernel writes the MACs"
            );
        }
    }
    assert_hop(before, after);
}

/// Asserts that nothing behind the Ethernet header changed, or just what a hop changes.
fn assert_hop(before: &Frame, after: &Frame) {
    assert_eq!(before.bytes.len(), after.bytes.len());
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
        let sums = [old, new].map(|ip| crate::testing::checksum(&[&ip[..20]]));
        assert_eq!(sums[0], sums[1], "right stays right, wrong stays wrong");
    }
}
