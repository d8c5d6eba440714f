//! DEL, whatever is left and whatever it is told.

use std::thread;
use std::time::Duration;

use beeline_tests::netns;
use beeline_tests::snapshot::Snapshot;
use serde_json::json;

use super::call;
use crate::fixture::{configure, fast_node, one_node};
use crate::refusals::sandbox;

#[test]
fn del_after_the_namespace_is_gone_leaves_no_address_masquerade_rule_or_program() {
    let (_topology, node) = fast_node();
    configure(&node, |plugin| {
        plugin["macspoofchk"] = json!(true);
        plugin["ipam"] = json!({
            "type": "static",
            "addresses": [{"address": "10.99.0.5/24", "gateway": "10.99.0.1"}],
        });
    });
    // What all pods of a node share stays.
    let first = node.add_pod("first");
    let before = Snapshot::of(&node);
    configure(&node, |plugin| {
        plugin["macspoofchk"] = json!(true);
        plugin["ipam"] = json!({
            "type": "static",
            "addresses": [{"address": "10.99.0.6/24", "gateway": "10.99.0.1"}],
        });
    });
    let mut second = node.add_pod("second");
    let diff = before.diff(&Snapshot::of(&node));
    for made in ["10.99.0.6", "cni-br-iface", "file"] {
        assert!(diff.contains(made), "{made}: {diff}");
    }
    netns::remove(second.namespace().name()).expect("remove");
    second.detach().expect("executed").expect_success();
    drop(second);
    let gone = || before.diff(&Snapshot::of(&node)).is_empty();
    for _ in 0..50 {
        if gone() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    before.assert_unchanged(&node);
    first.check().expect("executed").expect_success();
}

#[test]
fn del_does_not_look_at_a_previous_result_that_is_none() {
    let (_topology, node) = one_node();
    let _first = node.add_pod("first");
    let before = Snapshot::of(&node);
    for wrong in [
        json!(5),
        json!("x"),
        json!([]),
        json!({"cniVersion": "9.9.9"}),
    ] {
        let (_namespace, attachment) = sandbox(&node);
        let mut stdin = node.config().stdin();
        call(&node, "ADD", &attachment, &stdin).expect_success();
        stdin["prevResult"] = wrong;
        for _ in 0..3 {
            call(&node, "DEL", &attachment, &stdin).expect_success();
        }
        before.assert_unchanged(&node);
    }
}
