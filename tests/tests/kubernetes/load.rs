//! `beeline load` on nodes whose pods talk to each other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use beeline_tests::traffic::connect;

use crate::fixture::{on, settled};
use crate::network::{self, Network};
use crate::node::PLUGIN;
use crate::pod::Pod;
use crate::service::ask;
use crate::traffic;
use crate::wait::{seconds, wait_for};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn connections_over_a_service_and_direct_ones_survive_a_load_on_both_nodes() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        let service = cluster.expose(&pods.c)?;
        wait_for("the Service", seconds(30), || {
            ask(pods.a.namespace(), service.address)
        })?;
        let result = traffic::during(&[(&pods.a, &pods.c), (&pods.a, &pods.b)], || {
            over_service(&pods.a, service.address, pods.c.name(), || {
                let mut nodes = cluster.nodes().iter();
                nodes.try_for_each(|node| node.run(&[PLUGIN, "load"]).map(drop))
            })
        });
        let hidden = cluster.hide(&[&pods.c]);
        result.and(hidden)?;
        settled(cluster)
    });
}

/// Runs `change` while a pod asks over one connection through a Service, before and after it, too.
fn over_service(
    from: &Pod,
    at: SocketAddr,
    name: &str,
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut held = Held::open(from, at)?;
    held.exchange(name)?;
    let stop = AtomicBool::new(false);
    let (changed, asked) = thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<(Held, usize)> {
            let mut exchanges = 0;
            while !stop.load(Ordering::Relaxed) {
                held.exchange(name)?;
                exchanges += 1;
                thread::sleep(PAUSE);
            }
            Ok((held, exchanges))
        });
        let changed = change();
        stop.store(true, Ordering::Relaxed);
        (changed, asking.join().expect("no panic"))
    });
    changed?;
    let (mut held, exchanges) = asked.context("Service: long connection")?;
    ensure!(exchanges > 0, "no exchange during the change");
    (0..10).try_for_each(|_| held.exchange(name))
}

/// A connection that is kept over many questions.
struct Held(BufReader<TcpStream>);

impl Held {
    fn open(from: &Pod, at: SocketAddr) -> Result<Self> {
        Ok(Self(BufReader::new(connect(from.namespace(), at)?)))
    }

    /// Asks who answers.
    fn exchange(&mut self, name: &str) -> Result<()> {
        let question = b"GET /hostname HTTP/1.1\r\nHost: service\r\n\r\n";
        self.0.get_mut().write_all(question).context("ask")?;
        let mut length = None;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).context("answer")?;
            ensure!(!line.is_empty(), "closed");
            if line.trim_end().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length.context("no length")?];
        self.0.read_exact(&mut body).context("answer")?;
        ensure!(body == name.as_bytes(), "{body:?} is not {name}");
        Ok(())
    }
}
