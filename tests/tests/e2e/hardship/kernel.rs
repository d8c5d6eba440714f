//! What the fast path needs of the kernel and of its file systems: where it is missing, pods take the plain bridge, or
//! are refused where eBPF is insisted on.

use beeline_tests::cli;
use beeline_tests::mounts::Disk;

use super::*;
use crate::fixture::fast_node;
use crate::refusals::sandbox;

/// Lets nobody pin anything, in a mount namespace of the plugin's own.
const READ_ONLY: &str = "mount -o remount,bind,ro /sys/fs/bpf";

/// Hides the type information about the kernel.
const NO_BTF: &str = "mount -t tmpfs none /sys/kernel/btf";

#[test]
fn without_a_bpffs_to_write_to_pods_take_the_plain_bridge_until_a_load() {
    let (_topology, node) = fast_node();
    let config = node.config().stdin();
    let hard = Hardship::among_mounts(&node, READ_ONLY);
    let (namespace, attachment) = sandbox(&node);
    let added = hard.call("ADD", &attachment, &config);
    assert!(
        added.stderr.contains("pods take the plain bridge"),
        "{added}"
    );
    assert!(added.stderr.contains("Read-only file system"), "{added}");
    assert!(added.is_success(), "{added}");
    let status = hard.status(&config);
    assert!(status.stderr.contains("Read-only file system"), "{status}");
    status.expect_success();
    let status = cli::status(&node).expect("status");
    assert_eq!(status["datapath"], "bridge");
    assert!(
        status["degraded"]
            .as_str()
            .expect("why")
            .contains("/beeline/pods/"),
        "{status}"
    );
    assert!(
        hard.doctor().contains("mount -o remount,rw /sys/fs/bpf"),
        "{}",
        hard.doctor()
    );
    let second = node.add_pod("second");
    assert_eq!(second.add_stderr(), "", "it is said once");
    assert_eq!(cli::path(&node, &second).expect("status").0, "slow");

    cli::load(&node, &[]).expect("load");
    assert_eq!(cli::path(&node, &second).expect("status").0, "fast");
    assert_eq!(
        cli::path(&node, &node.add_pod("third")).expect("status").0,
        "fast"
    );
    hard.call("DEL", &attachment, &config).expect_error(&[999]);
    assert_only_loopback(&namespace);
    node.runtime()
        .del(&attachment, None)
        .expect("executed")
        .expect_success();
}

#[test]
fn without_a_bpffs_to_write_to_pods_that_must_be_fast_are_refused() {
    let (_topology, node) = fast_node();
    let config = node.config().mode("ebpf");
    config.install().expect("install");
    let (config, sandbox) = (config.stdin(), sandbox(&node));
    let hard = Hardship::among_mounts(&node, READ_ONLY);
    let message = hard.refuses(&sandbox, &config, &[999]);
    assert!(message.contains("/beeline/pods/maps-"), "{message}");
    let first = node.add_pod("first");
    let message = hard.refuses(&sandbox, &config, &[999]);
    assert!(message.contains("/beeline/pods/links/to_pod-"), "{message}");
    assert!(message.contains("Read-only file system"), "{message}");
    let second = node.add_pod("second");
    first.ping(second.ip(), 1).assert_received();
    assert_eq!(cli::path(&node, &second).expect("status").0, "fast");
}

#[test]
fn a_bpffs_that_becomes_read_only_keeps_new_pods_slow_and_a_del_is_finished_by_another() {
    let (_topology, node) = fast_node();
    let pins = Disk::of_pins_over(&node.bpffs_dir()).expect("mount");
    let config = node.config().stdin();
    let plugin = Hardship::by(&node, &[]);
    let [first, other] = ["first", "other"].map(|name| node.add_pod(name));
    let before = Snapshot::of(&node);
    pins.set_read_only(true).expect("remount");

    let second = node.add_pod("second");
    let (path, why) = cli::path(&node, &second).expect("status");
    assert_eq!(path, "slow");
    let why = why.expect("why");
    assert!(why.contains("Read-only file system"), "{why}");
    second.ping(other.ip(), 1).assert_received();
    first.ping(other.ip(), 1).assert_received();
    let text = cli::status_text(&node).expect("status");
    assert!(text.contains("problem: map PEERS"), "{text}");
    let doctor = plugin.doctor();
    assert!(doctor.contains("is mounted read-only"), "{doctor}");

    let message = plugin.call("DEL", first.attachment(), &config);
    let message = message.expect_error(&[999]);
    assert!(message.contains("Read-only file system"), "{message}");
    assert_only_loopback(first.namespace());
    assert!(!node.reserved().contains(&first.ip()));
    let insisting = node.config().mode("ebpf").stdin();
    let (namespace, attachment) = sandbox(&node);
    plugin
        .call("ADD", &attachment, &insisting)
        .expect_error(&[999]);
    assert_only_loopback(&namespace);

    pins.set_read_only(false).expect("remount");
    for pod in [first, second] {
        pod.delete().expect("DEL");
    }
    let after = node.add_pod("after");
    assert_eq!(cli::path(&node, &after).expect("status").0, "fast");
    after.delete().expect("DEL");
    let new = before.diff(&Snapshot::of(&node));
    assert!(!new.lines().any(|line| line.starts_with("+ pin")), "{new}");
}

#[test]
fn a_bpffs_that_is_not_mounted_is_mounted() {
    let (_topology, node) = fast_node();
    let hard = Hardship::among_mounts(&node, "umount --lazy /sys/fs/bpf");
    for mode in ["auto", "ebpf"] {
        let config = node.config().mode(mode).stdin();
        let (_namespace, attachment) = sandbox(&node);
        let added = hard.call("ADD", &attachment, &config);
        assert_eq!(added.stderr, "", "{mode}");
        added.expect_success();
        let record = std::fs::read_to_string(node.state_dir().join("pods/node.json"));
        assert!(
            record.expect("record").contains("\"degraded\":null"),
            "{mode}"
        );
        hard.status(&config).expect_success();
        hard.call("DEL", &attachment, &config).expect_success();
    }
}

#[test]
fn a_kernel_without_type_information_has_the_fast_path_all_the_same() {
    for mode in ["auto", "ebpf"] {
        let (_topology, node) = fast_node();
        let hard = Hardship::among_mounts(&node, NO_BTF);
        let config = node.config().mode(mode).stdin();
        let (_namespace, attachment) = sandbox(&node);
        let added = hard.call("ADD", &attachment, &config);
        assert_eq!(added.stderr, "", "{mode}");
        added.expect_success();
        let status = cli::status(&node).expect("status");
        assert_eq!(status["pods"][0]["path"], "fast", "{mode}: {status}");
        hard.call("DEL", &attachment, &config).expect_success();
    }
}
