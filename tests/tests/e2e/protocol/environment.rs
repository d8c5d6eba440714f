//! The variables of a call.

use std::io::Read as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use beeline_tests::runtime::Attachment;
use serde_json::{Value, json};

use super::{Call, VERSIONS};
use crate::fixture::one_node;
use crate::refusals::sandbox;

/// An attachment of which nothing is there.
fn nobody() -> Attachment {
    Attachment::new("pod", "/run/netns/bl-never-there")
}

#[test]
fn version_answers_while_standard_input_stays_open() {
    let (_topology, node) = one_node();
    let call = Call::new(&node, "VERSION", &nobody()).set("CNI_NETNS", "dummy");
    let mut child = call.start();
    let (send, receive) = mpsc::channel();
    let mut stdout = child.stdout.take().expect("standard output");
    thread::spawn(move || {
        let mut text = String::new();
        let _ = send.send(stdout.read_to_string(&mut text).map(|_| text));
    });
    let answer = receive.recv_timeout(Duration::from_secs(60));
    // Only now, which would end it if it waited.
    drop(child.stdin.take());
    let status = child.wait().expect("wait");
    let answer = answer
        .expect("an answer before the input ends")
        .expect("text");
    let document: Value = serde_json::from_str(&answer).expect("one document");
    assert!(status.success());
    let expected = json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS});
    assert_eq!(document, expected);
}

#[test]
fn without_a_command_it_says_what_it_is_on_standard_error() {
    let (_topology, node) = one_node();
    for call in [
        Call::new(&node, "", &nobody()),
        Call::new(&node, "", &nobody()).without(&["CNI_COMMAND"]),
    ] {
        let outcome = call.run();
        assert!(outcome.is_success(), "{outcome}");
        assert_eq!(outcome.stdout, Value::Null, "nothing for the runtime");
        assert!(outcome.stderr.contains("CNI plugin"), "{outcome}");
        for version in VERSIONS {
            assert!(outcome.stderr.contains(version), "{version}: {outcome}");
        }
    }
}

#[test]
fn commands_are_written_in_capitals() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for verb in ["add", "Add", "PAINT", " ADD"] {
        let message = Call::new(&node, verb, &attachment).is_refused(&[4]);
        let expected = format!("unknown CNI_COMMAND: {verb}");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn all_variables_that_are_missing_are_named_in_order() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let missing = ["CNI_PATH", "CNI_NETNS", "CNI_IFNAME"];
    let expected = "required env variables [CNI_NETNS,CNI_IFNAME,CNI_PATH] missing: ";
    let add = Call::new(&node, "ADD", &attachment);
    assert_eq!(add.clone().without(&missing).is_refused(&[4]), expected);
    let empty = missing
        .into_iter()
        .fold(add, |call, name| call.set(name, ""));
    assert_eq!(empty.is_refused(&[4]), expected, "empty is missing");
    for (verb, expected) in [
        ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
    ] {
        let call = Call::new(&node, verb, &attachment);
        let message = call
            .without(&[&missing[..], &["CNI_CONTAINERID"]].concat())
            .fails(&[4]);
        let expected = format!("required env variables [{expected}] missing: ");
        assert_eq!(message, expected, "{verb}");
    }
}

#[test]
fn container_ids_that_are_no_names_are_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for verb in ["ADD", "DEL", "CHECK"] {
        for id in ["../x", "-a", "a%b", "a\n", ".", "a/b", "a b", "ä"] {
            let call = Call::new(&node, verb, &attachment).set("CNI_CONTAINERID", id);
            let message = call.is_refused(&[4]);
            assert!(message.starts_with("CNI_CONTAINERID"), "{message}");
        }
    }
}

#[test]
fn interface_names_that_the_kernel_cannot_have_are_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for ifname in [
        "sixteen_bytes_xx",
        ".",
        "..",
        "a/b",
        "a:b",
        "a b",
        "a\tb",
        // The kernel would put a number for it.
        "eth%d",
    ] {
        let call = Call::new(&node, "ADD", &attachment).set("CNI_IFNAME", ifname);
        let message = call.is_refused(&[4]);
        assert!(message.starts_with("CNI_IFNAME"), "{message}");
    }
}

#[test]
fn an_interface_name_of_fifteen_bytes_is_taken() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let attachment = Attachment {
        ifname: "fifteen_bytes_x".to_owned(),
        ..attachment
    };
    let result = Call::new(&node, "ADD", &attachment).run().expect_success();
    assert_eq!(result["interfaces"][2]["name"], "fifteen_bytes_x");
    Call::new(&node, "DEL", &attachment).run().expect_success();
}

#[test]
fn an_invalid_variable_is_told_before_a_missing_one_and_both_before_the_input_is_read() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, "ADD", &attachment).stdin("no JSON");
    let invalid = call.clone().set("CNI_IFNAME", "a/b");
    let message = invalid.without(&["CNI_NETNS"]).fails(&[4]);
    assert!(message.starts_with("CNI_IFNAME"), "{message}");
    let message = call.without(&["CNI_NETNS"]).fails(&[4]);
    assert!(message.contains("[CNI_NETNS] missing"), "{message}");
}

#[test]
fn arguments_that_nobody_knows_are_refused_unless_they_shall_be_ignored() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let with = |arguments: &str| Call::new(&node, "ADD", &attachment).set("CNI_ARGS", arguments);
    let kubernetes = "K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default";
    for unknown in [kubernetes, "mac=02:00:00:00:00:01", "IgnoreUnknown=0;A=b"] {
        let message = with(unknown).is_refused(&[4]);
        assert!(message.contains("ARGS: unknown args"), "{message}");
    }
    for ignored in [
        format!("IgnoreUnknown=1;{kubernetes}"),
        format!("{kubernetes};IgnoreUnknown=true"),
        "K8S_POD_UID=1;IgnoreUnknown=True;K8S_POD_NAME=web-0".to_owned(),
    ] {
        with(&ignored).run().expect_success();
        Call::new(&node, "DEL", &attachment).run().expect_success();
    }
}

#[test]
fn arguments_that_are_no_pairs_are_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for arguments in ["A", "A=b=c", "A=b;", "IgnoreUnknown=1;A", ";"] {
        let call = Call::new(&node, "ADD", &attachment).set("CNI_ARGS", arguments);
        let message = call.is_refused(&[4]);
        assert!(message.contains("ARGS: invalid pair"), "{message}");
    }
}
