//! `prevResult`: CHECK needs one, ADD and DEL do not look at it.

use beeline_tests::snapshot::Snapshot;
use serde_json::{Value, json};

use super::{Call, VERSIONS};
use crate::fixture::one_node;
use crate::refusals::sandbox;

#[test]
fn check_takes_the_result_of_add_in_every_version_that_has_it() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for version in VERSIONS.into_iter().filter(|version| *version >= "0.4.0") {
        let call =
            Call::new(&node, "ADD", &attachment).change(|conf| conf["cniVersion"] = json!(version));
        let result = call.run().expect_success();
        let check = call.clone().set("CNI_COMMAND", "CHECK");
        let with = |result: &Value| {
            check
                .clone()
                .change(|conf| conf["prevResult"] = result.clone())
        };
        with(&result).run().expect_success();
        // One without a version is of the configuration's.
        let mut versionless = result.clone();
        versionless
            .as_object_mut()
            .expect("object")
            .remove("cniVersion");
        with(&versionless).run().expect_success();
        call.set("CNI_COMMAND", "DEL").run().expect_success();
    }
}

#[test]
fn check_needs_a_result_of_its_own_schema() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, "ADD", &attachment);
    let result = call.run().expect_success();
    let check = call.set("CNI_COMMAND", "CHECK");
    let with = |previous: Value| check.clone().change(|conf| conf["prevResult"] = previous);
    for missing in [check.clone(), with(json!(null))] {
        let message = missing.is_refused(&[7]);
        assert!(message.contains("required prevResult missing"), "{message}");
    }
    let of_version = |version: &str| {
        let mut result = result.clone();
        result["cniVersion"] = json!(version);
        with(result)
    };
    for older in ["0.2.0", "0.3.1", "0.4.0", "9.9.9"] {
        let message = of_version(older).is_refused(&[1]);
        assert!(message.contains(older), "{message}");
    }
    // Of the same schema as the configuration's 1.0.0.
    of_version("1.1.0").run().expect_success();
    for malformed in [json!("x"), json!([]), json!({"ips": [{"address": "x"}]})] {
        with(malformed).is_refused(&[6]);
    }
}

#[test]
fn add_and_del_do_not_look_at_it() {
    let (_topology, node) = one_node();
    let _first = node.add_pod("first");
    let (_namespace, attachment) = sandbox(&node);
    let before = Snapshot::of(&node);
    for previous in [
        json!("x"),
        json!([1]),
        json!({"cniVersion": "9.9.9"}),
        json!({"cniVersion": "1.0.0", "ips": [{"address": "not one"}]}),
    ] {
        let call = |verb| {
            let call = Call::new(&node, verb, &attachment);
            call.change(|conf| conf["prevResult"] = previous.clone())
        };
        let result = call("ADD").run().expect_success();
        assert_eq!(result["ips"].as_array().map(Vec::len), Some(1));
        for _ in 0..2 {
            call("DEL").run().expect_success();
        }
        before.assert_unchanged(&node);
    }
}
