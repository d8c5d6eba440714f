//! Results of ADD against the schema of each version.

use std::net::IpAddr;

use beeline_tests::exec;
use beeline_tests::plan::{Families, Family};
use serde_json::{Value, json};

use super::{Call, VERSIONS};
use crate::fixture::{nodes_with, one_node};
use crate::refusals::sandbox;

/// Puts a word for what is random: the MACs and the host veth's name.
fn mask(mut result: Value) -> Value {
    let interfaces = result.get_mut("interfaces").and_then(Value::as_array_mut);
    for interface in interfaces.into_iter().flatten() {
        let mac = interface["mac"].as_str().expect("a MAC");
        let octets: Vec<_> = mac.split(':').collect();
        let is_octet = |octet: &&str| octet.len() == 2 && u8::from_str_radix(octet, 16).is_ok();
        assert!(octets.len() == 6 && octets.iter().all(is_octet), "{mac}");
        interface["mac"] = json!("MAC");
        let name = interface["name"].as_str().expect("a name");
        if name.starts_with("veth") {
            interface["name"] = json!("HOST VETH");
        }
    }
    result
}

/// The third address of a CIDR with its prefix length, and the first, that of the gateway.
fn addresses(cidr: ipnetwork::IpNetwork, gateway: IpAddr) -> (String, String) {
    let text = gateway.to_string();
    let first = text.strip_suffix('1').expect("a gateway that ends in 1");
    (format!("{first}2/{}", cidr.prefix()), text)
}

/// What ADD shall answer in a version.
fn expected(version: &str, sandbox: &str, v4: (String, String), v6: (String, String)) -> Value {
    let dns = json!({"nameservers": ["192.0.2.53"], "domain": "example.com", "search": ["a.example", "b.example"], "options": ["ndots:5"]});
    let routes = |wanted: fn(&str) -> bool| -> Vec<Value> {
        let routes = [
            json!({"dst": "0.0.0.0/0"}),
            json!({"dst": "198.51.100.0/24", "gw": "10.244.1.1"}),
            json!({"dst": "::/0"}),
        ];
        let of_family = |route: &Value| wanted(route["dst"].as_str().unwrap_or_default());
        routes.into_iter().filter(of_family).collect()
    };
    let interfaces = json!([
        {"name": "v-net-0", "mac": "MAC"},
        {"name": "HOST VETH", "mac": "MAC"},
        {"name": "eth0", "mac": "MAC", "sandbox": sandbox},
    ]);
    match version {
        "0.1.0" | "0.2.0" => json!({
            "cniVersion": version,
            "ip4": {"ip": v4.0, "gateway": v4.1, "routes": routes(|dst| !dst.contains(':'))},
            "ip6": {"ip": v6.0, "gateway": v6.1, "routes": routes(|dst| dst.contains(':'))},
            "dns": dns,
        }),
        "0.3.0" | "0.3.1" | "0.4.0" => json!({
            "cniVersion": version,
            "interfaces": interfaces,
            "ips": [
                {"version": "4", "interface": 2, "address": v4.0, "gateway": v4.1},
                {"version": "6", "interface": 2, "address": v6.0, "gateway": v6.1},
            ],
            "routes": routes(|_| true),
            "dns": dns,
        }),
        _ => json!({
            "cniVersion": version,
            "interfaces": interfaces,
            "ips": [
                {"interface": 2, "address": v4.0, "gateway": v4.1},
                {"interface": 2, "address": v6.0, "gateway": v6.1},
            ],
            "routes": routes(|_| true),
            "dns": dns,
        }),
    }
}

#[test]
fn results_of_all_seven_versions_have_exactly_their_schemas() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let (namespace, attachment) = sandbox(&node);
    let netns = namespace.path().display().to_string();
    for version in VERSIONS {
        // Each version begins with a node that never had a pod.
        std::fs::remove_dir_all(node.data_dir()).expect("addresses: forget");
        let call = Call::new(&node, "ADD", &attachment).change(|conf| {
            conf["cniVersion"] = json!(version);
            conf["dns"] = json!({"nameservers": ["192.0.2.53"], "domain": "example.com",
                "search": ["a.example", "b.example"], "options": ["ndots:5"]});
            let routes = conf["ipam"]["routes"].as_array_mut().expect("routes");
            routes.insert(1, json!({"dst": "198.51.100.0/24", "gw": "10.244.1.1"}));
        });
        let result = call.run().expect_success();
        let [v4, v6] = [(0, Family::V4), (1, Family::V6)]
            .map(|(at, family)| addresses(node.pod_cidrs()[at], node.gateway_of(family)));
        assert_eq!(mask(result), expected(version, &netns, v4, v6), "{version}");
        let delete = call.set("CNI_COMMAND", "DEL").run().expect_success();
        assert_eq!(delete, Value::Null, "DEL says nothing");
    }
}

