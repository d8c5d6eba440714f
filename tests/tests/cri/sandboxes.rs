//! What is in a sandbox, and what the runtime says of it.

use beeline_tests::cli;
use beeline_tests::plan::Families;
use beeline_tests::snapshot::Snapshot;
use k8s_cri::v1::{DnsConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption};
use serde_json::json;

use crate::containerd::Containerd;
use crate::fixture::{nodes, one_node};
use crate::pod::{self, NAMESPACE, Pod};

#[test]
fn a_sandbox_has_the_interface_and_the_address_that_the_runtime_reports() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let pod = Pod::run(&containerd, "pod");
    assert_eq!(node.reserved(), [pod.ip()]);
    let addresses = pod.exec("ip -o addr show dev eth0");
    let address = format!("inet {}/24", pod.ip());
    assert!(addresses.contains(&address), "{addresses}");
    let routes = pod.exec("ip route");
    let default = format!("default via {} dev eth0", node.gateway());
    assert!(routes.contains(&default), "{routes}");
    // containerd calls `loopback` at the same time, in the same namespace.
    pod.ping([127, 0, 0, 1].into(), 1);
    pod.ping(node.gateway(), 1);
}

#[test]
fn a_dual_stack_sandbox_has_both_addresses_that_the_runtime_reports() {
    let (_topology, [node]) = nodes(Families::Dual);
    let containerd = Containerd::start(&node);
    let (one, two) = (Pod::run(&containerd, "one"), Pod::run(&containerd, "two"));
    let families: Vec<_> = two.ips().iter().map(|ip| ip.is_ipv4()).collect();
    assert_eq!(families, [true, false], "{:?}", two.ips());
    for ip in two.ips() {
        one.ping(*ip, 2);
        one.fetch(*ip, 80);
    }
}

#[test]
fn the_status_of_beeline_names_pods_as_the_runtime_does() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let pod = Pod::run(&containerd, "web-0");
    let status = cli::status_text(&node).expect("status");
    let line = status.lines().find(|line| line.contains("web-0"));
    let line = line.unwrap_or_else(|| panic!("{status}"));
    assert!(line.contains(&format!("{NAMESPACE}/web-0")), "{line}");
    assert!(line.contains(&pod.ip().to_string()), "{line}");
}

#[test]
fn a_pod_has_the_host_name_and_the_name_servers_of_its_configuration() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let mut config = pod::config(&containerd, "named");
    config.hostname = "a-host-name".to_owned();
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.96.0.10".to_owned()],
        searches: vec!["test.svc.cluster.local".to_owned()],
        options: vec!["ndots:5".to_owned()],
    });
    // What the network says of DNS is not for pods whose configuration does.
    node.config()
        .with(|plugin| plugin["dns"] = json!({ "nameservers": ["192.0.2.53"] }))
        .install()
        .expect("install");
    let pod = Pod::with(&containerd, &config);
    assert_eq!(pod.exec("hostname").trim(), "a-host-name");
    let expected = "search test.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
    assert_eq!(pod.exec("cat /etc/resolv.conf"), expected);
}

#[test]
fn stopping_and_removing_may_be_repeated_and_leave_nothing() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let client = containerd.client();
    let first = Pod::run(&containerd, "first");
    let before = Snapshot::of(&node);
    let second = Pod::run(&containerd, "second");
    let sandbox = second.sandbox();
    for _ in 0..3 {
        client.stop(sandbox).expect("StopPodSandbox");
        before.assert_unchanged(&node);
    }
    for _ in 0..2 {
        client.remove(sandbox).expect("RemovePodSandbox");
    }
    assert_eq!(client.sandboxes().expect("list"), [first.sandbox()]);
    first.ping(node.address(), 1);
}

#[test]
fn removing_a_sandbox_that_runs_leaves_nothing() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let _first = Pod::run(&containerd, "first");
    let before = Snapshot::of(&node);
    let second = Pod::run(&containerd, "second");
    let removed = containerd.client().remove(second.sandbox());
    removed.expect("RemovePodSandbox");
    before.assert_unchanged(&node);
}

#[test]
fn a_pod_on_the_nodes_own_network_is_none_of_the_plugins() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let before = Snapshot::of(&node);
    let mut config = pod::config(&containerd, "host");
    let linux = config.linux.as_mut().expect("set above");
    linux.security_context = Some(LinuxSandboxSecurityContext {
        namespace_options: Some(NamespaceOption {
            network: NamespaceMode::Node.into(),
            ..NamespaceOption::default()
        }),
        ..LinuxSandboxSecurityContext::default()
    });
    let sandbox = containerd.client().run(&config).expect("RunPodSandbox");
    before.assert_unchanged(&node);
    let deleted = containerd.client().delete_all(&[sandbox]);
    deleted.expect("delete");
    before.assert_unchanged(&node);
}
