//! GC: the list of attachments that the runtime knows, and what becomes of the others.

use std::fs;

use beeline_tests::exec;
use beeline_tests::inject::{Fault, Injection};
use beeline_tests::outcome::Outcome;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use serde_json::{Value, json};

use super::Call;
use crate::fixture::one_node;
use crate::stub::Stub;

/// The key that runtimes put the list under.
const LIST: &str = "cni.dev/valid-attachments";

/// A GC of a configuration of 1.1.0, which is the first to have it; no list yet.
fn gc<'a>(node: &'a std::sync::Arc<beeline_tests::node::Node>) -> Call<'a> {
    let call = Call::new(node, "GC", &Attachment::new("", ""));
    call.without(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
        .change(|conf| conf["cniVersion"] = json!("1.1.0"))
}

fn listing(attachments: &[&Attachment]) -> Value {
    let listed = attachments.iter();
    listed
        .map(|one| json!({"containerID": one.container_id, "ifname": one.ifname}))
        .collect()
}

#[test]
fn without_a_list_nothing_is_deleted_and_a_warning_says_so() {
    let (_topology, node) = one_node();
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    let before = Snapshot::of(&node);
    let outcome = gc(&node).run();
    assert!(outcome.is_success(), "{outcome}");
    assert!(outcome.stderr.contains(LIST), "{outcome}");
    // Their other name for it does not count.
    let other = gc(&node).change(|conf| conf["cni.dev/attachments"] = json!([]));
    other.run().expect_success();
    before.assert_unchanged(&node);
    one.ping(two.ip(), 1).assert_received();
}

#[test]
fn an_empty_list_and_a_null_remove_everything() {
    let (_topology, node) = one_node();
    let checking = node
        .config()
        .with(|plugin| plugin["macspoofchk"] = json!(true));
    checking.install().expect("install");
    // The table of all checks stays, as with the reference plugin.
    drop(node.add_pod("first"));
    let before = Snapshot::of(&node);
    for nothing in [json!([]), json!(null)] {
        let pods = [node.add_pod("one"), node.add_pod("two")];
        // Its container is long forgotten, as after a reboot.
        let leaked = node.data_dir().join("pods/10.244.1.200");
        fs::write(&leaked, "gone\r\neth0").expect("write");
        let collect = gc(&node).change(|conf| conf[LIST] = nothing.clone());
        collect.run().expect_success();
        before.assert_unchanged(&node);
        for pod in &pods {
            let links = pod.namespace().command("ip").args(["-o", "link"]).output();
            let links = String::from_utf8(links.expect("ip").stdout).expect("text");
            assert_eq!(links.lines().count(), 1, "only lo: {links}");
        }
    }
}

#[test]
fn what_is_listed_stays_and_what_is_not_goes_with_its_rules() {
    let (_topology, node) = one_node();
    let checking = node
        .config()
        .with(|plugin| plugin["macspoofchk"] = json!(true));
    checking.install().expect("install");
    let (kept, other) = (node.add_pod("kept"), node.add_pod("other"));
    let before = Snapshot::of(&node);
    let _stale = node.add_pod("stale");
    let second = Attachment {
        ifname: "net1".to_owned(),
        ..kept.attachment().clone()
    };
    let config = checking.stdin();
    let add = Call::new(&node, "ADD", &second).config(&config);
    // A container has one default route.
    add.change(|conf| conf["ipam"]["routes"] = json!([]))
        .run()
        .expect_success();
    let list = listing(&[kept.attachment(), other.attachment()]);
    let collect = gc(&node).change(|conf| conf[LIST] = list);
    collect.run().expect_success();
    before.assert_unchanged(&node);
    kept.ping(other.ip(), 1).assert_received();
    kept.check().expect("executed").expect_success();
}

#[test]
fn it_goes_on_after_a_failure_and_tells_it() {
    let (_topology, node) = one_node();
    let kept = node.add_pod("kept");
    let before = Snapshot::of(&node);
    let _stale = [node.add_pod("one"), node.add_pod("two")];
    let list = listing(&[kept.attachment()]);
    let collect = gc(&node).change(|conf| conf[LIST] = list);
    let hosts = || {
        exec::stdout(
            node.netns()
                .command("ip")
                .args(["-o", "link", "show", "type", "veth"]),
        )
    };
    let count = || hosts().expect("ip").matches(": veth").count();
    assert_eq!(count(), 3);
    // Of the two that are stale, the first is not found: before, it is looked for the bridge.
    let injection = Injection::at(Fault::Refuse, 2).only("RTM_GETLINK");
    let faulty = collect.inject(&injection);
    assert!(faulty.step.is_some(), "{}", faulty.outcome);
    let message = faulty.outcome.expect_error(&[999]);
    assert!(message.contains("not supported"), "{message}");
    assert_eq!(count(), 2, "the second is gone all the same");
    assert_eq!(node.reserved().len(), 1, "and so are the addresses");
    collect.run().expect_success();
    before.assert_unchanged(&node);
}

#[test]
fn a_delegated_plugin_is_asked_too_and_its_error_is_passed_on() {
    let (_topology, node) = one_node();
    let stub = Stub::new(
        &node,
        r#"case $CNI_COMMAND in
        ADD) echo '{"cniVersion":"1.1.0","ips":[{"address":"10.99.0.5/24","gateway":"10.99.0.1"}]}';;
        GC) echo '{"code":117,"msg":"no way"}'; exit 1;;
        esac"#,
    );
    let (_namespace, attachment) = crate::refusals::sandbox(&node);
    let with_stub = |call: Call<'_>| -> Outcome {
        let call = call.set("CNI_PATH", stub.search_path());
        call.change(|conf| {
            conf["cniVersion"] = json!("1.1.0");
            conf["ipam"] = json!({"type": stub.kind()});
            // The bridge has another gateway.
            conf["isGateway"] = json!(false);
        })
        .run()
    };
    let first = node.add_pod("first");
    let before = Snapshot::of(&node);
    with_stub(Call::new(&node, "ADD", &attachment)).expect_success();
    let first = listing(&[first.attachment()]);
    let collect = gc(&node).change(|conf| conf[LIST] = first.clone());
    let message = with_stub(collect).expect_error(&[117]);
    assert!(message.starts_with("no way"), "{message}");
    assert_eq!(
        stub.commands(),
        ["ADD", "GC"],
        "GC is about no attachment, so no DEL"
    );
    assert_eq!(stub.configuration()[LIST], first, "it has the list too");
    // The network's own rules are of this configuration by now.
    let after = Snapshot::of(&node);
    for kind in ["link", "file", "pin"] {
        assert_eq!(before.lines(kind), after.lines(kind), "{kind}");
    }
}
