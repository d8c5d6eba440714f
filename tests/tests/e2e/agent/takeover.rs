//! Two agents on one node.

use beeline_tests::datapath::{FROM_UPLINK, TO_PEER};

use super::lab::{Lab, assert_fast, wait_until_known};
use super::process::PORT;

#[test]
fn a_second_agent_waits_for_the_firsts_end_and_takes_over() {
    let (lab, [a, b]) = Lab::new(1);
    let first = lab.agent(&a);
    first.wait_until_ready();
    let near = a.add_pod("near");
    let second = lab.agent_with(&a, PORT + 1, &[]);
    second.wait_until_refused(&["another agent keeps it; waiting for its end"]);
    first.wait_until_ready();
    first.stop();
    second.wait_until_ready();
    // From now on it is the one who follows the cluster.
    let other = lab.agent(&b);
    other.wait_until_ready();
    wait_until_known(&[&a, &b]);
    let far = b.add_pod("far");
    assert_fast(&near, &far, [TO_PEER, FROM_UPLINK]);
    second.assert_without_drift();
}
