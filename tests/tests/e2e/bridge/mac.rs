//! MACs: whose wish counts for the pod's, and that the bridge keeps its own.

use beeline_tests::node::{BRIDGE, Node};
use beeline_tests::outcome::Outcome;
use beeline_tests::runtime::Attachment;
use serde_json::{Value, json};

use super::{link, run_ip};
use crate::call::Call;
use crate::fixture::one_node;
use crate::refusals::{refused, sandbox};

const RUNTIME: &str = "02:00:00:00:00:01";
const USER: &str = "02:00:00:00:00:02";
const ARGUMENTS: &str = "02:00:00:00:00:03";

/// Executes the plugin with `CNI_ARGS`.
#[track_caller]
fn call(node: &Node, verb: &str, attachment: &Attachment, args: &str, stdin: &Value) -> Outcome {
    let call = Call::new(node, attachment).with("CNI_ARGS", args);
    call.run(verb, stdin)
}

#[test]
fn the_runtimes_mac_goes_before_the_users_and_that_before_the_arguments() {
    let (_topology, node) = one_node();
    let wishes = [
        (
            json!({"mac": RUNTIME}),
            json!({"cni": {"mac": USER}}),
            RUNTIME,
        ),
        (json!({}), json!({"cni": {"mac": USER}}), USER),
        (json!({"mac": ""}), json!({"cni": {"mac": ""}}), ARGUMENTS),
    ];
    for (runtime, user, expected) in wishes {
        let (namespace, attachment) = sandbox(&node);
        let mut stdin = node.config().stdin();
        stdin["runtimeConfig"] = runtime;
        stdin["args"] = user;
        let args = format!("IgnoreUnknown=1;MAC={ARGUMENTS}");
        let added = call(&node, "ADD", &attachment, &args, &stdin);
        let result = added.expect_success();
        assert_eq!(link(&namespace, "eth0")["address"], expected);
        assert_eq!(result["interfaces"][2]["mac"], expected);
        call(&node, "DEL", &attachment, &args, &stdin).expect_success();
    }
}

#[test]
fn what_is_no_mac_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for bad in ["02:00:00:00:00", "02:00:00:00:00:0g", "x"] {
        let mut stdin = node.config().stdin();
        stdin["runtimeConfig"] = json!({"mac": bad});
        let message = refused(&node, &attachment, &stdin.to_string(), &[7]);
        assert!(message.contains(bad), "{message}");
    }
    let args = "MAC=02-00";
    let outcome = call(&node, "ADD", &attachment, args, &node.config().stdin());
    let message = outcome.expect_error(&[4]);
    assert!(message.contains("02-00"), "{message}");
}

#[test]
fn the_bridge_keeps_its_mac_while_pods_come_and_go() {
    for is_there in [false, true] {
        let (_topology, node) = one_node();
        if is_there {
            run_ip(node.netns(), &[&format!("link add {BRIDGE} type bridge")]);
        }
        let mut macs = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            let pod = node.add_pod(name);
            let held = link(node.netns(), BRIDGE)["address"].clone();
            assert_eq!(pod.result()["interfaces"][0]["mac"], held);
            pod.delete().expect("DEL");
            macs.extend([held, link(node.netns(), BRIDGE)["address"].clone()]);
        }
        macs.dedup();
        assert_eq!(macs.len(), 1, "{macs:?}");
    }
}
