//! A pod: its own namespace, attached by the plugin.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnetwork::Ipv4Network;
use serde_json::Value;

use crate::icmp::{self, Echo, Ping};
use crate::netns::{Ipv6, Namespace};
use crate::node::Node;
use crate::outcome::Outcome;
use crate::runtime::Attachment;

/// A pod with an address; detached and removed on drop.
#[derive(Debug)]
pub struct Pod {
    node: Arc<Node>,
    namespace: Namespace,
    attachment: Attachment,
    result: Value,
    add_time: Duration,
    add_stderr: String,
    ip: Ipv4Addr,
    gateway: Ipv4Addr,
    mac: String,
    attached: bool,
}

impl Pod {
    pub(crate) fn create(node: &Arc<Node>, name: &str) -> Result<Self> {
        let namespace = Namespace::create(&format!("{}-{name}", node.name()), Ipv6::Disabled)?;
        let attachment = Attachment {
            container_id: namespace.name().to_owned(),
            ifname: "eth0".to_owned(),
            netns: namespace.path(),
        };
        let outcome = node.runtime().add(&attachment)?.success()?;
        let (ip, gateway, mac) = Self::parse(&outcome.stdout, &namespace.path())
            .with_context(|| format!("ADD: cannot use the result {}", outcome.stdout))?;
        let Outcome {
            stdout: result,
            stderr: add_stderr,
            elapsed: add_time,
            ..
        } = outcome;
        let node = node.clone();
        let attached = true;
        Ok(Self {
            node,
            namespace,
            attachment,
            result,
            add_time,
            add_stderr,
            ip,
            gateway,
            mac,
            attached,
        })
    }

    fn parse(result: &Value, sandbox: &Path) -> Result<(Ipv4Addr, Ipv4Addr, String)> {
        let ip = &result["ips"][0];
        let address: Ipv4Network = ip["address"].as_str().context("no address")?.parse()?;
        let gateway = ip["gateway"].as_str().context("no gateway")?.parse()?;
        let interfaces = result["interfaces"].as_array().context("no interfaces")?;
        let inside = interfaces
            .iter()
            .find(|interface| interface["sandbox"].as_str().map(Path::new) == Some(sandbox));
        let mac = inside
            .and_then(|interface| interface["mac"].as_str())
            .context("no interface in the sandbox")?;
        Ok((address.ip(), gateway, mac.to_owned()))
    }

    /// The node it runs on.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its name, which is that of its namespace.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// What CNI knows it by.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// What ADD returned.
    pub fn result(&self) -> &Value {
        &self.result
    }

    /// How long ADD took.
    pub fn add_time(&self) -> Duration {
        self.add_time
    }

    /// What ADD wrote on standard error.
    pub fn add_stderr(&self) -> &str {
        &self.add_stderr
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Its gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The address of its interface.
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// Sends `count` echo requests, each as soon as the one before is answered.
    pub fn ping(&self, target: Ipv4Addr, count: usize) -> Ping {
        self.echo(&Echo {
            count,
            ..Echo::to(target)
        })
    }

    /// Sends echo requests with all the knobs.
    pub fn echo(&self, echo: &Echo) -> Ping {
        icmp::ping(&self.namespace, echo)
    }

    /// Asks the plugin to check it.
    pub fn check(&self) -> Result<Outcome> {
        self.node.runtime().check(&self.attachment, &self.result)
    }

    /// Detaches it; the namespace stays. May be repeated.
    pub fn detach(&mut self) -> Result<Outcome> {
        self.attached = false;
        self.node
            .runtime()
            .del(&self.attachment, Some(&self.result))
    }

    /// Detaches it and removes its namespace.
    pub fn delete(mut self) -> Result<()> {
        self.detach()?.success().map(drop)
    }

    /// Leaves it in place for somebody to look around.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.attached {
            // Whoever cares for the outcome calls `delete`.
            let _ = self.detach();
        }
    }
}
