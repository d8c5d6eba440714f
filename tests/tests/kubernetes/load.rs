//! `beeline load` on nodes whose pods talk to each other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use beeline_tests::traffic::{accept, connect, listen};

use crate::cluster::Cluster;
use crate::fixture::{Pods, on, settled};
use crate::network::{self, Network};
use crate::node::PLUGIN;
use crate::traffic;
use crate::wait::{seconds, wait_for};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn connections_over_a_service_and_direct_ones_survive_a_load_on_both_nodes() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        let result = load(cluster, pods);
        let hidden = cluster.hide(&[&pods.c]);
        result.and(hidden)?;
        settled(cluster)
    });
}

/// Loads anew on both nodes, with one connection over a Service that leads to the other node, and all kinds of direct ones.
fn load(cluster: &Cluster, pods: &Pods) -> Result<()> {
    let Pods { a, b, c } = pods;
    let listener = listen(c.namespace(), c.ip())?;
    let service = cluster.expose_port(c, listener.local_addr()?.port())?;
    let client = wait_for("the Service", seconds(60), || {
        connect(a.namespace(), service.address)
    })?;
    let mut held = Held {
        client,
        server: accept(&listener)?,
    };
    held.exchange().context("Service: before")?;
    traffic::during(&[(a, c), (a, b)], || {
        held.during(|| {
            let mut nodes = cluster.nodes().iter();
            nodes.try_for_each(|node| node.run(&[PLUGIN, "load"]).map(drop))
        })
    })?;
    (0..10).try_for_each(|_| held.exchange().context("Service: afterwards"))
}

/// A connection that is kept over many questions.
struct Held {
    client: TcpStream,
    server: TcpStream,
}

impl Held {
    /// Asks and answers while something changes.
    fn during(&mut self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let stop = AtomicBool::new(false);
        let (changed, exchanges) = thread::scope(|scope| {
            let asking = scope.spawn(|| -> Result<usize> {
                let mut exchanges = 0;
                while !stop.load(Ordering::Relaxed) {
                    let exchanged = self.exchange();
                    exchanged.with_context(|| format!("after {exchanges} exchanges"))?;
                    exchanges += 1;
                    thread::sleep(PAUSE);
                }
                Ok(exchanges)
            });
            let changed = change();
            stop.store(true, Ordering::Relaxed);
            (changed, asking.join().expect("no panic"))
        });
        changed?;
        let exchanges = exchanges.context("Service: during the change")?;
        ensure!(exchanges > 0, "no exchange during the change");
        Ok(())
    }

    fn exchange(&mut self) -> Result<()> {
        let mut byte = [0];
        self.client.write_all(b"?").context("ask")?;
        self.server.read_exact(&mut byte).context("question")?;
        self.server.write_all(&byte).context("reply")?;
        self.client.read_exact(&mut byte).context("answer")?;
        ensure!(byte == *b"?", "{byte:?}");
        Ok(())
    }
}
