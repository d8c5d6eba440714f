//! Other IPAM plugins: addresses from the distribution's `static`, and the files shared with its `host-local`.

use std::net::IpAddr;
use std::path::Path;

use beeline_tests::snapshot::Snapshot;
use beeline_tests::topology::OUTSIDE;
use serde_json::json;

use crate::fixture::one_node;

#[test]
fn a_pod_with_an_address_from_elsewhere_reaches_the_outside_and_leaves_nothing() {
    let (_topology, node) = one_node();
    let with_address = |address: &str| {
        let addresses = json!([{ "address": address, "gateway": "10.99.0.1" }]);
        let routes = json!([{ "dst": "0.0.0.0/0" }]);
        node.config()
            .with(|plugin| {
                plugin["ipam"] =
                    json!({ "type": "static", "addresses": addresses, "routes": routes });
            })
            .install()
            .expect("install");
    };
    with_address("10.99.0.5/24");
    let first = node.add_pod("first");
    first.check().expect("executed").expect_success();
    first.ping(OUTSIDE, 1).assert_received();

    let before = Snapshot::of(&node);
    with_address("10.99.0.6/24");
    let second = node.add_pod("second");
    second.ping(first.ip(), 2).assert_received();
    second.ping(OUTSIDE, 1).assert_received();
    second.delete().expect("DEL");
    before.assert_unchanged(&node);
}

#[test]
fn an_ipam_plugin_that_is_missing_is_named_and_leaves_nothing() {
    let (_topology, node) = one_node();
    let before = Snapshot::of(&node);
    let (_namespace, attachment) = crate::refusals::sandbox(&node);
    let mut stdin = node.config().stdin();
    stdin["ipam"] = json!({ "type": "no-such-ipam" });
    let outcome = node
        .runtime()
        .call("ADD", &attachment, stdin.to_string().as_bytes())
        .expect("executed");
    let message = outcome.expect_error(&[999]);
    assert!(message.contains("no-such-ipam"), "{message}");
    before.assert_unchanged(&node);
}

#[test]
fn the_reference_allocator_and_ours_share_their_files() {
    let (_topology, node) = one_node();
    let first = node.add_pod("first");
    let stdin = node.config().stdin();
    let reference = |verb: &str| {
        let environment = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "theirs"),
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/usr/lib/cni"),
        ];
        let program = Path::new("/usr/lib/cni/host-local");
        let config = stdin.to_string();
        let outcome = node
            .runtime()
            .exec(program, &environment, config.as_bytes());
        outcome.expect("executed").expect_success()
    };
    let theirs = reference("ADD");
    let second = node.add_pod("second");
    let [one, two, three] = [2, 3, 4].map(|host| {
        let IpAddr::V4(gateway) = node.gateway() else {
            panic!("{}: not of IPv4", node.gateway());
        };
        let [a, b, c, _] = gateway.octets();
        IpAddr::from([a, b, c, host])
    });
    assert_eq!((first.ip(), second.ip()), (one, three));
    assert_eq!(theirs["ips"][0]["address"], format!("{two}/24"));
    let reserved = || {
        let mut reserved = node.reserved();
        reserved.sort();
        reserved
    };
    assert_eq!(reserved(), [one, two, three]);
    reference("DEL");
    assert_eq!(reserved(), [one, three]);
}
