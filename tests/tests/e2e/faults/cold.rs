//! The first ADD, which sets the node up.

use beeline_tests::inject::{Fault, Injection};
use beeline_tests::snapshot::Snapshot;
use beeline_tests::soak;

use super::lab::{Kind, Lab};
use super::walk::{Walk, is_answer};

/// After an error the node knows nothing of the network.
fn fails(kind: Kind, fault: Fault, stride: usize) {
    let injections = (1..).step_by(stride).map(|at| Injection::at(fault, at));
    let walked = format!("cold, {kind:?}, every {stride}. step");
    fails_by(kind, fault, injections, &walked);
}

fn fails_by(kind: Kind, fault: Fault, injections: impl Iterator<Item = Injection>, walked: &str) {
    let lab = Lab::cold(kind);
    let mut walk = Walk::new(&lab, "ADD", fault);
    for injection in injections {
        let Some((step, outcome)) = walk.step(&injection) else {
            break;
        };
        if outcome.is_success() || is_answer(&step) {
            let checked = lab.check(&outcome.stdout);
            if outcome.is_success() {
                walk.expect_success(&step, &checked);
            }
            let deleted = lab.del();
            walk.expect_success(&step, &deleted);
            lab.make_cold();
        }
        walk.expect_unchanged(&step, "the node changed");
    }
    walk.finish(walked);
}

/// After a kill a DEL succeeds, and the next ADD sets the node up as the first one would have.
fn is_killed(kind: Kind, stride: usize) {
    let lab = Lab::cold(kind);
    let whole = |lab: &Lab| {
        let result = lab.add().expect_success();
        lab.check(&result).expect_success();
        lab.assert_attached();
        lab.del().expect_success();
        apart_from_names(&lab.look())
    };
    let expected = whole(&lab);
    lab.make_cold();
    let mut walk = Walk::new(&lab, "ADD", Fault::Kill);
    for at in (1..).step_by(stride) {
        let Some((step, _)) = walk.step(&Injection::at(Fault::Kill, at)) else {
            break;
        };
        let deleted = lab.del();
        walk.expect_success(&step, &deleted);
        let changes = expected.diff(&whole(&lab));
        if !changes.is_empty() {
            walk.find(&step, &format!("not set up as by a whole ADD:\n{changes}"));
        }
        lab.make_cold();
        walk.expect_unchanged(&step, "left when the network was removed");
    }
    walk.finish(&format!("cold, {kind:?}, every {stride}. step"));
}

/// A bridge is given another MAC each time, and interfaces another index.
fn apart_from_names(snapshot: &Snapshot) -> Snapshot {
    let is_mac = |word: &str| word.len() == 17 && word.matches(':').count() == 5;
    let line = |line: &str| {
        let words = line.split(' ').filter(|word| !is_mac(word));
        let line = words.collect::<Vec<_>>().join(" ");
        match line.starts_with("pin ") {
            true => line
                .trim_end_matches(|c: char| c.is_ascii_digit())
                .to_owned(),
            false => line,
        }
    };
    let lines = snapshot.iter().filter(|line| !line.contains("fe80"));
    lines.map(line).collect()
}

#[test]
fn soak_a_first_add_that_fails_leaves_a_node_that_knows_nothing_of_it() {
    fails(Kind::Overlay, Fault::Fail, soak::scale(23, 1));
    fails(Kind::Overlay, Fault::Refuse, soak::scale(5, 1));
    if soak::is_on() {
        fails(Kind::Bridge, Fault::Fail, 1);
    }
}

#[test]
fn a_first_add_that_cannot_lock_leaves_a_node_that_knows_nothing_of_it() {
    for kind in [Kind::Bridge, Kind::Overlay] {
        let injections = (1..).map(|at| Injection::at(Fault::Fail, at).only("flock"));
        fails_by(
            kind,
            Fault::Fail,
            injections,
            &format!("cold, {kind:?}, locks"),
        );
    }
}

#[test]
fn soak_a_node_whose_set_up_was_killed_is_set_up_by_the_next_add() {
    is_killed(Kind::Overlay, soak::scale(37, 1));
    if soak::is_on() {
        is_killed(Kind::Bridge, 1);
    }
}
