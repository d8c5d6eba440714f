//! Broken packets: the kernel judges them as the host does.

use std::collections::HashSet;

use beeline_common::{
    Hook, Outcome, Pass,
    ip::ETHERNET,
    testing::{Random, mutate, seeds},
};

use crate::lab::lab;

/// The shortest packet that the kernel takes for a test run.
const SHORTEST: usize = ETHERNET;

/// How many packets each program judges.
const PACKETS: usize = 25_000;

#[test]
fn packets_cut_off_anywhere_are_judged_as_on_the_host() {
    lab(|lab| {
        for seed in seeds() {
            for length in SHORTEST..=seed.bytes.len() {
                let frame = seed.clone().truncated(length);
                for hook in Hook::ALL {
                    lab.assert_agrees(hook, &frame);
                    lab.assert_agrees(hook, &frame.clone().segmented(1400));
                }
            }
        }
    });
}

#[test]
fn mutated_packets_of_pods_are_judged_as_on_the_host() {
    let never = [Outcome::Passed(Pass::Tagged)];
    assert_agreement(Hook::FromPod, 0x0bee_5eed, &never);
}

#[test]
fn mutated_packets_at_the_uplink_are_judged_as_on_the_host() {
    let never = [Pass::Tagged, Pass::SamePod, Pass::TooBig].map(Outcome::Passed);
    assert_agreement(
        Hook::FromUplink,
        0x5eed_0bee,
        &[&never[..], &[Outcome::ToPeer]].concat(),
    );
}

/// Runs mutated packets, and asserts that every outcome was met, but for those that the hook does not have or a test
/// run cannot provoke.
fn assert_agreement(hook: Hook, seed: u64, never: &[Outcome]) {
    let met: HashSet<&str> = lab(|lab| {
        let seeds = seeds();
        let mut random = Random::new(seed);
        let packets = std::iter::repeat_with(|| {
            let mut frame = random.pick(&seeds).clone();
            mutate(&mut frame, &mut random, SHORTEST);
            frame
        });
        let outcomes = packets.filter_map(|frame| lab.assert_agrees(hook, &frame));
        outcomes
            .take(PACKETS)
            .map(|outcome| outcome.name())
            .collect()
    });
    for outcome in Outcome::ALL {
        let possible = !never.contains(&outcome);
        assert_eq!(met.contains(outcome.name()), possible, "{outcome:?}");
    }
}
