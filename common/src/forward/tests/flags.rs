//! Pods that are slow or isolated.

use super::*;

fn flagged(pods: &[Attached], flag: u32) -> HostMaps {
    let mut maps = cluster();
    for pod in pods {
        maps.flag_pod(pod.ifindex, flag);
    }
    maps
}

#[test]
fn what_slow_pods_send_and_receive_on_their_node_passes() {
    for slow in [&[CLIENT][..], &[SERVER], &[CLIENT, SERVER]] {
        let maps = flagged(slow, Pod::SLOW);
        for packet in local(&CLIENT, &SERVER) {
            for mac in [SERVER.mac, GATEWAY] {
                let frame = packet.clone().macs(CLIENT.mac, mac).frame();
                assert_eq!(sent_with(&maps, &frame).0, Verdict::Pass(Pass::SlowPod));
            }
        }
        for packet in local(&CLIENT, &THIRD) {
            let fast = sent_with(&maps, &packet.frame()).0 == to_pod(&THIRD);
            assert_eq!(fast, !slow.iter().any(|pod| pod.ifindex == CLIENT.ifindex));
        }
    }
}

#[test]
fn what_slow_pods_send_to_and_receive_from_peers_passes() {
    let maps = flagged(&[CLIENT], Pod::SLOW);
    for packet in [outgoing(&CLIENT, &PEER), outgoing(&CLIENT, &FAR)].concat() {
        let verdict = sent_with(&maps, &packet.frame()).0;
        assert_eq!(verdict, Verdict::Pass(Pass::SlowPod));
    }
    for packet in [incoming(&PEER, &CLIENT), incoming(&FAR, &CLIENT)].concat() {
        let verdict = received_with(&maps, &packet.frame()).0;
        assert_eq!(verdict, Verdict::Pass(Pass::SlowPod));
    }
    for packet in incoming(&PEER, &SERVER) {
        assert_eq!(received_with(&maps, &packet.frame()).0, to_pod(&SERVER));
    }
}

#[test]
fn two_isolated_pods_do_not_meet_on_the_fast_path() {
    let maps = flagged(&[CLIENT, SERVER], Pod::ISOLATED);
    for packet in local(&CLIENT, &SERVER) {
        for mac in [SERVER.mac, GATEWAY] {
            let frame = packet.clone().macs(CLIENT.mac, mac).frame();
            assert_eq!(sent_with(&maps, &frame).0, Verdict::Pass(Pass::Isolated));
        }
    }
}

#[test]
fn an_isolated_pod_meets_all_others() {
    for isolated in [CLIENT, SERVER] {
        let maps = flagged(&[isolated], Pod::ISOLATED);
        for packet in local(&CLIENT, &SERVER) {
            assert_eq!(sent_with(&maps, &packet.frame()).0, to_pod(&SERVER));
        }
    }
    let maps = flagged(&[CLIENT, SERVER], Pod::ISOLATED);
    for (packet, expected) in outgoing(&CLIENT, &PEER).into_iter().zip(to_peer(&PEER)) {
        assert_eq!(sent_with(&maps, &packet.frame()).0, expected);
    }
    for packet in incoming(&PEER, &CLIENT) {
        assert_eq!(received_with(&maps, &packet.frame()).0, to_pod(&CLIENT));
    }
}

#[test]
fn flags_that_nobody_knows_yet_mean_nothing() {
    let maps = flagged(&[CLIENT, SERVER], !(Pod::SLOW | Pod::ISOLATED));
    for packet in local(&CLIENT, &SERVER) {
        assert_eq!(sent_with(&maps, &packet.frame()).0, to_pod(&SERVER));
    }
}
