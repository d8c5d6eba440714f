//! DEL: what one leaves, the next removes, or GC.

use beeline_tests::inject::{Fault, Injection};
use beeline_tests::soak;

use super::lab::{Kind, Lab};
use super::walk::{Cleaner, INDEX, Walk};

/// Of a DEL that goes wrong another one, or a GC, does the rest; one that reports success has done all of it.
pub(super) fn goes_wrong(lab: &Lab, fault: Fault, stride: usize) {
    let mut walk = Walk::new(lab, "DEL", fault);
    for (number, at) in (1..).step_by(stride).enumerate() {
        let added = lab.add();
        walk.expect_success(&format!("step {at}, before"), &added);
        let Some((step, outcome)) = walk.step(&Injection::at(fault, at)) else {
            break;
        };
        if outcome.is_success() {
            // IPAM's index may not be up to date; whoever uses it next makes it anew.
            walk.expect_unchanged_but(INDEX, &step, "left by a DEL that succeeds");
            lab.del().expect_success();
            walk.expect_unchanged(&step, "left by a second DEL");
            continue;
        }
        let cleaner = Cleaner::of(number);
        let cleaned = cleaner.run(lab);
        walk.expect_success(&step, &cleaned);
        walk.expect_unchanged(&step, &format!("left by another {cleaner:?}"));
    }
    walk.finish(&format!("every {stride}. step"));
}

#[test]
fn a_del_that_fails_at_any_step_is_finished_by_another_or_by_gc() {
    let lab = Lab::warm(Kind::Rich);
    goes_wrong(&lab, Fault::Fail, 1);
    goes_wrong(&lab, Fault::Refuse, 1);
}

#[test]
fn a_del_that_is_killed_at_any_step_is_finished_by_another_or_by_gc() {
    let lab = Lab::warm(Kind::Rich);
    goes_wrong(&lab, Fault::Kill, 1);
}

fn other(kind: Kind) {
    let lab = Lab::warm(kind);
    for fault in [Fault::Fail, Fault::Kill] {
        goes_wrong(&lab, fault, soak::scale(9, 1));
    }
    goes_wrong(&lab, Fault::Refuse, soak::scale(3, 1));
}

#[test]
fn soak_dels_from_the_plain_bridge_are_finished() {
    other(Kind::Bridge);
}

#[test]
fn soak_dels_with_another_ipam_are_finished() {
    other(Kind::Delegated);
}

#[test]
fn soak_dels_from_an_overlay_are_finished() {
    other(Kind::Overlay);
}
