//! What flanneld does on a node for its host-gw backend, and what its CNI plugin delegates to `bridge`.

use beeline_tests::config::Config;
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::plan::{Family, cluster_cidr};
use serde_json::json;

use super::portmap;
use crate::adopt::{adopt, route_to_peers};

/// The chains of flannel 0.25 (`pkg/trafficmngr/iptables`).
fn rules(node: &Node) -> String {
    let (cluster, own) = (cluster_cidr(Family::V4), node.pod_cidr());
    let masq = "-m comment --comment \"flanneld masq\"";
    let forward = "-m comment --comment \"flanneld forward\"";
    format!(
        "*nat\n:FLANNEL-POSTRTG - [0:0]\n\
         -A POSTROUTING {masq} -j FLANNEL-POSTRTG\n\
         -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN\n\
         -A FLANNEL-POSTRTG -s {own} -d {cluster} {masq} -j RETURN\n\
         -A FLANNEL-POSTRTG -s {cluster} -d {own} {masq} -j RETURN\n\
         -A FLANNEL-POSTRTG ! -s {cluster} -d {own} {masq} -j RETURN\n\
         -A FLANNEL-POSTRTG -s {cluster} ! -d 224.0.0.0/4 {masq} -j MASQUERADE --random-fully\n\
         -A FLANNEL-POSTRTG ! -s {cluster} -d {cluster} {masq} -j MASQUERADE --random-fully\n\
         COMMIT\n\
         *filter\n:FLANNEL-FWD - [0:0]\n\
         -A FORWARD {forward} -j FLANNEL-FWD\n\
         -A FLANNEL-FWD -s {cluster} {forward} -j ACCEPT\n\
         -A FLANNEL-FWD -d {cluster} {forward} -j ACCEPT\n\
         COMMIT\n"
    )
}

/// Puts the node under flannel.
#[track_caller]
pub(super) fn install(node: &Node) {
    route_to_peers(node);
    exec::iptables(node.netns(), Family::V4, &rules(node)).expect("iptables");
    delegate(node);
}

/// What its plugin hands to `bridge` (`flannel-io/cni-plugin`, `delegateAdd`).
#[track_caller]
pub(super) fn delegate(node: &Node) {
    let config = Config::reference(node).with(|plugin| {
        plugin["isDefaultGateway"] = json!(true);
        plugin["hairpinMode"] = json!(true);
        plugin["forceAddress"] = json!(true);
        plugin["ipMasq"] = json!(false);
        plugin["mtu"] = json!(1500);
        plugin["ipam"]["routes"] = json!([{ "dst": cluster_cidr(Family::V4) }]);
    });
    config.chain(portmap()).install().expect("install");
}

/// The same network in beeline's hands, which masquerades by itself.
#[track_caller]
pub(super) fn replace(node: &Node) {
    let config = node.config().with(|plugin| {
        plugin["isDefaultGateway"] = json!(true);
        plugin["hairpinMode"] = json!(true);
        plugin["mtu"] = json!(1500);
        plugin["ipam"]["routes"] = json!([{ "dst": cluster_cidr(Family::V4) }]);
    });
    config.chain(portmap()).install().expect("install");
    adopt(node);
}

/// Takes flanneld's rules off a node, as the README says, once beeline masquerades there.
#[track_caller]
pub(super) fn remove_rules(node: &Node) {
    for command in [
        "-t nat -D POSTROUTING -m comment --comment flanneld#masq -j FLANNEL-POSTRTG",
        "-t nat -F FLANNEL-POSTRTG",
        "-t nat -X FLANNEL-POSTRTG",
        "-D FORWARD -m comment --comment flanneld#forward -j FLANNEL-FWD",
        "-F FLANNEL-FWD",
        "-X FLANNEL-FWD",
    ] {
        let words = command.split(' ').map(|word| word.replace('#', " "));
        exec::stdout(node.netns().command("iptables").args(words)).expect(command);
    }
}
