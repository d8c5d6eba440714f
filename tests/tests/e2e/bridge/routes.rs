//! Routes of IPAM, with all that they say, in the pod's kernel.

use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use serde_json::{Value, json};

use super::{call, ip, run_ip};
use crate::fixture::nodes_with;
use crate::refusals::sandbox;

/// The pods' network has these routes.
fn config(node: &Node, routes: &Value) -> Value {
    let config = node
        .config()
        .with(|plugin| plugin["ipam"]["routes"] = routes.clone());
    config.version("1.1.0").stdin()
}

#[test]
fn metrics_priorities_tables_and_scopes_are_in_the_kernel_and_in_the_result() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let (namespace, attachment) = sandbox(&node);
    let gateway = node.gateway().to_string();
    let routes = json!([
        {"dst": "0.0.0.0/0"},
        {"dst": "10.50.0.0/16", "gw": gateway, "mtu": 1300, "advmss": 1200},
        {"dst": "10.51.0.0/16", "priority": 77},
        {"dst": "10.52.0.0/16", "table": 100},
        {"dst": "10.53.0.0/16", "scope": 253},
        {"dst": "fd50::/32", "mtu": 1290, "advmss": 1210, "priority": 55, "table": 101},
    ]);
    let mut stdin = config(&node, &routes);
    // Without a gateway of its own a route goes to the network's; one on the link has none at all.
    stdin["ipam"]["routes"][4]
        .as_object_mut()
        .unwrap()
        .remove("gw");
    let result = call(&node, "ADD", &attachment, &stdin).expect_success();
    let route = |arguments: &[&str]| {
        let found = ip(&namespace, &[&["-details"], arguments].concat());
        assert_eq!(found.len(), 1, "{arguments:?}: {found:?}");
        found[0].clone()
    };
    let metrics = route(&["route", "show", "10.50.0.0/16"]);
    assert_eq!(metrics["gateway"], gateway);
    assert_eq!(metrics["metrics"][0], json!({"mtu": 1300, "advmss": 1200}));
    assert_eq!(route(&["route", "show", "10.51.0.0/16"])["metric"], 77);
    assert_eq!(
        ip(&namespace, &["route", "show", "10.52.0.0/16"]),
        [] as [Value; 0]
    );
    let table = route(&["route", "show", "10.52.0.0/16", "table", "100"]);
    assert_eq!(table["gateway"], gateway);
    // Its destinations are on the link, so that no gateway leads there.
    let on_link = route(&["route", "show", "10.53.0.0/16"]);
    assert_eq!(
        (&on_link["scope"], on_link.get("gateway")),
        (&json!("link"), None)
    );
    let of_v6 = route(&["-6", "route", "show", "fd50::/32", "table", "101"]);
    assert_eq!(of_v6["metric"], 55);
    assert_eq!(of_v6["metrics"][0], json!({"mtu": 1290, "advmss": 1210}));
    let said = result["routes"].as_array().expect("routes");
    for (said, asked) in said.iter().zip(stdin["ipam"]["routes"].as_array().unwrap()) {
        assert_eq!(said, asked);
    }
    stdin["prevResult"] = result.clone();
    call(&node, "CHECK", &attachment, &stdin).expect_success();
    run_ip(&namespace, &["route del 10.52.0.0/16 table 100"]);
    let message = call(&node, "CHECK", &attachment, &stdin).expect_error(&[999]);
    assert!(message.contains("10.52.0.0/16"), "{message}");
    call(&node, "DEL", &attachment, &stdin).expect_success();
}

#[test]
fn a_route_that_the_kernel_refuses_is_named_and_nothing_is_left() {
    let (_topology, [node]) = nodes_with(Families::V4);
    let (_namespace, attachment) = sandbox(&node);
    // No network of the pod's leads to this gateway.
    let routes = json!([{"dst": "10.50.0.0/16", "gw": "192.0.2.1"}]);
    let stdin = config(&node, &routes).to_string();
    let message = crate::refusals::refused(&node, &attachment, &stdin, &[999]);
    assert!(message.contains("10.50.0.0/16"), "{message}");
}
