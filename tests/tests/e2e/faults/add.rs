//! ADD on a node that is set up and has pods.

use beeline_tests::inject::{Fault, Injection};
use beeline_tests::soak;

use super::lab::{Kind, Lab};
use super::walk::{Cleaner, Walk, is_answer};

/// After an error nothing is left. What ADD can do without it may do without; then all is as it should be.
pub(super) fn fails(lab: &Lab, fault: Fault, stride: usize) {
    let mut walk = Walk::new(lab, "ADD", fault);
    for at in (1..).step_by(stride) {
        let Some((step, outcome)) = walk.step(&Injection::at(fault, at)) else {
            break;
        };
        if outcome.is_success() {
            let checked = lab.check(&outcome.stdout);
            walk.expect_success(&step, &checked);
        }
        if outcome.is_success() || is_answer(&step) {
            let deleted = lab.del();
            walk.expect_success(&step, &deleted);
        }
        walk.expect_unchanged(&step, "the node changed");
    }
    lab.del().expect_success();
    walk.finish(&format!("every {stride}. step"));
}

/// After a kill a DEL, or a GC, leaves nothing.
pub(super) fn is_killed(lab: &Lab, stride: usize) {
    let mut walk = Walk::new(lab, "ADD", Fault::Kill);
    for (number, at) in (1..).step_by(stride).enumerate() {
        let Some((step, _)) = walk.step(&Injection::at(Fault::Kill, at)) else {
            break;
        };
        let cleaner = Cleaner::of(number);
        let cleaned = cleaner.run(lab);
        walk.expect_success(&step, &cleaned);
        walk.expect_unchanged(&step, &format!("left by {cleaner:?}"));
    }
    lab.del().expect_success();
    walk.finish(&format!("every {stride}. step"));
}

#[test]
fn an_add_that_fails_at_any_step_leaves_the_node_as_it_was() {
    let lab = Lab::warm(Kind::Rich);
    fails(&lab, Fault::Fail, 1);
    fails(&lab, Fault::Refuse, 1);
}

#[test]
fn an_add_that_is_killed_at_any_step_leaves_nothing_that_del_or_gc_does_not_remove() {
    let lab = Lab::warm(Kind::Rich);
    is_killed(&lab, 1);
}

fn other(kind: Kind) {
    let lab = Lab::warm(kind);
    let stride = soak::scale(9, 1);
    fails(&lab, Fault::Fail, stride);
    fails(&lab, Fault::Refuse, soak::scale(3, 1));
    is_killed(&lab, stride);
}

#[test]
fn soak_adds_to_the_plain_bridge_leave_nothing() {
    other(Kind::Bridge);
}

#[test]
fn soak_adds_with_another_ipam_leave_nothing() {
    other(Kind::Delegated);
}

#[test]
fn soak_adds_to_an_overlay_leave_nothing() {
    other(Kind::Overlay);
}
