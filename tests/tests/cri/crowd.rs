//! Many pods at once.

use std::collections::BTreeSet;

use beeline_tests::snapshot::Snapshot;

use crate::containerd::Containerd;
use crate::fixture::one_node;
use crate::pod::{self, Pod, addresses};

/// How many sandboxes come, and go, at once.
const CROWD: usize = 30;

#[test]
fn thirty_sandboxes_come_up_at_once_are_all_reached_and_go_without_a_trace() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let client = containerd.client();
    let first = Pod::run(&containerd, "first");
    let before = Snapshot::of(&node);

    let name = |index: usize| pod::config(&containerd, &format!("pod-{index}"));
    let configs: Vec<_> = (0..CROWD).map(name).collect();
    let sandboxes = client.run_all(&configs).expect("RunPodSandbox");
    let mut ips = BTreeSet::new();
    for sandbox in &sandboxes {
        let addresses = addresses(client, sandbox).expect("addresses");
        assert_eq!(addresses.len(), 1, "{addresses:?}");
        ips.extend(addresses);
    }
    assert_eq!(ips.len(), CROWD, "two pods have one address: {ips:?}");
    let reserved: BTreeSet<_> = node.reserved().into_iter().collect();
    ips.insert(first.ip());
    assert_eq!(reserved, ips, "as the runtime says");
    let list: Vec<_> = ips.iter().map(ToString::to_string).collect();
    let ping = "ping -A -c 2 -W 2 $ip >/dev/null || echo $ip";
    let lost = first.exec(&format!("for ip in {}; do {ping}; done", list.join(" ")));
    assert_eq!(lost, "", "not reached");

    client.delete_all(&sandboxes).expect("StopPodSandbox");
    assert_eq!(client.sandboxes().expect("list"), [first.sandbox()]);
    before.assert_unchanged(&node);
    first.ping(node.gateway(), 1);
}
