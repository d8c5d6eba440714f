//! Disks that are full or read-only: an ADD leaves nothing on them, and DEL and GC go on.

use std::path::PathBuf;

use beeline_tests::mounts::Disk;

use super::*;
use crate::fixture::{fast_node, one_node};
use crate::refusals::sandbox;

/// Room for what a few pods need.
const KILOBYTES: u32 = 256;
const INODES: u32 = 256;

type Fill = fn(&Disk) -> anyhow::Result<()>;

/// No byte left, and no inode.
const FULL: [(Fill, &str); 2] = [
    (Disk::fill, "no space left on device"),
    (Disk::fill_inodes, "no inode left on device"),
];

/// Goes through a hardship of a disk and out of it, with a pod from before.
fn goes_on_when_full(directory: fn(&Node) -> PathBuf, key: &str) {
    for (fill, why) in FULL {
        let (_topology, node) = fast_node();
        let disk = Disk::over(&directory(&node), KILOBYTES, INODES).expect("mount");
        let (config, plugin) = (node.config().stdin(), Hardship::by(&node, &[]));
        node.config().version("1.1.0").install().expect("install");
        let first = node.add_pod("first");
        let second = node.add_pod("second");
        let sandbox = sandbox(&node);
        fill(&disk).expect("fill");

        let message = plugin.refuses(&sandbox, &config, &[999]);
        let path = directory(&node).display().to_string();
        assert!(message.contains(&path), "{message}");
        assert!(message.contains("No space left on device"), "{message}");
        let message = plugin.status(&config).expect_error(&[50]);
        assert!(message.contains(&format!("{key} {path}")), "{message}");
        assert!(message.contains(why), "{message}");

        first.ping(second.ip(), 1).assert_received();
        node.runtime()
            .gc(&[first.attachment()])
            .expect("executed")
            .expect_success();
        assert_eq!(node.reserved(), [first.ip()], "GC released the other");
        first.delete().expect("DEL");
        assert_eq!(node.reserved(), [] as [std::net::IpAddr; 0]);
        plugin.call("DEL", &sandbox.1, &config).expect_success();

        disk.empty().expect("make room");
        let after = node.add_pod("after");
        assert_eq!(
            beeline_tests::cli::path(&node, &after).expect("status").0,
            "fast"
        );
        plugin.status(&config).expect_success();
    }
}

#[test]
fn a_full_disk_of_addresses_refuses_pods_and_releases_them() {
    goes_on_when_full(Node::data_dir, "ipam.dataDir");
}

#[test]
fn a_full_disk_of_state_refuses_pods_and_forgets_them() {
    goes_on_when_full(Node::state_dir, "datapath.stateDir");
}

#[test]
fn a_disk_without_room_for_the_first_pod_leaves_a_new_node_as_it_was() {
    for (fill, _) in FULL {
        for directory in [Node::data_dir, Node::state_dir] {
            let (_topology, node) = one_node();
            let disk = Disk::over(&directory(&node), KILOBYTES, INODES).expect("mount");
            fill(&disk).expect("fill");
            let plugin = Hardship::by(&node, &[]);
            let message = plugin.refuses(&sandbox(&node), &node.config().stdin(), &[999]);
            assert!(message.contains("No space left on device"), "{message}");
            disk.empty().expect("make room");
            let _pod = node.add_pod("pod");
        }
    }
}

#[test]
fn read_only_addresses_refuse_pods_and_a_del_that_cannot_release_is_finished_by_another() {
    let (_topology, node) = fast_node();
    let disk = Disk::over(&node.data_dir(), KILOBYTES, INODES).expect("mount");
    let (config, plugin) = (node.config().stdin(), Hardship::by(&node, &[]));
    let before = Snapshot::of(&node);
    let first = node.add_pod("first");
    let sandbox = sandbox(&node);
    disk.set_read_only(true).expect("remount");

    let message = plugin.refuses(&sandbox, &config, &[999]);
    assert!(message.contains("Read-only file system"), "{message}");
    let message = plugin.status(&config).expect_error(&[50]);
    assert!(message.contains("ipam.dataDir"), "{message}");
    // It holds nothing that would have to be released.
    plugin.call("DEL", &sandbox.1, &config).expect_success();
    let message = plugin
        .call("DEL", first.attachment(), &config)
        .expect_error(&[999]);
    assert!(message.contains(&first.ip().to_string()), "{message}");
    assert_only_loopback(first.namespace());

    disk.set_read_only(false).expect("remount");
    first.delete().expect("DEL");
    assert_eq!(node.reserved(), [] as [std::net::IpAddr; 0]);
    node.add_pod("after").delete().expect("DEL");
    let left = before.diff(&Snapshot::of(&node));
    assert!(!left.contains("attachments/"), "{left}");
}

#[test]
fn read_only_state_refuses_pods_and_a_del_frees_all_that_is_not_of_it() {
    let (_topology, node) = fast_node();
    let disk = Disk::over(&node.state_dir(), KILOBYTES, INODES).expect("mount");
    let (config, plugin) = (node.config().stdin(), Hardship::by(&node, &[]));
    let first = node.add_pod("first");
    let sandbox = sandbox(&node);
    disk.set_read_only(true).expect("remount");

    let message = plugin.refuses(&sandbox, &config, &[999]);
    assert!(message.contains("attachments/"), "{message}");
    assert!(message.contains("Read-only file system"), "{message}");
    let message = plugin
        .call("DEL", first.attachment(), &config)
        .expect_error(&[999]);
    assert!(message.contains("attachments/"), "{message}");
    assert_only_loopback(first.namespace());
    assert_eq!(node.reserved(), [] as [std::net::IpAddr; 0]);

    disk.set_read_only(false).expect("remount");
    let left = Snapshot::of(&node).lines("file").join(" ");
    assert!(left.contains(first.name()), "{left}");
    let name = first.name().to_owned();
    first.delete().expect("DEL");
    let left = Snapshot::of(&node).lines("file").join(" ");
    assert!(!left.contains(&name), "{left}");
    let _after = node.add_pod("after");
}
