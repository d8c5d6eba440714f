//! What is on standard input: that it is JSON as Go reads it, and the keys that every plugin has.

use std::io::{Read as _, Write as _};

use beeline_tests::exec;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use serde_json::{Value, json};

use super::Call;
use crate::fixture::one_node;
use crate::refusals::sandbox;

/// A link of a namespace as `ip` shows it.
fn link(namespace: &Namespace, name: &str) -> Value {
    let mut show = namespace.command("ip");
    let links: Vec<Value> =
        exec::json(show.args(["-json", "address", "show", "dev", name])).expect("ip");
    links.into_iter().next().expect(name)
}

/// The configuration of a node as text, to be taken apart.
fn text(node: &Node, change: impl FnOnce(&mut Value)) -> String {
    node.config().with(change).stdin().to_string()
}

#[test]
fn what_is_not_exactly_one_json_document_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let whole = text(&node, |_| ());
    let truncated = &whole[..whole.len() - 1];
    for stdin in ["", " \n", "{", "{}x", "{}{}", "[]", "\"{}\"", truncated] {
        for verb in ["ADD", "DEL"] {
            Call::new(&node, verb, &attachment)
                .stdin(stdin)
                .is_refused(&[6]);
        }
    }
    let trailing = format!("{whole}x");
    Call::new(&node, "ADD", &attachment)
        .stdin(trailing)
        .is_refused(&[6]);
}

#[test]
fn a_network_without_a_proper_name_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for name in [
        json!(null),
        json!(""),
        json!("te%%st"),
        json!("../x"),
        json!("-x"),
    ] {
        let call = Call::new(&node, "ADD", &attachment);
        let message = call.change(|conf| conf["name"] = name).is_refused(&[7]);
        assert!(message.starts_with("name"), "{message}");
    }
    let nameless = |conf: &mut Value| drop(conf.as_object_mut().expect("object").remove("name"));
    let call = Call::new(&node, "ADD", &attachment).change(nameless);
    assert_eq!(call.is_refused(&[7]), "name: missing network name: ");
}

#[test]
fn the_name_is_looked_at_before_the_version_and_the_version_before_other_keys() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, "ADD", &attachment);
    let call = call.change(|conf| {
        conf["cniVersion"] = json!("9.9.9");
        conf["mtu"] = json!("1500");
    });
    let nameless = call.clone().change(|conf| conf["name"] = json!("../x"));
    nameless.is_refused(&[7]);
    call.is_refused(&[1]);
}

#[test]
fn a_version_that_is_not_supported_is_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for version in ["9.9.9", "1.2.0", "0.0.1", "1.0", "latest"] {
        let call = Call::new(&node, "ADD", &attachment);
        let call = call.change(|conf| conf["cniVersion"] = json!(version));
        let message = call.is_refused(&[1]);
        assert!(
            message.starts_with("incompatible CNI versions"),
            "{message}"
        );
        assert!(message.contains(version), "{message}");
    }
}

#[test]
fn verbs_are_refused_in_versions_that_do_not_have_them() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for (verb, version) in [
        ("CHECK", "0.3.1"),
        ("CHECK", ""),
        ("GC", "1.0.0"),
        ("STATUS", "1.0.0"),
        ("STATUS", "0.4.0"),
    ] {
        let call = Call::new(&node, verb, &attachment);
        let call = call.change(|conf| conf["cniVersion"] = json!(version));
        let message = call.is_refused(&[1]);
        let expected = format!("config version does not allow {verb}");
        assert!(message.contains(&expected), "{message}");
    }
    // These three compare the version before they look whether it is supported.
    for verb in ["CHECK", "GC", "STATUS"] {
        let call = Call::new(&node, verb, &attachment);
        let call = call.change(|conf| conf["cniVersion"] = json!("latest"));
        call.is_refused(&[6]);
    }
}

