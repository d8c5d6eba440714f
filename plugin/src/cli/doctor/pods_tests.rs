use std::net::IpAddr;

use beeline_common::{Mac, Pod};
use serde_json::json;

use super::{super::finding::test_commands, *};

/// What a node was set up for.
pub(in super::super) fn record() -> Record {
    let plan = json!({
        "network": "pods", "pod_cidrs": ["10.244.1.0/24"], "masquerade": false,
        "bridge": {"name": "br0", "mtu": null, "promiscuous": false, "gateway": true},
        "datapath": {},
    });
    let record = json!({"plan": plan, "degraded": null, "problems": []});
    serde_json::from_value(record).unwrap()
}

fn attachment(name: &str, ifindex: u32, ip: &str) -> Attachment {
    serde_json::from_value(json!({
        "container_id": name, "ifname": "eth0", "host_veth": format!("veth-{name}"),
        "ifindex": ifindex, "addresses": [ip], "netns": "/run/netns/x", "fast_path": true,
    }))
    .unwrap()
}

fn link(index: u32, name: &str, kind: &str, controller: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: Some(kind.to_owned()),
        controller,
        up: true,
        ..Link::default()
    }
}

fn pod(ifindex: u32) -> Pod {
    Pod {
        ifindex,
        flags: 0,
        mac: Mac([2; 6]),
        gateway: Mac([3; 6]),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two pods, all in order.
struct Node {
    kernel: Kernel,
    record: Record,
    attachments: Vec<Attachment>,
    pinned: Pinned,
    watched: bool,
}

impl Node {
    fn new() -> Self {
        let pods = vec![(ip("10.244.1.2"), pod(11)), (ip("10.244.1.3"), pod(12))];
        Self {
            kernel: Kernel {
                links: vec![
                    link(5, "br0", "bridge", None),
                    link(11, "veth-a", "veth", Some(5)),
                    link(12, "veth-b", "veth", Some(5)),
                ],
                ..Kernel::default()
            },
            record: record(),
            attachments: vec![
                attachment("a", 11, "10.244.1.2/24"),
                attachment("b", 12, "10.244.1.3/24"),
            ],
            pinned: Pinned {
                wanted_pods: Some(pods.clone()),
                pods,
                ..Pinned::default()
            },
            watched: false,
        }
    }

    /// The only finding, with its fix.
    #[track_caller]
    fn judged(&self) -> (Severity, String, String) {
        let facts = Facts {
            record: &self.record,
            store: Path::new("/run/beeline/pods"),
            attachments: &self.attachments,
            pinned: Some(&self.pinned),
            watched: self.watched,
        };
        let found = judge(&self.kernel, &facts, &test_commands());
        let [one] = &found[..] else {
            panic!("{found:#?}");
        };
        let fix = one.fix.clone().unwrap_or_default();
        (one.severity, one.object.clone(), fix)
    }
}

#[test]
fn pods_that_agree_are_one_line() {
    assert_eq!(Node::new().judged().0, Severity::Ok);
}

#[test]
fn entries_that_maps_lack_have_otherwise_or_have_for_nobody_are_told_apart() {
    let mut node = Node::new();
    node.pinned.pods.remove(0);
    let (severity, object, fix) = node.judged();
    assert_eq!(
        (severity, &*object),
        (Severity::Warning, "addresses 10.244.1.2")
    );
    assert_eq!(fix, "beeline load");

    let mut node = Node::new();
    node.pinned.pods[0].1.ifindex = 99;
    assert_eq!(node.judged().0, Severity::Failure);

    let mut node = Node::new();
    node.pinned.pods.push((ip("10.244.1.9"), pod(13)));
    let (severity, object, fix) = node.judged();
    assert_eq!(
        (severity, &*object),
        (Severity::Failure, "addresses 10.244.1.9")
    );
    assert_eq!(fix, "beeline unload && beeline load");
    // A pod that is about to join the fast path has it.
    node.attachments.push(Attachment {
        complete: false,
        ..attachment("c", 0, "10.244.1.9/24")
    });
    assert_eq!(node.judged().0, Severity::Ok);
}

#[test]
fn a_record_without_a_host_veth_is_told_with_its_file() {
    for change in [
        |node: &mut Node| node.kernel.links.truncate(2),
        |node: &mut Node| node.kernel.links[2].index = 77,
    ] {
        let mut node = Node::new();
        change(&mut node);
        let (severity, object, fix) = node.judged();
        assert_eq!(severity, Severity::Warning);
        assert_eq!(object, "attachments b eth0 (veth-b)");
        assert_eq!(fix, "rm '/run/beeline/pods/attachments/b:eth0'");
    }
}

#[test]
fn a_host_veth_that_is_no_port_any_more_and_one_that_nobody_knows_are_told() {
    let mut node = Node::new();
    node.kernel.links[1].controller = None;
    let (severity, _, fix) = node.judged();
    assert_eq!(severity, Severity::Failure);
    assert_eq!(fix, "ip link set dev veth-a master br0");

    let mut node = Node::new();
    node.kernel.links.push(link(13, "veth-x", "veth", Some(5)));
    node.kernel.links.push(link(14, "eth1", "dummy", Some(5)));
    let (severity, object, fix) = node.judged();
    assert_eq!((severity, &*object), (Severity::Note, "host veths veth-x"));
    assert_eq!(fix, "beeline load --adopt");
}

#[test]
fn pods_wait_only_as_long_as_somebody_watches() {
    let mut node = Node::new();
    node.attachments[0].fast_path = false;
    assert_eq!(node.judged().0, Severity::Warning);
    node.watched = true;
    assert_eq!(node.judged().0, Severity::Ok);
}

#[test]
fn a_bridge_that_is_gone_or_down_is_a_failure() {
    let mut node = Node::new();
    node.kernel.links[0].up = false;
    assert_eq!(node.judged().2, "ip link set dev br0 up");
    node.kernel.links.remove(0);
    node.pinned.wanted_pods = None;
    let (severity, object, _) = node.judged();
    assert_eq!((severity, &*object), (Severity::Failure, "bridge br0"));
}
