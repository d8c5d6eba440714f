//! What cannot be done is refused with one error, and nothing is left behind.

use std::sync::Arc;

use beeline_tests::exec;
use beeline_tests::netns::{Ipv6, Namespace};
use beeline_tests::node::Node;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;

use crate::fixture::one_node;

/// A sandbox that no plugin has been in.
pub(crate) fn sandbox(node: &Node) -> (Namespace, Attachment) {
    let namespace =
        Namespace::create(&format!("{}-sandbox", node.name()), Ipv6::Disabled).expect("namespace");
    let container_id = namespace.name().to_owned();
    let attachment = Attachment::new(container_id, namespace.path());
    (namespace, attachment)
}

/// Has ADD fail with one of `codes` and no trace on the node; returns the message.
#[track_caller]
pub(crate) fn refused(
    node: &Arc<Node>,
    attachment: &Attachment,
    stdin: &str,
    codes: &[u64],
) -> String {
    let before = Snapshot::of(node);
    let outcome = node
        .runtime()
        .call("ADD", attachment, stdin.as_bytes())
        .expect("executed, with one JSON document");
    let message = outcome.expect_error(codes);
    before.assert_unchanged(node);
    message
}

#[test]
fn an_occupied_bridge_name_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    exec::ip_batch(
        node.netns(),
        &["link add v-net-0 type veth peer name other".to_owned()],
    )
    .expect("ip");
    let message = refused(&node, &attachment, &node.config().stdin().to_string(), &[7]);
    assert!(message.contains("v-net-0"), "the name is named: {message}");
}

#[test]
fn an_unknown_namespace_is_refused() {
    let (_topology, node) = one_node();
    let netns = "/run/netns/bl-never-there";
    let nowhere = Attachment::new("pod", netns);
    let message = refused(&node, &nowhere, &node.config().stdin().to_string(), &[8]);
    assert!(message.contains(netns), "the path is named: {message}");
}

#[test]
fn a_file_that_is_no_namespace_is_refused() {
    let (_topology, node) = one_node();
    let netns = node.directory().join("file");
    std::fs::write(&netns, "").expect("write");
    let wrong = Attachment::new("pod", netns);
    refused(&node, &wrong, &node.config().stdin().to_string(), &[8]);
}

#[test]
fn json_that_is_none_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for stdin in ["", "{", "{}x", "[]", "not json"] {
        refused(&node, &attachment, stdin, &[6]);
    }
}

#[test]
fn a_bad_subnet_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for subnet in ["10.244.1.0", "10.244.1.0/33", "pods", "10.244.1.0/32"] {
        let stdin = node
            .config()
            .with(|plugin| plugin["ipam"]["subnet"] = subnet.into())
            .stdin();
        let message = refused(&node, &attachment, &stdin.to_string(), &[7]);
        assert!(message.contains(subnet), "{subnet} is named: {message}");
    }
}

#[test]
fn a_bad_peer_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let peers = serde_json::json!([{ "cidr": "10.244.2.0/40", "node": "192.168.1.12" }]);
    let stdin = node
        .config()
        .with(|plugin| plugin["datapath"]["peers"] = peers)
        .stdin();
    refused(&node, &attachment, &stdin.to_string(), &[7]);
}

#[test]
fn a_name_that_could_leave_its_directory_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let mut stdin = node.config().stdin();
    stdin["name"] = "../elsewhere".into();
    refused(&node, &attachment, &stdin.to_string(), &[7]);
    let evil = Attachment {
        container_id: "../evil".to_owned(),
        ..attachment
    };
    refused(&node, &evil, &node.config().stdin().to_string(), &[4]);
}

#[test]
fn exhausted_addresses_are_refused_without_a_trace() {
    let (_topology, node) = one_node();
    let subnet = format!("{}/30", node.pod_cidr().network());
    node.config()
        .with(|plugin| plugin["ipam"]["subnet"] = subnet.clone().into())
        .install()
        .expect("install");
    let _only = node.add_pod("only");
    let (namespace, attachment) = sandbox(&node);
    let before = Snapshot::of(&node);
    let outcome = node.runtime().add(&attachment).expect("executed");
    let message = outcome.expect_error(&[100]);
    assert!(message.contains("address"), "{message}");
    before.assert_unchanged(&node);
    let links = exec::stdout(namespace.command("ip").args(["-o", "link"])).expect("ip");
    assert_eq!(
        links.lines().count(),
        1,
        "only lo is in the sandbox: {links}"
    );
}
