//! Kills at random, while pods of the node talk to each other.

use std::time::SystemTime;

use beeline_tests::inject::{Fault, Injection, Steps};
use beeline_tests::soak;
use beeline_tests::steady;

use super::lab::{Kind, Lab};
use super::walk::Cleaner;

/// Says where the random numbers begin, to have the same kills again.
const SEED: &str = "BEELINE_SEED";

/// Short connections a second: more would use up a pod's ports in an hour.
const RATE: u32 = 50;

/// Where the random numbers begin: in a long run somewhere else each time.
fn seed() -> u64 {
    let set = std::env::var(SEED).ok();
    let clock = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |since| since.subsec_nanos().into())
    };
    set.map_or_else(
        || if soak::is_on() { clock() } else { 1 },
        |text| text.parse().expect("a number"),
    )
}

/// How many steps a verb has when nothing goes wrong.
fn steps(lab: &Lab, verb: &str) -> usize {
    let never = Injection::at(Fault::Kill, usize::MAX).of(Steps::All);
    let injected = lab.inject(verb, &never).expect("executed");
    injected.outcome.expect_success();
    injected.steps
}

#[test]
fn soak_random_kills_leave_nothing_and_break_no_connection() {
    let lab = Lab::warm(Kind::Rich);
    let (seed, kills) = (seed(), soak::scale(40, 1000));
    println!("{SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let before = lab.look();
    // A DEL and a GC of an attachment that there is.
    let verbs = ["ADD", "DEL", "GC"].map(|verb| {
        let steps = steps(&lab, verb);
        if verb == "DEL" {
            lab.add().expect_success();
        }
        (verb, steps)
    });
    println!("steps: {verbs:?}");
    let (mut at_work, mut residue) = (0, Vec::new());
    let kill_all = || {
        for number in 0..kills {
            let (verb, steps) = verbs[random.usize(0..verbs.len())];
            if verb != "ADD" {
                lab.add().expect_success();
            }
            let at = random.usize(1..=steps);
            let injection = Injection::at(Fault::Kill, at).of(Steps::All);
            let injected = lab.inject(verb, &injection).expect("executed");
            at_work += usize::from(injected.step.is_some());
            let cleaner = Cleaner::of(random.usize(0..2));
            let cleaned = cleaner.run(&lab);
            let changes = lab.changes(&before);
            if !cleaned.is_success() || !changes.is_empty() {
                let step = injected.step.unwrap_or_default();
                residue.push(format!(
                    "{number}: {verb}, {step}: then {cleaned}\n{changes}"
                ));
                // What is there already is not found again.
                lab.del();
                lab.gc();
            }
        }
    };
    let [near, second, far] = &*lab.pods else {
        panic!("three pods are expected")
    };
    let pairs = [(near, second), (near, far)];
    let ((), tallies) = steady::during_at(RATE, &pairs, kill_all).expect("traffic");
    println!(
        "kills tried {kills}, at work {at_work}, residue {}",
        residue.len()
    );
    assert!(residue.is_empty(), "{}", residue.join("\n"));
    assert!(at_work * 2 > kills, "{at_work} of {kills} were at work");
    for tally in tallies {
        tally.assert_unbroken();
    }
    lab.assert_connected();
}
