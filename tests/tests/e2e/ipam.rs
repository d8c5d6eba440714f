//! The built-in allocator, through the real plugin.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use beeline_tests::config::NETWORK;
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::call::Call;
use crate::fixture::{configure, nodes_with, one_node};
use crate::refusals::{refused, sandbox};

/// The file of that name among the allocator's.
pub(crate) fn file(node: &Node, name: impl std::fmt::Display) -> PathBuf {
    node.data_dir().join(NETWORK).join(name.to_string())
}

/// The names of the allocator's files.
pub(crate) fn files(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(file(node, "")).expect("the allocator's directory");
    let names = entries.map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Writes one of the allocator's files as another program might.
pub(crate) fn put(node: &Node, name: &str, content: &str) {
    fs::create_dir_all(file(node, "")).expect("directory");
    fs::write(file(node, name), content).expect("file");
}

/// The node's default configuration with these keys of `ipam` put over it.
pub(crate) fn ipam(node: &Node, keys: &Value) -> Value {
    let mut stdin = node.config().stdin();
    for (key, value) in keys.as_object().expect("keys") {
        stdin["ipam"][key] = value.clone();
    }
    stdin
}

/// The addresses in a result, with their prefix lengths.
pub(crate) fn ips(result: &Value) -> Vec<&str> {
    let ips = result["ips"].as_array().expect("ips");
    ips.iter()
        .map(|ip| ip["address"].as_str().expect("address"))
        .collect()
}

/// The node's `n`th address for pods.
pub(crate) fn nth(node: &Node, n: u8) -> IpAddr {
    match node.pod_cidr().network() {
        IpAddr::V4(network) => {
            let [a, b, c, _] = network.octets();
            [a, b, c, n].into()
        }
        IpAddr::V6(network) => panic!("{network}: not of IPv4"),
    }
}

#[test]
fn the_first_add_takes_the_second_address_and_writes_the_references_files() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    let (second, gateway) = (nth(&node, 2), nth(&node, 1));
    let expected =
        json!([{ "address": format!("{second}/24"), "gateway": gateway, "interface": 2 }]);
    assert_eq!(pod.result()["ips"], expected);
    let address = second.to_string();
    assert_eq!(files(&node), [&*address, "last_reserved_ip.0", "lock"]);
    let content = |name: &str| fs::read_to_string(file(&node, name)).expect("file");
    assert_eq!(content(&address), format!("{}\r\neth0", pod.name()));
    assert_eq!(content("last_reserved_ip.0"), address);
    let mode = |name: &str| {
        let metadata = fs::metadata(file(&node, name)).expect("metadata");
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(
        (mode(&address), mode("lock"), mode("")),
        (0o600, 0o750, 0o755)
    );
}

#[test]
fn addresses_go_round_and_come_back_to_the_first() {
    let (_topology, node) = one_node();
    let add = |name: &str| {
        let pod = node.add_pod(name);
        let ip = pod.ip();
        pod.delete().expect("DEL");
        ip
    };
    assert_eq!((add("a"), add("b")), (nth(&node, 2), nth(&node, 3)));
    put(&node, "last_reserved_ip.0", &nth(&node, 254).to_string());
    assert_eq!(add("c"), nth(&node, 2));
    put(&node, "last_reserved_ip.0", "10.244.1.");
    assert_eq!(add("d"), nth(&node, 2));
}

#[test]
fn a_network_of_four_addresses_has_one_for_pods_and_then_none() {
    let (_topology, node) = one_node();
    let subnet = format!("{}/30", node.pod_cidr().network());
    configure(&node, |plugin| plugin["ipam"]["subnet"] = json!(subnet));
    let only = node.add_pod("only");
    assert_eq!(only.ip(), nth(&node, 2));
    let (_namespace, attachment) = sandbox(&node);
    let message = refused(
        &node,
        &attachment,
        &ipam(&node, &json!({ "subnet": subnet })).to_string(),
        &[100],
    );
    let range = format!("{}-{}", nth(&node, 1), nth(&node, 2));
    let expected = format!("no IP addresses available in range set: {range}");
    assert!(message.contains(&expected), "{message}");
    // The only address is free again.
    only.delete().expect("DEL");
    assert_eq!(node.add_pod("next").ip(), nth(&node, 2));
}

#[test]
fn ranges_that_make_no_sense_are_refused_in_the_references_words() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let one = |range: Value| json!([[range]]);
    let cases = [
        (
            one(json!({"subnet": "10.1.0.0/31"})),
            "invalid range set 0: network 10.1.0.0/31 too small to allocate from",
        ),
        (
            one(json!({"subnet": "10.1.0.0/32"})),
            "invalid range set 0: network 10.1.0.0/32 too small to allocate from",
        ),
        (
            one(json!({"subnet": "fd00::/127"})),
            "invalid range set 0: network fd00::/127 too small to allocate from",
        ),
        (
            one(json!({"subnet": "10.1.0.1/24"})),
            "host bits set, for a prefix length of 24 the network address is 10.1.0.0",
        ),
        (
            one(json!({"subnet": "fd00::1/64"})),
            "host bits set, for a prefix length of 64 the network address is fd00::",
        ),
        (
            one(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"})),
            "before rangeStart in network 10.1.0.0/24",
        ),
        (
            one(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.9"})),
            "rangeStart 10.2.0.9 not in network 10.1.0.0/24",
        ),
        (
            one(json!({"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.9"})),
            "rangeEnd 10.2.0.9 not in network 10.1.0.0/24",
        ),
        (
            json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]),
            "invalid range set 0: mixed address families",
        ),
        (
            json!([[{"subnet": "10.1.0.0/24"}], []]),
            "invalid range set 1: empty range set",
        ),
        (
            json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/25"}]]),
            "invalid range set 0: subnets 10.1.0.1-10.1.0.254 and 10.1.0.1-10.1.0.126 overlap",
        ),
        (
            json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]]),
            "range set 0 overlaps with 1",
        ),
        (json!([]), "no IP ranges specified"),
    ];
    for (ranges, text) in cases {
        let stdin = ipam(&node, &json!({ "subnet": "", "ranges": ranges }));
        let message = refused(&node, &attachment, &stdin.to_string(), &[7]);
        assert!(message.contains(text), "{ranges}: {message}");
    }
}

