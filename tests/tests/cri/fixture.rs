//! What all tests start from: nodes whose pods may take the fast path.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use beeline_tests::config::{CONFLIST, Config};
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::topology::{Plugin, Topology, TopologySpec, unique_prefix};
use beeline_tests::traffic::connect;

use crate::image;

/// As many nodes, with addresses of these families; keep the topology as long as they are used.
#[track_caller]
pub(crate) fn nodes<const N: usize>(families: Families) -> (Topology, [Arc<Node>; N]) {
    let plugin = Plugin::from_env().unwrap_or_else(|error| panic!("{error:#}"));
    let spec = TopologySpec {
        families,
        ..TopologySpec::new(unique_prefix(), N, plugin)
    };
    let topology = Topology::new(&spec).unwrap_or_else(|error| panic!("topology: {error:#}"));
    let nodes = topology.take();
    (topology, nodes)
}

/// A single node with IPv4.
#[track_caller]
pub(crate) fn one_node() -> (Topology, Arc<Node>) {
    let (topology, [node]) = nodes(Families::V4);
    (topology, node)
}

/// Writes a configuration as an installer does: containerd 1.6 does not hear of a file that is moved in from elsewhere.
#[track_caller]
pub(crate) fn rename_in(config: &Config<'_>, node: &Node) {
    let (new, list) = (node.conf_dir().join(".new"), node.conf_dir().join(CONFLIST));
    fs::write(&new, config.conflist().to_string()).expect("write");
    fs::rename(new, list).expect("rename");
}

/// Gets the page of a pod's from inside a namespace.
pub(crate) fn fetch(from: &Namespace, at: SocketAddr) -> Result<()> {
    let mut stream = connect(from, at)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.ends_with(image::PAGE), "{at}: {answer}");
    Ok(())
}
