//! Pods, made and looked at by the API, whose network namespaces are open to the tests' own traffic.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use beeline_tests::icmp::{self, Echo, Ping};
use beeline_tests::netns::Namespace;
use beeline_tests::plan::{Family, family};
use beeline_tests::steady::End;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::node::Node;
use crate::service;
use crate::wait::{seconds, wait_for};

/// Where every pod serves its name.
pub(crate) const PORT: u16 = 8080;

/// A pod that is ready.
pub(crate) struct Pod {
    name: String,
    ips: Vec<IpAddr>,
    namespace: Namespace,
}

impl Cluster {
    /// Makes pods, each of a name on a node, and waits until all serve.
    pub(crate) fn add_pods<const N: usize>(&self, wanted: [(&str, &Node); N]) -> Result<[Pod; N]> {
        let items: Vec<Value> = wanted.iter().map(|(name, on)| manifest(name, on)).collect();
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        let ready = wanted.map(|(name, on)| self.wait_for_pod(name, on));
        let ready: Vec<Pod> = ready.into_iter().collect::<Result<_>>()?;
        ready.try_into().ok().context("pods: count")
    }

    fn wait_for_pod(&self, name: &str, on: &Node) -> Result<Pod> {
        let pod = wait_for(&format!("pod {name}"), seconds(60), || self.open(name, on))?;
        let serves = || service::ask(on.namespace(), SocketAddr::new(pod.ip(), PORT));
        wait_for(&format!("pod {name} serves"), seconds(10), serves)?;
        Ok(pod)
    }

    /// Makes one pod.
    pub(crate) fn add_pod(&self, name: &str, on: &Node) -> Result<Pod> {
        let [pod] = self.add_pods([(name, on)])?;
        Ok(pod)
    }

    /// Makes one pod that serves at a port of its node's, too.
    pub(crate) fn add_pod_at(&self, name: &str, on: &Node, host_port: u16) -> Result<Pod> {
        let mut pod = manifest(name, on);
        let ports = json!([{"containerPort": PORT, "hostPort": host_port}]);
        pod["spec"]["containers"][0]["ports"] = ports;
        self.apply(&pod)?;
        self.wait_for_pod(name, on)
    }

    /// Deletes pods and waits until their containers are gone, too.
    pub(crate) fn delete_pods(&self, names: &[&str]) -> Result<()> {
        let grace = ["--grace-period=1", "--ignore-not-found"];
        self.kubectl(&[&["delete", "pod"], names, &grace].concat())?;
        Ok(())
    }

    /// Runs a command in a pod, by the API and kubelet.
    pub(crate) fn exec(&self, pod: &Pod, command: &[&str]) -> Result<String> {
        self.kubectl(&[&["exec", pod.name(), "--"], command].concat())
    }

    fn open(&self, name: &str, on: &Node) -> Result<Pod> {
        let object = self.get(&["pod", name])?;
        let status = &object["status"];
        let container = &status["containerStatuses"][0];
        ensure!(
            container["ready"] == true,
            "{name}: {}: {}",
            status["phase"],
            container["state"]
        );
        let id = container["containerID"].as_str().context("no container")?;
        let ips = status["podIPs"].as_array().into_iter().flatten();
        let ips = ips.map(|ip| Ok(ip["ip"].as_str().context("no IP")?.parse()?));
        let ips = ips.collect::<Result<Vec<IpAddr>>>()?;
        ensure!(!ips.is_empty(), "{name}: no IPs");
        Ok(Pod {
            name: name.to_owned(),
            ips,
            namespace: Namespace::of_process(on.process(id)?)?,
        })
    }
}

fn manifest(name: &str, on: &Node) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": on.name(),
            "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": false,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main",
                "image": "localhost/agnhost:1",
                "args": ["netexec", format!("--http-port={PORT}"), "--udp-port=8081"],
            }],
        },
    })
}

impl Pod {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its first address.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ips[0]
    }

    /// Its address of a family.
    pub(crate) fn ip_of(&self, wanted: Family) -> Result<IpAddr> {
        let found = self.ips.iter().find(|ip| family(**ip) == wanted);
        let Some(ip) = found else {
            bail!("{}: none of {wanted:?} among {:?}", self.name, self.ips);
        };
        Ok(*ip)
    }

    /// Its network namespace.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Sends `count` echo requests, each as soon as the one before is answered.
    pub(crate) fn ping(&self, target: IpAddr, count: usize) -> Ping {
        let echo = Echo {
            count,
            ..Echo::to(target)
        };
        icmp::ping(&self.namespace, &echo)
    }
}

impl End for Pod {
    fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn ip(&self) -> IpAddr {
        self.ips[0]
    }
}