#[test]
fn an_explicit_end_at_the_broadcast_address_is_allocated() {
    let (_topology, node) = one_node();
    let last = nth(&node, 255);
    configure(&node, |plugin| {
        plugin["ipam"]["rangeStart"] = json!(last);
        plugin["ipam"]["rangeEnd"] = json!(last);
    });
    let (_namespace, attachment) = sandbox(&node);
    // As the reference does; the kernel takes it as an address of the interface.
    let result = node.runtime().add(&attachment).expect("executed");
    assert_eq!(ips(&result.expect_success()), [format!("{last}/24")]);
}

#[test]
fn two_families_give_an_address_of_each_in_order() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let pod = node.add_pod("pod");
    let [v4, v6] = pod.ips() else {
        panic!("two addresses: {}", pod.result());
    };
    assert!(v4.is_ipv4() && v6.is_ipv6(), "{}", pod.result());
    let last = |set| fs::read_to_string(file(&node, format!("last_reserved_ip.{set}")));
    assert_eq!(last(0).expect("file"), v4.to_string());
    assert_eq!(last(1).expect("file"), v6.to_string());
    let v6_file = fs::read_to_string(file(&node, v6)).expect("file");
    assert_eq!(v6_file, format!("{}\r\neth0", pod.name()));
}

#[test]
fn two_sets_of_a_family_give_two_addresses_from_version_0_3_0() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let keys = json!({ "ranges": [[{ "subnet": "10.77.0.0/24" }]] });
    let mut stdin = ipam(&node, &keys);
    // A bridge has one IPv4 gateway's address.
    stdin["isGateway"] = json!(false);
    stdin["cniVersion"] = json!("0.2.0");
    let message = refused(&node, &attachment, &stdin.to_string(), &[7]);
    assert!(
        message.contains("CNI version 0.2.0 does not support more than 1 address per family"),
        "{message}"
    );
    stdin["cniVersion"] = json!("0.3.1");
    let call = Call::new(&node, &attachment);
    let result = call.run("ADD", &stdin).expect_success();
    let second = nth(&node, 2);
    assert_eq!(
        ips(&result),
        [format!("{second}/24"), "10.77.0.2/24".into()]
    );
    call.run("DEL", &stdin).expect_success();
    assert!(node.reserved().is_empty());
}

