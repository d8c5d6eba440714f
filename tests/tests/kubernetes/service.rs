//! Services of pods, and asking who answers.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use beeline_tests::netns::Namespace;
use beeline_tests::traffic::connect;
use serde_json::json;

use crate::cluster::Cluster;
use crate::pod::{PORT, Pod};

/// A Service with one pod behind it.
pub(crate) struct Service {
    /// Where it is reached inside of the cluster.
    pub(crate) address: SocketAddr,
    /// Where it is reached at any node.
    pub(crate) node_port: u16,
}

impl Cluster {
    /// Makes a Service of a pod's, named after it.
    pub(crate) fn expose(&self, pod: &Pod) -> Result<Service> {
        self.expose_port(pod, PORT)
    }

    /// The same of what listens at a port of the pod's.
    pub(crate) fn expose_port(&self, pod: &Pod, port: u16) -> Result<Service> {
        let name = pod.name();
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "type": "NodePort",
                "selector": {"app": name},
                "ports": [{"port": 80, "targetPort": port}],
            },
        }))?;
        let object = self.get(&["service", name])?;
        let spec = &object["spec"];
        let ip: IpAddr = spec["clusterIP"].as_str().context("no IP")?.parse()?;
        let node_port = spec["ports"][0]["nodePort"].as_u64();
        Ok(Service {
            address: SocketAddr::new(ip, 80),
            node_port: node_port.context("no node port")?.try_into()?,
        })
    }

    /// Deletes the Services of pods.
    pub(crate) fn hide(&self, pods: &[&Pod]) -> Result<()> {
        let names: Vec<&str> = pods.iter().map(|pod| pod.name()).collect();
        self.kubectl(&[&["delete", "service"], &names[..]].concat())
            .map(drop)
    }
}

/// Asks from inside a namespace which pod answers at an address.
pub(crate) fn ask(from: &Namespace, at: SocketAddr) -> Result<String> {
    let mut stream = connect(from, at)?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("answer")?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok(body.to_owned())
}
