//! Capabilities that the plugin runs without, each by itself and all of them.

use super::*;
use crate::fixture::fast_node;
use crate::refusals::sandbox;

fn without<'a>(node: &'a Arc<Node>, capability: &str) -> Hardship<'a> {
    let bounding = format!("--bounding-set=-{capability}");
    let inheritable = format!("--inh-caps=-{capability}");
    Hardship::by(node, &["setpriv", &bounding, &inheritable])
}

#[test]
fn capabilities_that_another_one_stands_for_are_not_missed() {
    let (_topology, node) = fast_node();
    let config = node.config().mode("ebpf");
    config.install().expect("install");
    let config = config.stdin();
    for capability in ["bpf", "perfmon", "dac_override", "sys_resource"] {
        let (_namespace, attachment) = sandbox(&node);
        let hard = without(&node, capability);
        let added = hard.call("ADD", &attachment, &config);
        assert_eq!(added.stderr, "", "{capability}");
        added.expect_success();
        hard.call("DEL", &attachment, &config).expect_success();
    }
}

#[test]
fn without_the_right_to_change_networks_or_enter_namespaces_pods_are_refused_by_name() {
    let (_topology, node) = fast_node();
    let (config, sandbox) = (node.config().stdin(), sandbox(&node));
    for set_up in [false, true] {
        let _first = set_up.then(|| node.add_pod("first"));
        for (capability, on_a_new_node, then) in [
            (
                "net_admin",
                "bridge \"v-net-0\": create",
                "nftables table \"beeline-pods\"",
            ),
            ("sys_admin", "\": enter", "\": enter"),
            (
                "all",
                "bridge \"v-net-0\": create",
                "nftables table \"beeline-pods\"",
            ),
        ] {
            let hard = without(&node, capability);
            let message = hard.refuses(&sandbox, &config, &[999]);
            let expected = if set_up { then } else { on_a_new_node };
            assert!(message.contains(expected), "{capability}: {message}");
            assert!(
                message.contains("Operation not permitted"),
                "{capability}: {message}"
            );
            // It cannot tell what there is to delete.
            hard.call("DEL", &sandbox.1, &config).expect_error(&[999]);
            node.runtime()
                .del(&sandbox.1, None)
                .expect("executed")
                .expect_success();
        }
    }
}

#[test]
fn a_del_without_rights_errs_and_one_with_them_finishes_it() {
    let (_topology, node) = fast_node();
    let config = node.config().stdin();
    let _other = node.add_pod("other");
    let before = Snapshot::of(&node);
    for capability in ["net_admin", "sys_admin", "all"] {
        let pod = node.add_pod("pod");
        let outcome = without(&node, capability).call("DEL", pod.attachment(), &config);
        if capability != "sys_admin" {
            // The host veth can be deleted from outside of the pod's namespace.
            outcome.expect_error(&[999]);
        }
        let namespace = pod.namespace().path();
        pod.delete().expect("DEL");
        assert!(!namespace.exists());
        before.assert_unchanged(&node);
    }
}

#[test]
fn another_user_than_root_is_told_that_it_takes_root() {
    let (_topology, node) = fast_node();
    let hard = Hardship::by(&node, &["setpriv", "--reuid=65534", "--clear-groups"]);
    let message = hard.refuses(&sandbox(&node), &node.config().stdin(), &[999]);
    assert!(
        message.contains("not run by root but by user 65534"),
        "{message}"
    );
}
