//! The namespace that a call is about.

use std::fs;

use beeline_tests::exec;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use serde_json::json;

use super::Call;
use crate::fixture::one_node;

#[test]
fn the_plugins_own_namespace_is_refused_before_anything_is_done() {
    let (_topology, node) = one_node();
    let own = Attachment::new("own", node.netns().path());
    for verb in ["ADD", "DEL"] {
        // An eth0 is there: the node's uplink, which a DEL must not take for the pod's interface.
        let message = Call::new(&node, verb, &own).is_refused(&[8]);
        assert!(message.contains("plugin's own namespace"), "{message}");
        let by_descriptor = Call::new(&node, verb, &own).set("CNI_NETNS", "/proc/self/ns/net");
        by_descriptor.is_refused(&[8]);
    }
}

#[test]
fn the_plugins_own_namespace_is_taken_where_the_runtime_insists() {
    let (_topology, node) = one_node();
    // The first pod of a network leaves a bridge.
    let _first = node.add_pod("first");
    let before = Snapshot::of(&node);
    let own = Attachment {
        ifname: "net7".to_owned(),
        ..Attachment::new("own", node.netns().path())
    };
    let insisting = |verb: &str, how: &str| {
        let call = Call::new(&node, verb, &own).set("CNI_NETNS_OVERRIDE", how);
        // The node has a default route of its own.
        call.change(|conf| conf["ipam"]["routes"] = json!([]))
    };
    for how in ["1", "true", "TRUE"] {
        let result = insisting("ADD", how).run().expect_success();
        let mut show = node.netns().command("ip");
        exec::stdout(show.args(["link", "show", "net7"])).expect("the interface is there");
        // CHECK changes nothing, and needs no such permission.
        let check = insisting("CHECK", "").change(|conf| conf["prevResult"] = result);
        check.run().expect_success();
        insisting("DEL", how).run().expect_success();
        before.assert_unchanged(&node);
    }
    for how in ["0", "false", "yes"] {
        insisting("ADD", how).is_refused(&[8]);
    }
}

#[test]
fn what_is_no_network_namespace_is_refused_and_named() {
    let (_topology, node) = one_node();
    let file = node.directory().join("file");
    fs::write(&file, "").expect("write");
    let file = file.display().to_string();
    for path in [
        "/run/netns/bl-never-there",
        "/run/netns/bl-never-there/below",
        &file,
        "/proc/self/ns/mnt",
        "/proc/self/status",
        "/dev/null",
        "/",
    ] {
        let nowhere = Attachment::new("nowhere", path);
        let message = Call::new(&node, "ADD", &nowhere).is_refused(&[8]);
        assert!(message.contains(path), "{message}");
    }
}

#[test]
fn a_pod_is_deleted_whatever_has_become_of_its_namespace() {
    let (_topology, node) = one_node();
    let _first = node.add_pod("first");
    let before = Snapshot::of(&node);
    let file = node.directory().join("file");
    fs::write(&file, "").expect("write");
    let file = file.display().to_string();
    for path in ["", "/run/netns/bl-never-there", &file, "/proc/self/ns/mnt"] {
        let (_namespace, attachment) = crate::refusals::sandbox(&node);
        Call::new(&node, "ADD", &attachment).run().expect_success();
        let delete = Call::new(&node, "DEL", &attachment).set("CNI_NETNS", path);
        delete.run().expect_success();
        before.assert_unchanged(&node);
    }
}