/// An ADD that wants an address, by each of the channels.
fn requests<'a>(
    node: &'a Node,
    attachment: &'a Attachment,
    wanted: &str,
) -> [(Call<'a>, Value); 3] {
    let call = Call::new(node, attachment);
    let stdin = node.config().stdin();
    let (mut args, mut runtime) = (stdin.clone(), stdin.clone());
    args["args"]["cni"]["ips"] = json!([wanted]);
    runtime["runtimeConfig"]["ips"] = json!([wanted]);
    let variable = format!("IgnoreUnknown=1;IP={wanted}");
    [
        (call.clone().with("CNI_ARGS", &variable), stdin),
        (call.clone(), args),
        (call, runtime),
    ]
}

#[test]
fn an_address_is_requested_through_any_of_three_channels() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let ip = nth(&node, 77);
    for wanted in [format!("{ip}"), format!("{ip}/24"), format!("{ip}/32")] {
        for (call, stdin) in requests(&node, &attachment, &wanted) {
            let result = call.run("ADD", &stdin).expect_success();
            assert_eq!(ips(&result), [format!("{ip}/24")], "{wanted}");
            call.run("DEL", &stdin).expect_success();
            assert!(node.reserved().is_empty());
        }
    }
}

#[test]
fn the_gateway_and_what_others_have_is_not_given_to_who_requests_it() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    let (_namespace, attachment) = sandbox(&node);
    let before = Snapshot::of(&node);
    let range = format!("{}-{}", nth(&node, 1), nth(&node, 254));
    let (gateway, taken) = (nth(&node, 1), pod.ip());
    let gateway = (
        gateway,
        format!("requested IP {gateway} is subnet's gateway"),
    );
    let taken = format!("requested IP address {taken} is not available in range set {range}");
    for (wanted, text) in [gateway, (pod.ip(), taken)] {
        for (call, stdin) in requests(&node, &attachment, &wanted.to_string()) {
            let message = call.run("ADD", &stdin).expect_error(&[999]);
            assert!(message.contains(&text), "{message}");
            before.assert_unchanged(&node);
        }
    }
    pod.check().expect("executed").expect_success();
}

#[test]
fn one_of_two_requests_that_cannot_be_met_releases_the_other() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let mut stdin = node.config().stdin();
    stdin["runtimeConfig"]["ips"] = json!([nth(&node, 77), "10.99.0.1"]);
    let message = refused(&node, &attachment, &stdin.to_string(), &[999]);
    let text = "failed to allocate all requested IPs: 10.99.0.1";
    assert!(message.contains(text), "{message}");
    assert!(node.reserved().is_empty());
}

#[test]
fn ranges_of_the_runtime_come_first_however_it_writes_their_keys() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let range =
        json!({ "Subnet": "10.77.0.0/24", "RangeStart": "", "RangeEnd": "", "Gateway": "" });
    let mut stdin = node.config().stdin();
    stdin["isGateway"] = json!(false);
    stdin["runtimeConfig"]["ipRanges"] = json!([[range]]);
    let call = Call::new(&node, &attachment);
    let result = call.run("ADD", &stdin).expect_success();
    let second = nth(&node, 2).to_string();
    assert_eq!(
        ips(&result),
        ["10.77.0.2/24".into(), format!("{second}/24")]
    );
    assert_eq!(result["ips"][0]["gateway"], "10.77.0.1");
    let last = |set| fs::read_to_string(file(&node, format!("last_reserved_ip.{set}")));
    assert_eq!(
        (last(0).expect("file"), last(1).expect("file")),
        ("10.77.0.2".into(), second)
    );
    call.run("DEL", &stdin).expect_success();
    assert!(node.reserved().is_empty());
}

