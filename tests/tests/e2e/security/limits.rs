//! Sizes and depths.

use std::fs;
use std::path::Path;

use beeline_tests::skip::skip;
use beeline_tests::topology::Plugin;
use serde_json::{Value, json};

use super::assert_no_panic;
use crate::fixture::one_node;
use crate::protocol::Call;
use crate::refusals::sandbox;

/// The most that standard input may have, in bytes.
const MAX_INPUT: usize = 4 << 20;

/// The most that the program may have, in bytes.
const MAX_PROGRAM: u64 = 8 << 20;

#[test]
fn an_input_without_an_end_is_not_read_to_it() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let config = node.config().stdin().to_string();
    let padded = |length: usize| config.clone() + &" ".repeat(length - config.len());
    for verb in ["ADD", "DEL"] {
        let call = Call::new(&node, verb, &attachment).stdin(padded(MAX_INPUT + 1));
        let message = call.is_refused(&[6]);
        assert!(message.contains("more than 4194304 bytes"), "{message}");
    }
    let call = Call::new(&node, "ADD", &attachment).stdin(padded(MAX_INPUT));
    call.run().expect_success();
    Call::new(&node, "DEL", &attachment).run().expect_success();
}

#[test]
fn json_that_is_nested_too_deep_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let config = node.config().stdin().to_string();
    let body = config.strip_prefix('{').expect("object");
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 100_000] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let call = Call::new(&node, "ADD", &attachment);
            let call = call.stdin(format!("{{\"unknown\":{nested},{body}"));
            call.is_refused(&[6]);
        }
    }
}

#[test]
fn names_that_are_too_long_are_an_error_and_no_panic() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let add = Call::new(&node, "ADD", &attachment);
    for length in [240, 300, 70_000] {
        let long = "a".repeat(length);
        add.clone()
            .change(|conf| conf["name"] = json!(long))
            .is_refused(&[7]);
        add.clone()
            .change(|conf| conf["bridge"] = json!(long))
            .is_refused(&[7]);
        add.clone().set("CNI_CONTAINERID", &*long).is_refused(&[4]);
        add.clone().set("CNI_IFNAME", &*long).is_refused(&[4]);
    }
    // The longest that are taken.
    let longest = "a".repeat(239);
    let call = add.clone().set("CNI_CONTAINERID", &*longest);
    let call = call.change(|conf| conf["macspoofchk"] = json!(true));
    let result = call.run().expect_success();
    for verb in ["DEL", "DEL"] {
        call.clone().set("CNI_COMMAND", verb).run().expect_success();
    }
    for name in ["a".repeat(70_000), "a\0b".to_owned(), String::new()] {
        // DEL does not check what it can do without.
        let delete = add.clone().set("CNI_COMMAND", "DEL");
        let delete = delete.change(|conf| conf["bridge"] = json!(name));
        let outcome = delete.run();
        assert_no_panic(&outcome);
        outcome.expect_success();
        let mut previous = result.clone();
        previous["interfaces"][1] = json!({"name": name});
        let check = add.clone().set("CNI_COMMAND", "CHECK");
        let outcome = check.change(|conf| conf["prevResult"] = previous).run();
        assert_no_panic(&outcome);
        assert!(!outcome.is_success(), "{outcome}");
    }
}

#[test]
fn odd_values_of_every_key_are_an_error_and_no_panic() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let odd = [
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!("\u{0}\u{1b}[31m\u{202e}"),
        json!("x".repeat(10_000)),
        json!([[[]]]),
        json!({"type": {"type": []}}),
    ];
    let keys = [
        "/bridge",
        "/mtu",
        "/vlan",
        "/ipMasqBackend",
        "/runtimeConfig",
        "/args",
        "/dns",
        "/ipam",
        "/ipam/type",
        "/ipam/subnet",
        "/ipam/routes",
        "/ipam/ranges",
        "/datapath",
        "/datapath/mode",
        "/datapath/uplinks",
        "/datapath/peers",
        "/datapath/stateDir",
        "/datapath/bpffsDir",
        "/datapath/maxFlows",
        "/datapath/overlay",
    ];
    let whole = node.config().stdin();
    for key in keys {
        for value in &odd {
            let mut conf = whole.clone();
            set(&mut conf, key, value.clone());
            let call = Call::new(&node, "ADD", &attachment).config(&conf);
            let outcome = call.run();
            assert_no_panic(&outcome);
            if outcome.is_success() {
                // Empty lists are none.
                call.set("CNI_COMMAND", "DEL").run().expect_success();
            } else {
                assert!(outcome.stdout["code"].is_u64(), "{key} {value}: {outcome}");
            }
        }
    }
    assert_eq!(node.reserved(), [] as [std::net::IpAddr; 0]);
}

/// Puts a value at a path of keys.
fn set(conf: &mut Value, path: &str, value: Value) {
    let place = path
        .split('/')
        .skip(1)
        .fold(conf, |place, key| &mut place[key]);
    *place = value;
}

#[test]
fn the_release_build_has_less_than_eight_mebibytes() {
    let plugin = Plugin::from_env().expect("plugin");
    let path: &Path = plugin.path();
    if !path
        .parent()
        .is_some_and(|folder| folder.ends_with("release"))
    {
        return skip("BEELINE_BIN is no release build");
    }
    let bytes = fs::metadata(path).expect("plugin").len();
    assert!(bytes < MAX_PROGRAM, "{}: {bytes} bytes", path.display());
}
