//! STATUS: whether an ADD would work, told without waiting for anybody.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use serde_json::{Value, json};

use super::Call;
use crate::fixture::{fast_node, one_node};
use crate::stub::Stub;

/// A STATUS of a configuration of 1.1.0, which is the first to have it.
fn status(node: &Arc<Node>) -> Call<'_> {
    let call = Call::new(node, "STATUS", &Attachment::new("", ""));
    call.without(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
        .change(|conf| conf["cniVersion"] = json!("1.1.0"))
}

#[test]
fn a_node_that_can_have_pods_says_nothing() {
    let (_topology, node) = one_node();
    let before = Snapshot::of(&node);
    assert_eq!(status(&node).run().expect_success(), Value::Null);
    before.assert_unchanged(&node);
    let _pod = node.add_pod("pod");
    assert_eq!(status(&node).run().expect_success(), Value::Null);
}

#[test]
fn a_range_without_a_free_address_is_code_50() {
    let (_topology, node) = one_node();
    let subnet = format!("{}/30", node.pod_cidr().network());
    let config = node
        .config()
        .with(|plugin| plugin["ipam"]["subnet"] = json!(subnet));
    config.install().expect("install");
    let call = status(&node).change(|conf| conf["ipam"]["subnet"] = json!(subnet));
    call.run().expect_success();
    let only = node.add_pod("only");
    let message = call.fails(&[50]);
    assert!(message.contains("no free address"), "{message}");
    only.delete().expect("DEL");
    call.run().expect_success();
}

#[test]
fn it_answers_while_others_hold_every_lock() {
    let (_topology, node) = one_node();
    let _pod = node.add_pod("pod");
    let locks = [
        node.data_dir().join("pods/lock"),
        node.state_dir().join("pods/lock"),
    ];
    let locks = locks.map(|path| File::open(path).expect("a lock"));
    for lock in &locks {
        lock.lock().expect("lock");
    }
    let (send, receive) = mpsc::channel();
    let answered = thread::scope(|scope| {
        scope.spawn(|| send.send(status(&node).run()));
        let answered = receive.recv_timeout(Duration::from_secs(60));
        // Lets it go, if it waits, so that this fails instead of hanging.
        locks.into_iter().for_each(drop);
        answered
    });
    answered
        .expect("an answer while the locks are held")
        .expect_success();
}

#[test]
fn a_fast_path_that_is_insisted_on_and_turned_off_is_code_51() {
    let (_topology, node) = fast_node();
    node.config().mode("ebpf").install().expect("install");
    let pod = node.add_pod("pod");
    let insisting = status(&node).change(|conf| conf["datapath"]["mode"] = json!("ebpf"));
    insisting.run().expect_success();
    let cli = |verb: &str| {
        let mut command = node.netns().command(node.plugin().path());
        command.arg(verb).arg("--state-dir").arg(node.state_dir());
        if verb == "load" {
            command.arg("--conf-dir").arg(node.conf_dir());
        }
        exec::stdout(&mut command).expect(verb)
    };
    cli("unload");
    let message = insisting.fails(&[51]);
    assert!(
        message.contains("beeline load"),
        "says what to do: {message}"
    );
    cli("load");
    insisting.run().expect_success();
    pod.check().expect("executed").expect_success();
}

#[test]
fn a_fast_path_that_is_insisted_on_and_has_no_place_is_code_51() {
    let (_topology, node) = fast_node();
    let nowhere = node.directory().join("no-bpffs");
    let call = |mode: &str| {
        status(&node).change(|conf| {
            conf["datapath"]["mode"] = json!(mode);
            conf["datapath"]["bpffsDir"] = json!(nowhere);
        })
    };
    let message = call("ebpf").fails(&[51]);
    assert!(message.contains("not on a bpffs"), "{message}");
    call("auto").run().expect_success();
}

#[test]
fn a_plain_bridge_where_that_is_allowed_is_no_failure_but_a_warning() {
    let (_topology, node) = fast_node();
    let nowhere = node.directory().join("no-bpffs");
    let config = node
        .config()
        .with(|plugin| plugin["datapath"]["bpffsDir"] = json!(nowhere));
    config.install().expect("install");
    let _pod = node.add_pod("pod");
    let call = status(&node).change(|conf| conf["datapath"]["bpffsDir"] = json!(nowhere));
    let outcome = call.run();
    assert!(outcome.is_success(), "{outcome}");
    assert!(outcome.stderr.contains("plain bridge"), "{outcome}");
    assert!(outcome.stderr.contains("not on a bpffs"), "{outcome}");
}

#[test]
fn a_delegated_plugin_is_asked_and_its_error_is_passed_on() {
    let (_topology, node) = one_node();
    let stub = Stub::new(&node, r#"echo '{"code":50,"msg":"no daemon"}'; exit 1"#);
    let call = status(&node).set("CNI_PATH", stub.search_path());
    let call = call.change(|conf| conf["ipam"] = json!({"type": stub.kind()}));
    let message = call.fails(&[50]);
    assert!(message.starts_with("no daemon"), "{message}");
    assert_eq!(stub.commands(), ["STATUS"]);
}
