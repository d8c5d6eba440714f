//! The bridge's port: `hairpinMode`, `portIsolation`.

use serde_json::json;

use super::{interface, link};
use crate::fixture::{configure, one_node};
use crate::refusals::{refused, sandbox};

#[test]
fn a_port_is_as_the_configuration_says_and_as_bridges_have_it_by_default() {
    for (key, attribute) in [("hairpinMode", "hairpin"), ("portIsolation", "isolated")] {
        for wanted in [false, true] {
            let (_topology, node) = one_node();
            configure(&node, |plugin| plugin[key] = json!(wanted));
            let pod = node.add_pod("pod");
            let port = link(node.netns(), interface(pod.result(), 1));
            let port = &port["linkinfo"]["info_slave_data"];
            assert_eq!(port[attribute], wanted, "{key} {wanted}: {port}");
            let other = if attribute == "hairpin" {
                "isolated"
            } else {
                "hairpin"
            };
            assert_eq!(port[other], false, "{key} {wanted}: {port}");
        }
    }
}

#[test]
fn hairpin_mode_and_promisc_mode_together_are_refused_and_no_bridge_is_made() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let config = node.config().with(|plugin| {
        plugin["hairpinMode"] = json!(true);
        plugin["promiscMode"] = json!(true);
    });
    let message = refused(&node, &attachment, &config.stdin().to_string(), &[7]);
    for word in ["hairpinMode", "promiscMode", "at the same time"] {
        assert!(message.contains(word), "{message}");
    }
}