#[test]
fn a_configuration_that_comes_byte_by_byte_is_read_to_its_end() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let mut child = Call::new(&node, "ADD", &attachment).start();
    let mut stdin = child.stdin.take().expect("standard input");
    for byte in text(&node, |_| ()).bytes() {
        stdin.write_all(&[byte]).expect("write");
    }
    drop(stdin);
    let mut answer = String::new();
    let mut stdout = child.stdout.take().expect("standard output");
    stdout.read_to_string(&mut answer).expect("read");
    assert!(child.wait().expect("wait").success(), "{answer}");
    let result: Value = serde_json::from_str(&answer).expect("one document");
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    Call::new(&node, "DEL", &attachment).run().expect_success();
}

#[test]
fn a_mebibyte_of_unknown_keys_is_passed_over() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let call = Call::new(&node, "ADD", &attachment).change(|conf| {
        for key in 0..1024 {
            conf[format!("unknown{key}")] = json!({"nested": ["x".repeat(1024)]});
        }
        conf["ipam"]["unknown"] = json!([null, 1.5, {"deep": true}]);
    });
    assert!(call.stdin.len() > 1 << 20);
    call.run().expect_success();
    Call::new(&node, "DEL", &attachment).run().expect_success();
}

#[test]
fn keys_are_read_in_any_case_at_any_depth() {
    let (_topology, node) = one_node();
    let (namespace, attachment) = sandbox(&node);
    let subnet = "10.244.77.0/24";
    let mut conf = node.config().stdin();
    conf["ISGATEWAY"] = json!(true);
    conf["MTU"] = json!(1400);
    conf["IPAM"] = json!({
        "Type": "host-local",
        "DataDir": node.data_dir(),
        "Ranges": [[{"Subnet": subnet, "RangeStart": "10.244.77.9", "GATEWAY": "10.244.77.254"}]],
    });
    conf["DataPath"] = conf["datapath"].take();
    for key in ["isGateway", "ipam", "datapath"] {
        conf.as_object_mut().expect("object").remove(key);
    }
    let call = Call::new(&node, "ADD", &attachment).config(&conf);
    let result = call.run().expect_success();
    let ip = json!({"interface": 2, "address": "10.244.77.9/24", "gateway": "10.244.77.254"});
    assert_eq!(result["ips"], json!([ip]));
    let bridge = link(node.netns(), "v-net-0").to_string();
    assert!(bridge.contains("10.244.77.254"), "{bridge}");
    assert_eq!(link(&namespace, "eth0")["mtu"], 1400);
    let delete = Call::new(&node, "DEL", &attachment).config(&conf);
    delete.run().expect_success();
    assert_eq!(node.reserved(), [] as [std::net::IpAddr; 0]);
}

#[test]
fn the_last_of_several_keys_wins_and_null_leaves_the_default() {
    let (_topology, node) = one_node();
    let (namespace, attachment) = sandbox(&node);
    let whole = text(&node, |_| ());
    let body = whole.strip_prefix('{').expect("object");
    for (first, mtu) in [
        // What comes later is in the way of what comes first.
        (r#"{"mtu":1300,"MTU":1301,"Mtu":1302,"#, 1302),
        (r#"{"mtu":1300,"mtu":null,"#, 1300),
        (
            r#"{"mtu":null,"vlan":null,"dns":null,"runtimeConfig":null,"#,
            1500,
        ),
    ] {
        let call = Call::new(&node, "ADD", &attachment).stdin(format!("{first}{body}"));
        call.run().expect_success();
        assert_eq!(link(&namespace, "eth0")["mtu"], mtu, "{first}");
        Call::new(&node, "DEL", &attachment).run().expect_success();
    }
}

#[test]
fn numbers_are_no_texts_and_no_fractions() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for mtu in [
        json!("1500"),
        json!(1500.0),
        json!(1.5e3),
        json!([1500]),
        json!(true),
    ] {
        let call = Call::new(&node, "ADD", &attachment);
        let message = call.change(|conf| conf["mtu"] = mtu).is_refused(&[6]);
        assert!(message.contains("mtu"), "{message}");
    }
}
