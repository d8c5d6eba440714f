//! What must hold of any packet, however broken, and whatever came by before it.

use super::*;
use crate::{
    Hook,
    testing::{SCENARIO, Scenario, Tally, check, fuzz_packets, seeds},
};

/// How many packets come by, unless more are asked for.
const PACKETS: usize = 300_000;

#[test]
fn fuzz_mutated_packets_pass_untouched_or_go_where_the_maps_say() {
    let seeds = seeds();
    let mut tally = Tally::default();
    let scenarios = fuzz_packets(PACKETS).div_ceil(SCENARIO);
    for number in 0..scenarios as u64 {
        let Scenario { maps, packets } = Scenario::new(number, &seeds);
        let features = Features {
            anti_spoof: number % 3 != 0,
            ..FEATURES
        };
        for (index, (hook, mut before)) in packets.into_iter().enumerate() {
            // What no test run in the kernel has.
            before.tagged = index % 64 == 63;
            before.vni = [Some(VNI), Some(VNI), Some(VNI), Some(VNI + 1), None][index % 5];
            let verdict = check(hook, &before, &maps, features);
            tally.add(hook, verdict.outcome());
        }
    }
    let packets = scenarios * SCENARIO;
    std::eprintln!("{packets} packets on the host:\n{}", tally.lines());
    assert_met(&tally);
}

/// Every outcome that a hook has is met: else the mutations prove little.
fn assert_met(tally: &Tally) {
    use Pass::{
        Fragment, HopLimit, Icmp, Isolated, NotFromPod, NotIp, NotToPod, Options, OtherMac,
        Redirected, SamePod, SlowPod, StackFlow, Tagged, TooBig,
    };
    let of_all = [
        NotIp, Tagged, Fragment, Options, Icmp, NotFromPod, NotToPod, StackFlow,
    ];
    for hook in Hook::ALL {
        let (passes, others): (&[Pass], &[Outcome]) = match hook {
            Hook::FromPod => (
                &[OtherMac, SamePod, HopLimit, TooBig, SlowPod, Isolated],
                &[
                    Outcome::ToPod,
                    Outcome::ToPeer,
                    Outcome::ToOverlay,
                    Outcome::Dropped(Drop::Spoofed),
                ],
            ),
            Hook::FromUplink => (&[OtherMac, HopLimit, SlowPod], &[Outcome::ToPod]),
            Hook::FromOverlay => (
                &[OtherMac, HopLimit, SlowPod],
                &[Outcome::ToPod, Outcome::Dropped(Drop::ForeignVni)],
            ),
            Hook::ToPod => (&[], &[]),
            Hook::ToUplink => (&[Redirected], &[]),
        };
        let passes = of_all
            .iter()
            .chain(passes)
            .map(|&reason| Outcome::Passed(reason));
        let possible: Vec<Outcome> = passes.chain(others.iter().copied()).collect();
        for outcome in Outcome::ALL {
            let met = tally.of(hook, outcome) > 0;
            assert_eq!(met, possible.contains(&outcome), "{hook:?}: {outcome:?}");
        }
    }
}
