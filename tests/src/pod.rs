//! A pod: its own namespace, attached by the plugin.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::icmp::{self, Echo, Ping};
use crate::netns::Namespace;
use crate::node::{Node, of_family};
use crate::outcome::Outcome;
use crate::plan::Family;
use crate::runtime::{Attachment, Runtime};

/// A pod with an address; detached and removed on drop.
#[derive(Debug)]
pub struct Pod {
    node: Arc<Node>,
    namespace: Namespace,
    attachment: Attachment,
    result: Value,
    add_time: Duration,
    add_stderr: String,
    ips: Vec<IpAddr>,
    gateways: Vec<IpAddr>,
    mac: String,
    attached: bool,
}

impl Pod {
    pub(crate) fn create(
        node: &Arc<Node>,
        runtime: &Runtime<'_>,
        name: &str,
        capabilities: Value,
    ) -> Result<Self> {
        let namespace =
            Namespace::create(&format!("{}-{name}", node.name()), node.families().ipv6())?;
        let attachment = Attachment {
            capabilities,
            ..Attachment::new(namespace.name(), namespace.path())
        };
        let outcome = runtime.add(&attachment)?.success()?;
        let unusable = || format!("ADD: cannot use the result {}", outcome.stdout);
        let (ips, gateways) = addresses(&outcome.stdout).with_context(unusable)?;
        let mac = mac(&outcome.stdout, &namespace.path()).with_context(unusable)?;
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
            ips,
            gateways,
            mac,
            attached,
        })
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

    /// Its first address.
    pub fn ip(&self) -> IpAddr {
        self.ips[0]
    }

    /// Its addresses, one a family.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// Its address of a family; panics if it has none.
    #[track_caller]
    pub fn ip_of(&self, family: Family) -> IpAddr {
        of_family(&self.ips, family, |ip| *ip)
    }

    /// Its first gateway.
    pub fn gateway(&self) -> IpAddr {
        self.gateways[0]
    }

    /// Its gateway of a family; panics if it has none.
    #[track_caller]
    pub fn gateway_of(&self, family: Family) -> IpAddr {
        of_family(&self.gateways, family, |ip| *ip)
    }

    /// The address of its interface.
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// Sends `count` echo requests, each as soon as the one before is answered.
    pub fn ping(&self, target: IpAddr, count: usize) -> Ping {
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

/// The addresses and gateways of a result.
fn addresses(result: &Value) -> Result<(Vec<IpAddr>, Vec<IpAddr>)> {
    let ips = result["ips"].as_array().context("no addresses")?;
    let address = |ip: &Value| -> Result<(IpAddr, IpAddr)> {
        let address: IpNetwork = ip["address"].as_str().context("no address")?.parse()?;
        let gateway = ip["gateway"].as_str().context("no gateway")?.parse()?;
        Ok((address.ip(), gateway))
    };
    let addresses = ips.iter().map(address).collect::<Result<Vec<_>>>()?;
    anyhow::ensure!(!addresses.is_empty(), "no addresses");
    Ok(addresses.into_iter().unzip())
}

/// The MAC of a result's interface in the sandbox.
fn mac(result: &Value, sandbox: &Path) -> Result<String> {
    let interfaces = result["interfaces"].as_array().context("no interfaces")?;
    let inside = interfaces
        .iter()
        .find(|interface| interface["sandbox"].as_str().map(Path::new) == Some(sandbox));
    let mac = inside.and_then(|interface| interface["mac"].as_str());
    Ok(mac.context("no interface in the sandbox")?.to_owned())
}
