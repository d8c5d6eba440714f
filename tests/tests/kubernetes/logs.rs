//! What a failure is explained by: what Kubernetes says, and what the nodes' components and beeline do.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::network::AGENT_PODS;
use crate::node::PLUGIN;

/// Lines of each log.
const LINES: usize = 30;

/// Prints all of it. What cannot be had is said, too.
pub(crate) fn print(cluster: &Cluster) {
    let print = |what: &str, text: String| println!("---- {what}\n{}", text.trim_end());
    let said = |said: Result<String>| said.unwrap_or_else(|error| format!("{error:#}"));
    let kubectl = |arguments: &[&str]| {
        print(&arguments.join(" "), said(cluster.kubectl(arguments)));
    };
    kubectl(&[
        "get",
        "nodes,pods,services",
        "--all-namespaces",
        "-o",
        "wide",
    ]);
    kubectl(&[
        "get",
        "events",
        "--all-namespaces",
        "--sort-by=.lastTimestamp",
    ]);
    let lines = format!("--tail={LINES}");
    let logs = ["logs", "--all-containers", "--prefix", &lines];
    kubectl(&[&logs[..], &AGENT_PODS].concat());
    for node in cluster.nodes() {
        let inside = [
            &[PLUGIN, "status"][..],
            &[
                "sh",
                "-c",
                "ip -brief address; ip route; ip -6 route; ls -l /opt/cni/bin; head /etc/cni/net.d/*",
            ],
        ];
        for command in inside {
            let what = format!("{}: {}", node.name(), command.join(" "));
            print(&what, said(node.run(command)));
        }
        for component in ["kubelet", "containerd", "proxy"] {
            let component = format!("{component}{}", node.number());
            print(&component, cluster.log(&component, LINES));
        }
    }
}
