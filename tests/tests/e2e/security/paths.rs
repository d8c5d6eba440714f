//! Paths in configurations, what is on them, and what is made there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use beeline_tests::exec;
use beeline_tests::netns;
use beeline_tests::runtime::Attachment;
use beeline_tests::sweep;
use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::fixture::{fast_node, one_node};
use crate::protocol::Call;
use crate::refusals::sandbox;

/// A network name that no file system has.
const NETWORK: &str = "bl-security-never";

#[test]
fn state_is_kept_only_where_a_reboot_empties_it() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for directory in [
        "/",
        "/etc",
        "/run",
        "/run/../etc",
        "/tmp/x",
        "/running",
        "run",
        "",
    ] {
        let call = Call::new(&node, "ADD", &attachment).change(|conf| {
            conf["name"] = json!(NETWORK);
            conf["datapath"]["stateDir"] = json!(directory);
        });
        let message = call.is_refused(&[7]);
        assert!(message.contains("datapath.stateDir"), "{message}");
        // No ADD can have put anything there.
        call.set("CNI_COMMAND", "DEL").run().expect_success();
        let made = Path::new("/").join(directory).join(NETWORK);
        assert!(!made.exists(), "{}", made.display());
    }
}

#[test]
fn state_is_not_kept_where_others_could_replace_it() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let victim = node.directory().join("victim");
    let (open, theirs) = (
        node.directory().join("open"),
        node.directory().join("theirs"),
    );
    for directory in [&victim, &open, &theirs] {
        fs::create_dir(directory).expect("create");
    }
    fs::set_permissions(&open, Permissions::from_mode(0o1777)).expect("chmod");
    std::os::unix::fs::chown(&theirs, Some(65534), None).expect("chown");
    let link = node.directory().join("link");
    symlink(&victim, &link).expect("link");
    for (directory, why) in [
        (link, "is no directory"),
        (open, "others can write"),
        (theirs, "belongs to user 65534"),
    ] {
        for below in [directory.clone(), directory.join("below")] {
            let call = Call::new(&node, "ADD", &attachment);
            let call = call.change(|conf| conf["datapath"]["stateDir"] = json!(below));
            let message = call.is_refused(&[999]);
            assert!(message.contains(why), "{message}");
        }
        let made: Vec<_> = fs::read_dir(&directory).expect("read").collect();
        assert!(made.is_empty(), "{}: {made:?}", directory.display());
    }
}

#[test]
fn what_is_not_ours_stays_when_a_set_up_is_taken_back() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    // The name of the network and the directory of state together name something else.
    let victim = node.state_dir().join("victim");
    fs::create_dir_all(victim.join("data")).expect("create");
    let files = [victim.join("important"), victim.join("data/important")];
    for file in &files {
        fs::write(file, "x").expect("write");
    }
    exec::ip_batch(node.netns(), &["link add taken type veth".to_owned()]).expect("ip");
    let call = Call::new(&node, "ADD", &attachment).change(|conf| {
        conf["name"] = json!("victim");
        conf["bridge"] = json!("taken");
    });
    call.fails(&[7]);
    for file in &files {
        assert!(file.exists(), "{}", file.display());
    }
}

#[test]
fn pins_are_kept_only_on_a_bpffs() {
    let (_topology, node) = fast_node();
    let (_namespace, attachment) = sandbox(&node);
    let elsewhere = node.directory().join("elsewhere");
    for (directory, code) in [
        (elsewhere, 999),
        (PathBuf::from("/sys/fs/bpf/../../../etc"), 7),
        (PathBuf::from("bpf"), 7),
    ] {
        let call = Call::new(&node, "ADD", &attachment).change(|conf| {
            conf["datapath"]["mode"] = json!("ebpf");
            conf["datapath"]["bpffsDir"] = json!(directory);
        });
        call.is_refused(&[code]);
        assert!(!directory.join("beeline").exists());
    }
}

#[test]
fn state_pins_and_addresses_are_for_root_alone() {
    let (_topology, node) = fast_node();
    let _pod = node.add_pod("pod");
    let state = node.state_dir().join("pods");
    let pins = node.bpffs_dir().join("beeline");
    assert!(!sweep::walk(&pins).is_empty(), "the fast path is pinned");
    for root in [&state, &pins] {
        for file in sweep::walk(root) {
            let mode = fs::symlink_metadata(&file).expect("stat").mode() & 0o7777;
            assert_eq!(mode, 0o600, "{}", file.display());
            for directory in file.ancestors().take_while(|path| path.starts_with(root)) {
                if directory.is_dir() {
                    let mode = fs::symlink_metadata(directory).expect("stat").mode() & 0o7777;
                    assert_eq!(mode, 0o700, "{}", directory.display());
                }
            }
        }
    }
    for address in node.reserved() {
        let file = node.data_dir().join("pods").join(address.to_string());
        let mode = fs::metadata(&file).expect("stat").mode() & 0o7777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[test]
fn a_collection_touches_no_namespace_that_has_come_to_a_pods_path() {
    let (_topology, node) = one_node();
    let (namespace, attachment) = sandbox(&node);
    let result = Call::new(&node, "ADD", &attachment).run().expect_success();
    let host_veth = result["interfaces"][1]["name"].as_str().expect("a name");
    // The pod is gone, and its path leads to the node itself by now, whose uplink is an eth0 too.
    exec::ip_batch(node.netns(), &[format!("link del {host_veth}")]).expect("ip");
    let path = namespace.path();
    netns::remove(namespace.name()).expect("remove");
    fs::write(&path, "").expect("write");
    let own = node.netns().path();
    mount(
        Some(&own),
        &path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .expect("bind");
    let collect = Call::new(&node, "GC", &Attachment::new("", ""));
    let collect = collect.change(|conf| {
        conf["cniVersion"] = json!("1.1.0");
        conf["cni.dev/valid-attachments"] = json!([]);
    });
    collect.run().expect_success();
    let mut show = node.netns().command("ip");
    exec::stdout(show.args(["link", "show", "eth0"])).expect("the uplink is there");
    assert_eq!(node.reserved(), [] as [std::net::IpAddr; 0]);
}