#[test]
fn empty_name_resolution_is_written_before_1_0_0_only() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for version in VERSIONS {
        let call =
            Call::new(&node, "ADD", &attachment).change(|conf| conf["cniVersion"] = json!(version));
        let result = call.run().expect_success();
        let dns = (!version.starts_with('1')).then(|| json!({}));
        assert_eq!(result.get("dns"), dns.as_ref(), "{version}");
        call.set("CNI_COMMAND", "DEL").run().expect_success();
    }
}

#[test]
fn a_configuration_without_a_version_is_of_0_1_0() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let add = Call::new(&node, "ADD", &attachment);
    let absent =
        |conf: &mut Value| drop(conf.as_object_mut().map(|conf| conf.remove("cniVersion")));
    for call in [
        add.clone().change(absent),
        add.change(|conf| conf["cniVersion"] = json!("")),
    ] {
        let result = call.run().expect_success();
        assert_eq!(result["cniVersion"], "0.1.0");
        assert!(result["ip4"]["ip"].is_string(), "{result}");
        call.set("CNI_COMMAND", "DEL").run().expect_success();
    }
}

#[test]
fn a_result_without_addresses_cannot_be_told_before_0_3_0_and_nothing_is_made() {
    let (_topology, node) = one_node();
    let (namespace, attachment) = sandbox(&node);
    let layer_2 = |version: &'static str| {
        let call = Call::new(&node, "ADD", &attachment);
        call.change(move |conf| {
            conf["cniVersion"] = json!(version);
            let conf = conf.as_object_mut().expect("object");
            conf.retain(|key, _| !["ipam", "isGateway", "ipMasq"].contains(&key.as_str()));
        })
    };
    for version in ["0.1.0", "0.2.0"] {
        let message = layer_2(version).is_refused(&[999]);
        let expected = "cannot convert: no valid IP addresses";
        assert!(message.contains(expected), "{message}");
        let links = exec::stdout(namespace.command("ip").args(["-o", "link"])).expect("ip");
        assert_eq!(links.lines().count(), 1, "only lo: {links}");
    }
    for version in ["0.3.0", "1.1.0"] {
        let call = layer_2(version);
        let result = call.run().expect_success();
        assert_eq!(result.get("ips"), None, "{result}");
        call.set("CNI_COMMAND", "DEL").run().expect_success();
    }
}

#[test]
fn the_mac_in_the_result_is_that_of_the_interface() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    let mut show = pod.namespace().command("ip");
    let link = exec::stdout(show.args(["-br", "link", "show", "eth0"])).expect("ip");
    assert!(link.contains(pod.mac()), "{link} has not {}", pod.mac());
}

#[test]
fn every_failure_is_one_error_object_and_every_verb_but_add_says_nothing_on_success() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let call = |verb: &str| {
        let call = Call::new(&node, verb, &attachment);
        call.change(|conf| conf["cniVersion"] = json!("1.1.0"))
    };
    for verb in ["ADD", "CHECK", "DEL", "GC", "STATUS"] {
        call(verb).stdin("{").fails(&[6]);
        call(verb).without(&["CNI_PATH"]).fails(&[4]);
        let nameless = call(verb).change(|conf| conf["name"] = json!(""));
        nameless.fails(&[7]);
    }
    for verb in ["ADD", "CHECK", "STATUS"] {
        let reasons: [(&str, Value, &[u64]); 4] = [
            ("mtu", json!(-1), &[7]),
            ("bridge", json!("a/b"), &[7]),
            ("ipam", json!({"type": "no-such-ipam"}), &[7, 999]),
            ("datapath", json!({"uplink": "eth0"}), &[7]),
        ];
        for (key, value, codes) in reasons {
            call(verb).change(|conf| conf[key] = value).fails(codes);
        }
    }
    let result = call("ADD").run().expect_success();
    let said = |verb: &str| {
        let call = call(verb).change(|conf| conf["prevResult"] = result.clone());
        call.run().expect_success()
    };
    for verb in ["CHECK", "STATUS", "GC", "DEL"] {
        assert_eq!(said(verb), Value::Null, "{verb}");
    }
}
