//! Flows that the stack carries, and what is remembered of them.

use beeline_common::{
    Hook, Outcome, Pass, Pod, Segment,
    testing::{
        Attached, Builder, CLIENT, FAR, GATEWAY, PEER, SERVER, Transport, UPLINK_MAC, cluster,
        packet,
    },
};

use crate::lab::lab;

const STACK: Outcome = Outcome::Passed(Pass::StackFlow);

/// A packet of each family that the stack delivers or sends, and its hook; the answer, and what becomes of it if the
/// stack did not; errors about the packet take the answer's way.
fn exchanges() -> Vec<(Hook, Builder, Hook, Builder, Outcome)> {
    use Hook::{FromPod, FromUplink, ToPod, ToUplink};
    let mut all = Vec::new();
    let mut add = |note, there: [Builder; 2], hook, back: [Builder; 2], fast| {
        for (there, back) in there.into_iter().zip(back) {
            all.push((note, there, hook, back.ports(80, 40_000), fast));
        }
    };
    let local = |from: &Attached, to: &Attached| {
        [packet(from.v4, to.v4), packet(from.v6, to.v6)].map(|it| it.macs(from.mac, to.mac))
    };
    add(
        ToPod,
        local(&SERVER, &CLIENT),
        FromPod,
        local(&CLIENT, &SERVER),
        Outcome::ToPod,
    );
    for (peer, fast) in [(PEER, Outcome::ToPeer), (FAR, Outcome::ToOverlay)] {
        let out = [
            packet(CLIENT.v4, peer.pod_v4),
            packet(CLIENT.v6, peer.pod_v6),
        ]
        .map(|it| it.macs(CLIENT.mac, GATEWAY));
        let back = [
            packet(peer.pod_v4, CLIENT.v4),
            packet(peer.pod_v6, CLIENT.v6),
        ]
        .map(|it| it.macs(GATEWAY, UPLINK_MAC));
        add(ToPod, back.clone(), FromPod, out.clone(), fast);
        add(ToUplink, out, FromUplink, back, Outcome::ToPod);
    }
    all
}

#[test]
fn answers_to_the_stack_pass_and_others_are_redirected() {
    lab(|lab| {
        for (note, there, hook, back, fast) in exchanges() {
            for transport in [Transport::Udp, Transport::Sctp] {
                let there = there.clone().transport(transport).frame();
                let answer = back.clone().transport(transport).frame();
                lab.assert_outcome(hook, &answer, fast);
                lab.assert_outcome(note, &there, STACK);
                lab.assert_outcome(hook, &answer, STACK);
                lab.forget_flows();
            }
        }
    });
}

#[test]
fn connections_stay_with_the_stack_until_they_are_closed() {
    const SYN: u8 = Segment::SYN;
    const ACK: u8 = Segment::ACK;
    const FIN_ACK: u8 = Segment::FIN | Segment::ACK;
    lab(|lab| {
        for (note, there, hook, back, fast) in exchanges() {
            let goes = |flags| (note, there.clone().flags(flags).frame());
            let comes = |flags| (hook, back.clone().flags(flags).frame());
            let last = there.clone().flags(ACK).sequence(2, 34).frame();
            for (hook, frame) in [
                goes(SYN),
                comes(SYN | ACK),
                comes(ACK),
                goes(ACK),
                goes(FIN_ACK),
                comes(FIN_ACK),
                // Sent again, and waited for.
                comes(FIN_ACK),
                goes(ACK),
                comes(ACK),
                (note, last),
            ] {
                lab.assert_outcome(hook, &frame, STACK);
            }
            let (hook, frame) = comes(ACK);
            lab.assert_outcome(hook, &frame, fast);
            lab.forget_flows();
        }
    });
}

#[test]
fn errors_go_the_way_of_the_flow_that_they_are_about() {
    lab(|lab| {
        for (note, there, hook, back, fast) in exchanges() {
            for transport in [Transport::Udp, Transport::Tcp { options: 0 }] {
                let there = there.clone().transport(transport).frame();
                let kinds: &[u8] = match there.bytes[12] {
                    0x08 => &[3, 11, 12],
                    _ => &[1, 2, 3, 4],
                };
                for &kind in kinds {
                    let error = back.clone().error(kind, &there).frame();
                    lab.assert_outcome(hook, &error, fast);
                    lab.assert_outcome(note, &there, STACK);
                    lab.assert_outcome(hook, &error, STACK);
                    lab.forget_flows();
                }
            }
        }
    });
}

#[test]
fn of_fragments_the_first_is_remembered() {
    lab(|lab| {
        for (note, there, hook, back, fast) in exchanges() {
            let fragment = |bits| {
                let fragment = there.clone().transport(Transport::Udp).fragment(bits);
                fragment.extension(44).frame()
            };
            let answer = back.clone().transport(Transport::Udp).frame();
            let passes = Outcome::Passed(Pass::Fragment);
            lab.assert_outcome(note, &fragment(0x2001), passes);
            lab.assert_outcome(note, &fragment(0x0001), passes);
            lab.assert_outcome(hook, &answer, fast);
            lab.assert_outcome(note, &fragment(0x2000), STACK);
            lab.assert_outcome(hook, &answer, STACK);
            lab.forget_flows();
        }
    });
}

#[test]
fn what_was_redirected_is_not_the_stacks_and_loses_its_mark() {
    lab(|lab| {
        for (note, there, hook, back, fast) in exchanges() {
            if note != Hook::ToUplink {
                continue;
            }
            let redirected = there.frame().redirected();
            lab.assert_outcome(note, &redirected, Outcome::Passed(Pass::Redirected));
            let output = lab.run(note, &redirected, false).unwrap();
            assert_eq!(output.context.mark, 0);
            lab.assert_outcome(hook, &back.frame(), fast);
        }
    });
}

#[test]
fn slow_and_isolated_pods_take_the_stack() {
    lab(|lab| {
        let between = |mac| {
            let packets = [packet(CLIENT.v4, SERVER.v4), packet(CLIENT.v6, SERVER.v6)];
            packets.map(|packet| packet.macs(CLIENT.mac, mac).frame())
        };
        for (pods, flag, reason) in [
            (&[CLIENT][..], Pod::SLOW, Pass::SlowPod),
            (&[SERVER], Pod::SLOW, Pass::SlowPod),
            (&[CLIENT, SERVER], Pod::ISOLATED, Pass::Isolated),
        ] {
            let mut maps = cluster();
            for pod in pods {
                maps.flag_pod(pod.ifindex, flag);
            }
            lab.fill(maps);
            for frame in [between(SERVER.mac), between(GATEWAY)].concat() {
                lab.assert_outcome(Hook::FromPod, &frame, Outcome::Passed(reason));
            }
        }
    });
}
