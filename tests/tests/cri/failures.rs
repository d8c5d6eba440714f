//! Pods that do not come up, and pods that end otherwise than by the runtime.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use beeline_tests::config::Config;
use beeline_tests::exec;
use beeline_tests::snapshot::Snapshot;
use serde_json::json;

use crate::containerd::Containerd;
use crate::fixture::{one_node, rename_in};
use crate::machine::plugin_dir;
use crate::pod::{self, Pod};

/// A plugin whose ADD fails, and whose DEL has nothing to do.
const FAILING: &str = r#"#!/bin/sh
cat >/dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "code": 100, "msg": "failing on purpose"}'
exit 1
"#;

/// Has a sandbox fail; asserts that the runtime keeps none, and that the node is as before. Returns what it says.
#[track_caller]
fn assert_fails_without_a_trace(containerd: &Containerd, name: &str, before: &Snapshot) -> String {
    let client = containerd.client();
    let known = client.sandboxes().expect("list");
    let failed = client.run(&pod::config(containerd, name));
    let error = failed.expect_err("a sandbox that cannot be");
    before.assert_unchanged(containerd.node());
    assert_eq!(client.sandboxes().expect("list"), known);
    format!("{error:#}")
}

/// Has containerd use another configuration.
#[track_caller]
fn reconfigure(containerd: &mut Containerd, config: &Config<'_>) {
    // It would notice by itself, but does not say when.
    containerd.end("TERM");
    rename_in(config, containerd.node());
    containerd.resume().expect("resume");
}

#[test]
fn a_pod_that_gets_no_address_leaves_nothing_and_gets_one_when_another_went() {
    let (_topology, node) = one_node();
    let small = |plugin: &mut serde_json::Value| plugin["ipam"]["subnet"] = json!("10.244.1.0/30");
    node.config().with(small).install().expect("install");
    let containerd = Containerd::start(&node);
    let first = Pod::run(&containerd, "first");
    let before = Snapshot::of(&node);
    for attempt in ["second", "third"] {
        let error = assert_fails_without_a_trace(&containerd, attempt, &before);
        assert!(error.contains("no IP addresses available"), "{error}");
    }
    let ip = first.ip();
    first.delete();
    assert_eq!(Pod::run(&containerd, "fourth").ip(), ip);
}

#[test]
fn a_pod_that_a_later_plugin_refuses_leaves_nothing() {
    let (_topology, node) = one_node();
    let mut containerd = Containerd::start(&node);
    let plugin = plugin_dir(&node).join("failing");
    fs::write(&plugin, FAILING).expect("write");
    fs::set_permissions(&plugin, Permissions::from_mode(0o755)).expect("permissions");
    let first = Pod::run(&containerd, "first");
    let before = Snapshot::of(&node);
    let config = node.config().chain(json!({ "type": "failing" }));
    reconfigure(&mut containerd, &config);
    let error = assert_fails_without_a_trace(&containerd, "second", &before);
    assert!(error.contains("failing on purpose"), "{error}");

    reconfigure(&mut containerd, &node.config());
    let third = Pod::run(&containerd, "third");
    third.ping(first.ip(), 2);
}

#[test]
fn a_pod_whose_result_the_runtime_does_not_understand_leaves_nothing() {
    let (_topology, node) = one_node();
    let mut containerd = Containerd::start(&node);
    let _first = Pod::run(&containerd, "first");
    let before = Snapshot::of(&node);
    reconfigure(&mut containerd, &node.config().version("1.1.0"));
    let client = containerd.client();
    match client.run(&pod::config(&containerd, "second")) {
        // containerd before 2.0 refuses what ADD has done.
        Err(error) => assert!(format!("{error:#}").contains("version"), "{error:#}"),
        Ok(sandbox) => client.delete_all(&[sandbox]).expect("delete"),
    }
    before.assert_unchanged(&node);
}

#[test]
fn a_pod_whose_processes_or_namespace_are_gone_is_cleaned_up() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let client = containerd.client();
    let first = Pod::run(&containerd, "first");
    let before = Snapshot::of(&node);
    let ends = [
        "kill -KILL $0",
        "kill -KILL $0; umount $1",
        "kill -KILL $0; umount $1; rm $1",
    ];
    for (index, end) in ends.iter().enumerate() {
        let config = pod::config(&containerd, &format!("pod-{index}"));
        let sandbox = client.run(&config).expect("RunPodSandbox");
        let (_, info) = client.sandbox(&sandbox).expect("status");
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
        let mut namespaces = namespaces.into_iter().flatten();
        let netns = namespaces.find(|namespace| namespace["type"] == "network");
        let netns = netns.and_then(|netns| netns["path"].as_str());
        let netns = netns.expect("a path of the network namespace");
        let pid = info["pid"].to_string();
        let mut shell = containerd.command("sh");
        exec::stdout(shell.args(["-ec", end, &pid, netns])).expect(end);
        client.stop(&sandbox).expect(end);
        before.assert_unchanged(&node);
        client.remove(&sandbox).expect(end);
    }
    assert_eq!(client.sandboxes().expect("list"), [first.sandbox()]);
    first.ping(node.gateway(), 1);
}