#[test]
fn a_file_that_names_only_the_container_is_checked_and_released() {
    let (_topology, node) = one_node();
    let mut pod = node.add_pod("pod");
    // Removed and written anew, as by an allocator of that time.
    fs::remove_file(file(&node, pod.ip())).expect("remove");
    assert!(!pod.check().expect("executed").is_success());
    put(&node, &pod.ip().to_string(), pod.name());
    pod.check().expect("executed").expect_success();
    pod.detach().expect("executed").expect_success();
    assert!(node.reserved().is_empty());
}

#[test]
fn what_a_killed_allocator_left_is_in_nobodys_way() {
    let (_topology, node) = one_node();
    let subnet = format!("{}/30", node.pod_cidr().network());
    configure(&node, |plugin| plugin["ipam"]["subnet"] = json!(subnet));
    // The reference was killed between making the file and writing to it; ours before it gave the file its name.
    put(&node, &nth(&node, 2).to_string(), "");
    put(&node, ".beeline.tmp", "dead\r\neth0");
    put(&node, "last_reserved_ip.0", "");
    let pod = node.add_pod("pod");
    assert_eq!(pod.ip(), nth(&node, 2));
    assert_eq!(
        files(&node),
        [&*pod.ip().to_string(), "last_reserved_ip.0", "lock"]
    );
    // Ours after it gave the file its name: it has two.
    fs::hard_link(file(&node, pod.ip()), file(&node, ".beeline.tmp")).expect("link");
    let (_namespace, attachment) = sandbox(&node);
    let outcome = node.runtime().add(&attachment).expect("executed");
    outcome.expect_error(&[100]);
    pod.check().expect("executed").expect_success();
    pod.delete().expect("DEL");
    assert_eq!(files(&node), ["last_reserved_ip.0", "lock"]);
}

#[test]
fn two_interfaces_of_a_container_are_two_attachments() {
    let (_topology, node) = one_node();
    let (_namespace, eth0) = sandbox(&node);
    let net1 = Attachment {
        ifname: "net1".into(),
        ..eth0.clone()
    };
    // Two default routes do not go together.
    let stdin = ipam(&node, &json!({ "routes": [] }));
    let (eth0, net1) = (Call::new(&node, &eth0), Call::new(&node, &net1));
    let first = eth0.run("ADD", &stdin).expect_success();
    let second = net1.run("ADD", &stdin).expect_success();
    assert_ne!(ips(&first), ips(&second));
    eth0.run("DEL", &stdin).expect_success();
    assert_eq!(node.reserved(), [nth(&node, 3)]);
    let mut checked = stdin.clone();
    checked["prevResult"] = second;
    net1.run("CHECK", &checked).expect_success();
    net1.run("DEL", &stdin).expect_success();
    assert!(node.reserved().is_empty());
}

#[test]
fn an_address_is_released_after_its_range_became_invalid() {
    let (_topology, node) = one_node();
    for broken in [
        json!({ "subnet": "10.1.0.0/33" }),
        json!({ "subnet": "", "ranges": [] }),
        json!({ "rangeStart": "none" }),
        json!({ "subnet": 7 }),
    ] {
        let (_namespace, attachment) = sandbox(&node);
        let call = Call::new(&node, &attachment);
        let stdin = node.config().stdin();
        call.run("ADD", &stdin).expect_success();
        assert_eq!(node.reserved().len(), 1);
        call.run("DEL", &ipam(&node, &broken)).expect_success();
        assert!(node.reserved().is_empty(), "{broken}");
    }
}

