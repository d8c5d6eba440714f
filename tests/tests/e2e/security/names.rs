//! Names that mean something to a shell, to nft, to a terminal or to the kernel.

use beeline_tests::exec;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use serde_json::json;

use super::{assert_no_panic, ruleset};
use crate::fixture::one_node;
use crate::protocol::Call;
use crate::refusals::sandbox;

/// The kernel takes all of these for an interface.
const ODD: [&str; 9] = [
    "a;reboot", "$(id)", "`id`", "a}b{c", "a\"b", "a'b", "@a#b*", "-rf", "é→ü",
];

#[test]
fn odd_names_of_interfaces_are_names_and_nothing_else() {
    let (_topology, node) = one_node();
    let _first = node.add_pod("first");
    let checking = |verb: &str, attachment: &Attachment| {
        let call = Call::new(&node, verb, attachment);
        call.change(|conf| conf["macspoofchk"] = json!(true))
    };
    // The table of all checks of MACs stays, as with the reference plugin.
    let (namespace, attachment) = sandbox(&node);
    for verb in ["ADD", "DEL"] {
        checking(verb, &attachment).run().expect_success();
    }
    drop(namespace);
    let before = Snapshot::of(&node);
    for name in ODD {
        let (namespace, attachment) = sandbox(&node);
        let attachment = Attachment {
            ifname: name.to_owned(),
            ..attachment
        };
        let call = checking("ADD", &attachment);
        let result = call.run().expect_success();
        assert_eq!(result["interfaces"][2]["name"], name);
        let mut show = namespace.command("ip");
        exec::stdout(show.args(["link", "show", "dev", name])).expect(name);
        // What an administrator saves can be loaded again.
        exec::nft(node.netns(), &format!("flush ruleset\n{}", ruleset(&node))).expect(name);
        let check = call.clone().set("CNI_COMMAND", "CHECK");
        check
            .change(|conf| conf["prevResult"] = result)
            .run()
            .expect_success();
        call.set("CNI_COMMAND", "DEL").run().expect_success();
        before.assert_unchanged(&node);
    }
}

#[test]
fn odd_names_of_bridges_are_names_and_nothing_else() {
    let (_topology, node) = one_node();
    for name in ODD {
        let (_namespace, attachment) = sandbox(&node);
        let call = Call::new(&node, "ADD", &attachment).change(|conf| {
            conf["bridge"] = json!(name);
            conf["promiscMode"] = json!(true);
        });
        let result = call.run().expect_success();
        assert_eq!(result["interfaces"][0]["name"], name);
        call.set("CNI_COMMAND", "DEL").run().expect_success();
        // Both have the same gateway.
        let mut delete = node.netns().command("ip");
        exec::stdout(delete.args(["link", "del", "dev", name])).expect(name);
    }
}

#[test]
fn names_that_no_interface_can_have_are_refused_for_a_bridge() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a:b",
        "a b",
        "a\tb",
        "a\nb",
        "a\0b",
        "\u{1b}[31m",
        "cni%d",
        "sixteen_bytes_xx",
    ] {
        let call = Call::new(&node, "ADD", &attachment);
        let message = call
            .change(|conf| conf["bridge"] = json!(name))
            .is_refused(&[7]);
        assert!(message.starts_with("bridge"), "{message}");
    }
    // Directories of sysctls that are of no interface.
    for name in ["all", "default"] {
        let call = Call::new(&node, "ADD", &attachment);
        let call = call.change(|conf| conf["bridge"] = json!(name));
        let before = Snapshot::of(&node);
        let outcome = call.run();
        assert_no_panic(&outcome);
        assert!(!outcome.is_success(), "{outcome}");
        before.assert_unchanged(&node);
    }
}

#[test]
fn uplinks_that_are_no_interfaces_are_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for uplink in ["../eth0", "eth0;x y", "", "eth%d"] {
        let call = Call::new(&node, "ADD", &attachment);
        let call = call.change(|conf| conf["datapath"]["uplinks"] = json!([uplink]));
        let message = call.is_refused(&[7]);
        assert!(message.contains("datapath.uplinks"), "{message}");
    }
}

#[test]
fn what_is_no_name_of_a_pod_is_not_shown_as_one() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let status = || {
        let mut status = node.netns().command(node.plugin().path());
        status
            .arg("status")
            .arg("--state-dir")
            .arg(node.state_dir());
        exec::stdout(&mut status).expect("status")
    };
    for (name, shown) in [
        ("web-0", true),
        ("\u{1b}]0x\u{7}", false),
        ("a\nnetwork fake", false),
        ("../../etc", false),
    ] {
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}");
        let call = Call::new(&node, "ADD", &attachment).set("CNI_ARGS", arguments);
        call.run().expect_success();
        let text = status();
        assert_eq!(text.contains(&format!("default/{name}")), shown, "{text}");
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(control), "{text:?}");
        call.set("CNI_COMMAND", "DEL").run().expect_success();
    }
}
