//! Broken packets at all hooks: the kernel judges them as the host does, and remembers the same of them.

use beeline_common::{
    Count, Drop, Features, Hook, Outcome, Pass, stats,
    testing::{FEATURES, SCENARIO, Scenario, Tally, fuzz_packets, seeds},
};

use crate::lab::{Lab, lab, lab_with};

/// How many packets come by, unless more are asked for.
const PACKETS: usize = 300_000;

/// As many flows as no scenario has.
const FLOWS: u32 = 4096;

#[test]
fn packets_cut_off_anywhere_are_judged_as_on_the_host() {
    lab(|lab| {
        let mut run = Run::new(lab);
        for seed in seeds() {
            for length in beeline_common::ip::ETHERNET..=seed.bytes.len() {
                let frame = seed.clone().truncated(length);
                for hook in Hook::ALL {
                    let packets = [frame.clone(), frame.clone().segmented(1400)];
                    run.packets(lab, packets.map(|packet| (hook, packet)).iter());
                }
            }
            run.assert_state(lab);
            lab.forget_flows();
        }
    });
}

#[test]
fn fuzz_mutated_packets_are_judged_as_on_the_host() {
    let nothing = Features::default();
    let spoofed = Features {
        anti_spoof: true,
        ..nothing
    };
    // Most with all that there is, as that has all the code.
    for (features, share) in [(FEATURES, 4), (spoofed, 1), (nothing, 1)] {
        let scenarios = (fuzz_packets(PACKETS) * share / 6).div_ceil(SCENARIO);
        let tally = lab_with(features, FLOWS, |lab| fuzz(lab, scenarios as u64));
        let packets = scenarios * SCENARIO;
        eprintln!("{packets} packets in the kernel, {features:?}, all judged as on the host:");
        eprintln!("{}", tally.lines());
        assert_met(&tally, features);
    }
}

fn fuzz(lab: &mut Lab, scenarios: u64) -> Tally {
    let seeds = seeds();
    let mut run = Run::new(lab);
    for number in 0..scenarios {
        let Scenario { maps, packets } = Scenario::new(number, &seeds);
        lab.fill(maps);
        run.packets(lab, packets.iter());
        if !run.agrees(lab) {
            // Once more from the start, to find the first packet that went another way.
            lab.fill(Scenario::new(number, &seeds).maps);
            for (hook, frame) in &packets {
                lab.assert_agrees(*hook, frame);
            }
            unreachable!("scenario {number}: the second time, the kernel agreed");
        }
    }
    run.tally
}

/// Packets on the way, and what must have been counted.
struct Run {
    expected: Vec<Count>,
    tally: Tally,
}

impl Run {
    fn new(lab: &Lab) -> Self {
        Self {
            expected: lab.counts(),
            tally: Tally::default(),
        }
    }

    /// Asserts of each packet that code, bytes and mark are the host's.
    fn packets<'a>(
        &mut self,
        lab: &Lab,
        packets: impl Iterator<Item = &'a (Hook, beeline_common::testing::Frame)>,
    ) {
        for (hook, frame) in packets {
            let Some(verdict) = lab.judge_both(*hook, frame) else {
                continue;
            };
            let verdict = verdict.unwrap_or_else(|how| panic!("{hook:?}: {how}: {frame:02x?}"));
            let outcome = verdict.outcome();
            let count = &mut self.expected[stats::index(*hook, outcome) as usize];
            count.packets += 1;
            count.bytes += frame.bytes.len() as u64;
            self.tally.add(*hook, outcome);
        }
    }

    /// Whether the kernel counted the same outcomes and remembers the same flows.
    fn agrees(&self, lab: &Lab) -> bool {
        lab.counts() == self.expected && lab.flows() == *lab.maps.flows.borrow()
    }

    fn assert_state(&self, lab: &Lab) {
        assert_eq!(lab.counts(), self.expected);
        assert_eq!(lab.flows(), *lab.maps.flows.borrow());
    }
}

/// Asserts that every outcome was met, but for those that a test run cannot provoke: it has neither VLAN tags nor
/// tunnels, and its packets have a whole IP header.
fn assert_met(tally: &Tally, features: Features) {
    let met = |hook, outcome| tally.of(hook, outcome) > 0;
    for outcome in Outcome::ALL {
        let possible = match outcome {
            Outcome::Passed(reason) => !matches!(reason, Pass::Tagged | Pass::Redirected),
            Outcome::Dropped(reason) => reason == Drop::Spoofed && features.anti_spoof,
            Outcome::ToOverlay => features.vni != 0,
            Outcome::ToPod | Outcome::ToPeer => true,
        };
        assert_eq!(met(Hook::FromPod, outcome), possible, "{outcome:?}");
    }
    let foreign = Outcome::Dropped(Drop::ForeignVni);
    assert!(met(Hook::FromOverlay, foreign));
    for (hook, outcomes) in [
        (Hook::FromUplink, &[Outcome::ToPod][..]),
        (Hook::ToPod, &[]),
        (Hook::ToUplink, &[Outcome::Passed(Pass::Redirected)]),
    ] {
        let stack = Outcome::Passed(Pass::StackFlow);
        for outcome in [stack].iter().chain(outcomes) {
            assert!(met(hook, *outcome), "{hook:?}: {outcome:?}");
        }
    }
}