#[test]
fn the_resolvers_configuration_is_handed_out_or_the_add_fails() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let path = node.directory().join("resolv.conf");
    let stdin = ipam(&node, &json!({ "resolvConf": path }));
    let message = refused(&node, &attachment, &stdin.to_string(), &[999]);
    let text = format!("resolvConf {}: read", path.display());
    assert!(message.contains(&text), "{message}");

    let text = "nameserver 192.0.2.1\nnameserver 2001:db8::1\ndomain example.com\nsearch a.example b.example\noptions ndots:5 edns0\n";
    fs::write(&path, text).expect("write");
    let call = Call::new(&node, &attachment);
    let result = call.run("ADD", &stdin).expect_success();
    let expected = json!({
        "nameservers": ["192.0.2.1", "2001:db8::1"],
        "domain": "example.com",
        "search": ["a.example", "b.example"],
        "options": ["ndots:5", "edns0"],
    });
    assert_eq!(result["dns"], expected);
    call.run("DEL", &stdin).expect_success();
}

#[test]
fn what_is_no_plain_file_is_not_read_as_a_resolvers_configuration() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let fifo = node.directory().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("FIFO");
    let large = node.directory().join("large");
    fs::write(&large, vec![b'#'; 1 << 20]).expect("write");
    for (path, why) in [
        (fifo, "not a regular file"),
        ("/dev/zero".into(), "not a regular file"),
        (node.directory(), "not a regular file"),
        (large, "more than 65536 bytes"),
    ] {
        let stdin = ipam(&node, &json!({ "resolvConf": path }));
        let message = refused(&node, &attachment, &stdin.to_string(), &[999]);
        assert!(message.contains(why), "{message}");
    }
}

/// A directory that everybody may write to, and a link in it that leads to `target`.
fn tempting(node: &Arc<Node>, target: &std::path::Path) -> PathBuf {
    let open = node.directory().join("open");
    fs::create_dir(&open).expect("directory");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("mode");
    std::os::unix::fs::symlink(target, open.join("link")).expect("link");
    open.join("link")
}

#[test]
fn a_path_that_a_tenant_may_have_turned_elsewhere_is_not_followed() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let elsewhere = node.directory().join("elsewhere");
    fs::create_dir(&elsewhere).expect("directory");
    fs::write(elsewhere.join("resolv.conf"), "search secret.example\n").expect("write");
    let link = tempting(&node, &elsewhere);
    for keys in [
        json!({ "dataDir": link }),
        json!({ "dataDir": link.join("networks") }),
        json!({ "resolvConf": link.join("resolv.conf") }),
    ] {
        let stdin = ipam(&node, &keys);
        let message = refused(&node, &attachment, &stdin.to_string(), &[999]);
        let why = "link is a symbolic link that others than root can place";
        assert!(message.contains(why), "{message}");
    }
    for keys in [
        json!({ "dataDir": "/run/../etc" }),
        json!({ "dataDir": "networks" }),
        json!({ "resolvConf": "/etc/../etc/resolv.conf" }),
        json!({ "resolvConf": "resolv.conf" }),
    ] {
        refused(&node, &attachment, &ipam(&node, &keys).to_string(), &[7]);
    }
    assert_eq!(fs::read_dir(&elsewhere).expect("directory").count(), 1);
}

#[test]
fn a_link_that_root_placed_is_followed_but_not_for_ever() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let at = |name: &str| node.directory().join(name);
    std::os::unix::fs::symlink("networks", at("linked")).expect("link");
    std::os::unix::fs::symlink("loop", at("loop")).expect("link");
    let stdin = ipam(&node, &json!({ "dataDir": at("linked") }));
    let call = Call::new(&node, &attachment);
    call.run("ADD", &stdin).expect_success();
    assert_eq!(node.reserved(), [nth(&node, 2)]);
    call.run("DEL", &stdin).expect_success();
    assert!(node.reserved().is_empty());
    let stdin = ipam(&node, &json!({ "dataDir": at("loop") }));
    refused(&node, &attachment, &stdin.to_string(), &[999]);
}
