//! What pods left that the runtime knows nothing of, as after a runtime that was killed.

use anyhow::{Context, Result, ensure};
use beeline_tests::exec;
use serde_json::{Value, json};

use crate::agent_pod;
use crate::cluster::Cluster;
use crate::fixture::{on, settled};
use crate::network::{self, Network};
use crate::node::{Node, PLUGIN};
use crate::reach;
use crate::wait::{seconds, wait_for};

/// Where host-local writes down who has which address.
const ADDRESSES: &str = "/var/lib/cni/networks/pods";

/// Of two attachments that the runtime does not know, the one whose namespace goes, and the one whose namespace stays.
const GONE: &str = "made-up-gone";
const ALIVE: &str = "made-up-alive";

/// A container that has an address, and no attachment.
const ORPHAN: &str = "made-up-orphan";

const DAEMON_SET: [&str; 3] = ["daemonset/beeline", "--namespace", "kube-system"];

#[test]
fn what_the_runtime_does_not_know_is_collected_and_nothing_else() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        let args = "/spec/template/spec/containers/0/args/-";
        let patch = json!([{"op": "add", "path": args, "value": "--gc-age=2"}]).to_string();
        let patch = ["--type=json", "--patch", &patch];
        cluster.kubectl(&[&["patch"], &DAEMON_SET[..], &patch].concat())?;
        network::wait_for_agent(cluster)?;
        collected(cluster, cluster.node(1))?;
        settled(cluster)?;
        reach::directly(cluster, pods)?;
        // A pod whose ADD takes long on a busy machine would be taken for one that is gone.
        cluster.kubectl(&[&["rollout", "undo"], &DAEMON_SET[..]].concat())?;
        network::wait_for_agent(cluster)
    });
}

fn collected(cluster: &Cluster, node: &Node) -> Result<()> {
    let before = attachments(node)?;
    let real = node.shell(&format!("ls {ADDRESSES}"))?;
    // The one that stays first: it is older than what is collected.
    for container in [ALIVE, GONE] {
        node.shell(&format!("ip netns add {container}"))?;
        plugin(node, "ADD", container)?;
    }
    let free = free_address(cluster, node)?;
    node.shell(&format!(
        "printf '{ORPHAN}\\r\\neth0' >{ADDRESSES}/{free}; ip netns delete {GONE}"
    ))?;
    wait_for("what is unknown goes", seconds(60), || {
        let left = node.shell(&format!("grep -lE '{GONE}|{ORPHAN}' {ADDRESSES}/* || true"))?;
        ensure!(left.is_empty(), "addresses: {left}");
        let now = attachments(node)?;
        ensure!(!now.iter().any(|id| id == GONE), "attachments: {now:?}");
        Ok(())
    })?;
    let now = attachments(node)?;
    let mut expected = before.clone();
    expected.push(ALIVE.to_owned());
    expected.sort();
    ensure!(now == expected, "{now:?}, not {expected:?}");
    said(cluster, node)?;
    plugin(node, "DEL", ALIVE)?;
    node.shell(&format!("ip netns delete {ALIVE}"))?;
    let left = attachments(node)?;
    ensure!(left == before, "{left:?}, not {before:?}");
    let addresses = node.shell(&format!("ls {ADDRESSES}"))?;
    ensure!(addresses == real, "{addresses}\nnot\n{real}");
    Ok(())
}

/// The agent's log and its metrics tell of what was collected, and of nothing more.
fn said(cluster: &Cluster, node: &Node) -> Result<()> {
    let log = agent_pod::log(cluster, node)?;
    let collected = log.lines().filter(|line| line.contains("collecting"));
    let collected: Vec<&str> = collected.collect();
    ensure!(collected.len() == 2, "{log}");
    for container in [GONE, ORPHAN] {
        let named = collected.iter().any(|line| line.contains(container));
        ensure!(named, "no {container}: {collected:#?}");
    }
    let scrape = agent_pod::scrape(node)?;
    for kind in ["attachment", "address"] {
        let series = format!("beeline_collected_total{{kind={kind:?}}}");
        let count = scrape.value(&series)?;
        ensure!(count == 1.0, "{series} {count}");
    }
    Ok(())
}

/// The containers that are attached on a node, in order.
fn attachments(node: &Node) -> Result<Vec<String>> {
    let status = node.status()?;
    let pods = status["pods"].as_array().context("no pods")?.iter();
    let ids = pods.map(|pod| pod["container_id"].as_str().map(str::to_owned));
    let ids: Option<Vec<String>> = ids.collect();
    let mut ids = ids.with_context(|| format!("{status}"))?;
    ids.sort();
    Ok(ids)
}

/// The last address of a node's range, which is given out last.
fn free_address(cluster: &Cluster, node: &Node) -> Result<String> {
    let cidr: ipnetwork::Ipv4Network = cluster.pod_cidrs(node)?[0].parse()?;
    let last = cidr.nth(cidr.size() - 2).context("range")?;
    Ok(last.to_string())
}

/// Calls the plugin as a runtime does.
fn plugin(node: &Node, call: &str, container: &str) -> Result<()> {
    let list = node.shell("cat /etc/cni/net.d/10-beeline.conflist")?;
    let mut list: Value = serde_json::from_str(&list)?;
    let mut conf = list["plugins"][0].take();
    for key in ["name", "cniVersion"] {
        conf[key] = list[key].take();
    }
    let mut command = node.command(&[
        "env",
        &format!("CNI_COMMAND={call}"),
        &format!("CNI_CONTAINERID={container}"),
        &format!("CNI_NETNS=/run/netns/{container}"),
        "CNI_IFNAME=eth0",
        "CNI_PATH=/opt/cni/bin",
        PLUGIN,
    ]);
    let output = exec::output(&mut command, conf.to_string().as_bytes())?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{call} {container}: {said}");
    Ok(())
}
