//! CHECK: an attachment is as ADD left it, or it is said what is not.

use std::fs;

use beeline_tests::node::BRIDGE;
use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::sweep;
use serde_json::json;

use super::{interface, run_ip};
use crate::fixture::{configure, nodes_with, one_node};

#[test]
fn check_right_after_add_succeeds_whatever_the_configuration() {
    for keys in [
        json!({}),
        json!({"hairpinMode": true, "macspoofchk": true}),
        json!({"promiscMode": true, "portIsolation": true}),
        json!({"isDefaultGateway": true, "mtu": 1400}),
        json!({"enabledad": true, "isGateway": false}),
        json!({"ipMasq": false, "dns": {"nameservers": ["192.0.2.53"]}}),
    ] {
        let (_topology, [node]) = nodes_with(Families::Dual);
        configure(&node, |plugin| {
            for (key, value) in keys.as_object().unwrap() {
                plugin[key] = value.clone();
            }
        });
        node.add_pod("pod")
            .check()
            .expect("executed")
            .expect_success();
    }
}

/// Breaks one thing of a pod, and has CHECK name it.
#[track_caller]
fn fails(names: &str, break_it: impl FnOnce(&Pod)) {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    pod.check().expect("executed").expect_success();
    break_it(&pod);
    let message = pod.check().expect("executed").expect_error(&[999]);
    assert!(message.contains(names), "{names} is not named: {message}");
}

#[test]
fn a_missing_address_is_named() {
    fails("address 10.244.1.2/24", |pod| {
        run_ip(pod.namespace(), &["address flush dev eth0"]);
    });
}

#[test]
fn a_missing_route_is_named() {
    fails("route to 0.0.0.0/0", |pod| {
        run_ip(pod.namespace(), &["route del default"])
    });
}

#[test]
fn a_missing_interface_is_named() {
    fails("\"eth0\": missing", |pod| {
        run_ip(pod.namespace(), &["link del eth0"])
    });
}

#[test]
fn an_interface_of_another_kind_is_named() {
    fails("\"eth0\": is no veth", |pod| {
        run_ip(
            pod.namespace(),
            &["link del eth0", "link add eth0 type bridge"],
        );
    });
}

#[test]
fn another_mac_is_named() {
    fails("has MAC 02:00:00:00:00:09", |pod| {
        run_ip(
            pod.namespace(),
            &["link set eth0 address 02:00:00:00:00:09"],
        );
    });
}

#[test]
fn a_port_that_left_the_bridge_is_named() {
    fails("not on bridge \"v-net-0\"", |pod| {
        let port = interface(pod.result(), 1);
        run_ip(pod.node().netns(), &[&format!("link set {port} nomaster")]);
    });
}

#[test]
fn a_port_that_has_another_name_is_named() {
    fails("\"other\" is not in it", |pod| {
        let port = interface(pod.result(), 1);
        let rename = [
            format!("link set {port} down"),
            format!("link set {port} name other up"),
        ];
        run_ip(pod.node().netns(), &[&rename[0], &rename[1]]);
    });
}

#[test]
fn a_missing_bridge_is_named() {
    fails("bridge \"v-net-0\": missing", |pod| {
        run_ip(pod.node().netns(), &[&format!("link del {BRIDGE}")]);
    });
}

#[test]
fn an_address_that_is_not_reserved_any_more_is_named() {
    fails("pod", |pod| {
        for file in sweep::walk(&pod.node().data_dir()) {
            if file.ends_with(pod.ip().to_string()) {
                fs::remove_file(file).expect("remove");
            }
        }
        assert_eq!(pod.node().reserved().len(), 0);
    });
}

#[test]
fn a_sandbox_that_is_not_the_results_is_named() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    let mut result = pod.result().clone();
    result["interfaces"][2]["sandbox"] = json!("/run/netns/another");
    let outcome = node.runtime().check(pod.attachment(), &result);
    let message = outcome.expect("executed").expect_error(&[999]);
    assert!(message.contains("/run/netns/another"), "{message}");
}

#[test]
fn a_result_of_another_type_family_is_refused() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    let mut result = pod.result().clone();
    result["cniVersion"] = json!("0.4.0");
    let outcome = node.runtime().check(pod.attachment(), &result);
    assert!(!outcome.expect("executed").is_success());
}
