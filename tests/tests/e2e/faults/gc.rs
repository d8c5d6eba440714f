//! GC: what one leaves, the next removes.

use beeline_tests::inject::{Fault, Injection};
use beeline_tests::soak;

use super::lab::{Kind, Lab};
use super::walk::{INDEX, Walk};

fn goes_wrong(lab: &Lab, fault: Fault, stride: usize) {
    let mut walk = Walk::new(lab, "GC", fault);
    for at in (1..).step_by(stride) {
        let added = lab.add();
        walk.expect_success(&format!("step {at}, before"), &added);
        let Some((step, outcome)) = walk.step(&Injection::at(fault, at)) else {
            break;
        };
        if outcome.is_success() {
            // IPAM's index may not be up to date; whoever uses it next makes it anew.
            walk.expect_unchanged_but(INDEX, &step, "left by a GC that succeeds");
        }
        let collected = lab.gc();
        walk.expect_success(&step, &collected);
        walk.expect_unchanged(&step, "left by another GC");
    }
    walk.finish(&format!("every {stride}. step"));
}

#[test]
fn soak_a_gc_that_goes_wrong_at_any_step_is_finished_by_another() {
    for kind in [Kind::Rich, Kind::Delegated] {
        let lab = Lab::warm(kind);
        for fault in [Fault::Fail, Fault::Kill] {
            goes_wrong(&lab, fault, soak::scale(7, 1));
        }
        goes_wrong(&lab, Fault::Refuse, soak::scale(3, 1));
    }
}
