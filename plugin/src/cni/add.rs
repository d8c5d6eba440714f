//! ADD: attaching a pod, or leaving no trace of the attempt.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{
    CniResult, Interface, Version,
    call::{Call, open_netns, refuse_own},
    container, plan, vlan,
};
use crate::{
    datapath::{Datapath, config::Mode},
    ipam::{IpamConf, Lease, host_local},
    net::{
        Netlink,
        link::{AlreadyExists, PortFlags, VethSpec},
        mac::Mac,
        netns::Netns,
        sysctl, with_netlink,
    },
    nft::{MacCheck, Masquerade},
    node::{Attachment, Node, Plan, watch},
};

/// Attaches the pod, and says with what, in the form of the configuration's version.
pub(super) fn add(call: &Call) -> super::Result<Value> {
    let netns = open_netns(&call.env)?;
    refuse_own(&call.env, &netns)?;
    let args = call.env.args()?;
    let mac = call.conf.mac(&args)?.map(Mac);
    let requested = call.conf.requested_ips(&args)?;
    let host_local = call.host_local()?;
    let plan = plan::plan(&call.conf, host_local.as_ref());
    let added = with_netlink(async |host| {
        let mut node = Node::enter(host, &plan).await?;
        let mut attaching = Attaching {
            call,
            host,
            plan: &plan,
            host_local: host_local.as_ref(),
            netns: &netns,
            mac: mac.unwrap_or_else(Mac::random),
            made: Vec::new(),
        };
        let added = attaching.run(&mut node, &requested).await;
        // Old versions have no place for some results; that too is to leave no trace.
        match added.and_then(|result| Ok(result.to_json(call.conf.version)?)) {
            Ok(result) => {
                if node.record.is_fast() {
                    // Without the watch the pod works, but on the plain bridge, or what shapes it may be passed by.
                    watch::ensure(&node.store).unwrap_or_else(|error| {
                        tracing::warn!("watch over new pods: {error:#}");
                    });
                }
                Ok(result)
            }
            Err(error) => {
                attaching.roll_back(&node).await;
                if let Err(error) = node.abandon(host).await {
                    tracing::warn!("roll-back: {error:#}");
                }
                Err(error)
            }
        }
    });
    Ok(added.map_err(|error| vlan::explain(call.conf.vlans.as_ref(), error))?)
}

/// What the IPAM plugin `kind` grants with the result that it printed.
pub(crate) fn leased(kind: &str, document: &[u8], version: Version) -> Result<Lease> {
    let result =
        CniResult::parse(document, version).with_context(|| format!("ipam {kind}: result"))?;
    if result.ips().is_empty() {
        bail!("IPAM plugin returned missing IP config");
    }
    Ok(result.into_lease())
}

/// Something that exists only for this attachment.
#[derive(Debug)]
enum Made {
    Record,
    Veth { ifindex: u32 },
    MacCheck,
    Lease,
    Masqueraded(Vec<IpNetwork>),
    FastPath(Box<Attachment>),
}

/// An ADD under way.
struct Attaching<'a> {
    call: &'a Call,
    host: &'a Netlink,
    plan: &'a Plan,
    host_local: Option<&'a IpamConf>,
    netns: &'a Netns,
    mac: Mac,
    made: Vec<Made>,
}

impl Attaching<'_> {
    async fn run(&mut self, node: &mut Node, requested: &[IpAddr]) -> Result<CniResult> {
        let conf = &self.call.conf;
        let mut attachment = self.record(node).await?;
        let host_mac = Mac::random();
        let ifindex = self.create_veth(node, &attachment, host_mac).await?;
        attachment.ifindex = ifindex;
        self.check_macs(&attachment)?;

        let mut result = CniResult::new();
        result.interface(Interface::on_host(
            &*node.bridge.name,
            node.bridge.mac.to_string(),
        ));
        result.interface(Interface::on_host(
            &*attachment.host_veth,
            host_mac.to_string(),
        ));
        let env = &self.call.env;
        let eth = Interface::in_netns(&*env.ifname, self.mac.to_string(), &*env.netns);
        let eth = result.interface(eth);
        if let Some(gateway) = &node.bridge.vlan_gateway {
            result.interface(Interface::on_host(&*gateway.name, gateway.mac.to_string()));
        }

        if self.call.ipam_uses_interface() {
            container::set_up(self.netns, &env.ifname)?;
            self.wait_for_port(node, &attachment).await?;
        }
        let mut lease = self.reserve(requested)?;
        attachment.addresses = lease.ips.iter().map(|ip| ip.address).collect();
        // A DEL after a kill needs to know them where something is made for each of them.
        let outside = plan::outside(self.plan, &attachment.addresses);
        if self.plan.joins_in_add() || !outside.is_empty() {
            node.store.save_attachment(&attachment)?;
        }
        container::complete(conf, &mut lease)?;

        if conf.is_gateway {
            for ip in &lease.ips {
                let Some(gateway) = ip.gateway else { continue };
                let gateway = IpNetwork::new(gateway, ip.address.prefix())?;
                node.ensure_gateway(self.host, gateway, conf.force_address)
                    .await?;
            }
        }
        container::configure(self.netns, &env.ifname, conf, &lease)?;
        self.forget_former_owner(node, &attachment).await?;
        self.masquerade(&attachment)?;
        if self.plan.joins_in_add() {
            attachment.fast_path = self.take_fast_path(node, &attachment)?;
        }
        if let Some(unmet) = self
            .plan
            .unmet_on_bridge()
            .filter(|_| !attachment.fast_path)
        {
            // At every ADD, unlike why: this pod is not what was asked for.
            tracing::warn!(container = attachment.container_id, "{unmet}");
        }
        if !conf.disable_container_interface {
            self.wait_for_port(node, &attachment).await?;
        }
        attachment.complete = true;
        node.store.save_attachment(&attachment)?;

        for ip in &lease.ips {
            result.ip(eth, ip.address, ip.gateway);
        }
        for route in lease.routes {
            result.route(route);
        }
        result.set_dns(if conf.dns.is_empty() {
            lease.dns
        } else {
            conf.dns.clone()
        });
        Ok(result)
    }

    /// Writes down what is about to be made, so that DEL and GC find it whatever happens.
    async fn record(&mut self, node: &Node) -> Result<Attachment> {
        let id = self.call.id();
        let host_veth = plan::host_veth_name(&self.plan.network, &id);
        if self.host.link(&host_veth).await?.is_some() {
            bail!(
                "attachment {} {}: exists already, with host veth {host_veth:?}",
                id.container_id,
                id.ifname
            );
        }
        let attachment = Attachment {
            container_id: id.container_id,
            ifname: id.ifname,
            host_veth,
            ifindex: 0,
            addresses: Vec::new(),
            netns: self.call.env.netns.clone(),
            complete: false,
            fast_path: false,
            mac: Some(self.mac),
            isolated: self.call.conf.port_isolation,
            pod_name: self.call.env.args()?.pod,
            slow: None,
        };
        node.store.save_attachment(&attachment)?;
        self.made.push(Made::Record);
        Ok(attachment)
    }

    async fn create_veth(
        &mut self,
        node: &Node,
        attachment: &Attachment,
        host_mac: Mac,
    ) -> Result<u32> {
        use std::os::fd::AsFd as _;
        let conf = &self.call.conf;
        let spec = VethSpec {
            host_name: &attachment.host_veth,
            host_mac,
            container_name: &attachment.ifname,
            container_mac: self.mac,
            netns: self.netns.as_fd(),
            controller: node.bridge.index,
            mtu: conf.mtu.map(u32::from).or(node.record.pod_mtu),
            port: PortFlags {
                hairpin: conf.hairpin_mode,
                isolated: conf.port_isolation,
            },
            vlans: self.plan.bridge.vlans.as_ref().map(|vlans| &vlans.port),
        };
        let created = self.host.create_veth(&spec).await;
        let ifindex = created.map_err(|error| match error.downcast_ref::<AlreadyExists>() {
            Some(exists) if exists.in_container => error.context(format!(
                "CNI_IFNAME {:?}: exists in the container already",
                attachment.ifname
            )),
            _ => error,
        })?;
        self.made.push(Made::Veth { ifindex });
        sysctl::refuse_router_advertisements(&attachment.host_veth)?;
        Ok(ifindex)
    }

    /// Has the bridge drop what names another source MAC than the pod's. The fast path leaves that to the bridge.
    fn check_macs(&mut self, attachment: &Attachment) -> Result<()> {
        if !self.call.conf.macspoofchk {
            return Ok(());
        }
        self.made.push(Made::MacCheck);
        let check = MacCheck {
            container_id: &attachment.container_id,
            ifname: &attachment.ifname,
        };
        check.apply(&attachment.host_veth, &self.mac.to_string())
    }

    fn reserve(&mut self, requested: &[IpAddr]) -> Result<Lease> {
        let call = self.call;
        if let Some(conf) = self.host_local {
            let lease = host_local::allocate(conf, &call.ipam_index(), &call.id(), requested)?;
            self.made.push(Made::Lease);
            return Ok(lease);
        }
        let Some(kind) = call.external_ipam() else {
            return Ok(Lease::default());
        };
        // From here on the plugin may hold something, also if it fails (SPEC, section 4).
        self.made.push(Made::Lease);
        let document = call.delegate(kind, "ADD")?;
        leased(kind, &document, call.conf.version)
    }

    /// The host may still know the MAC of the pod that had the address before.
    async fn forget_former_owner(&self, node: &Node, attachment: &Attachment) -> Result<()> {
        for address in &attachment.addresses {
            self.host
                .flush_neighbour(node.bridge.gateway().0, address.ip())
                .await?;
        }
        Ok(())
    }

    /// Masquerades addresses that the table's CIDRs do not cover, as only external IPAM gives them.
    fn masquerade(&mut self, attachment: &Attachment) -> Result<()> {
        let outside = plan::outside(self.plan, &attachment.addresses);
        if !self.plan.masquerade || outside.is_empty() {
            return Ok(());
        }
        self.made.push(Made::Masqueraded(outside.clone()));
        let masquerade = Masquerade {
            network: &self.plan.network,
        };
        outside
            .iter()
            .try_for_each(|address| masquerade.add_pod(*address))
    }

    /// Puts the pod on the fast path, unless it or the node has none. Says whether it is there.
    fn take_fast_path(&mut self, node: &Node, attachment: &Attachment) -> Result<bool> {
        let mode = self.plan.datapath.mode;
        if !node.record.is_fast() || attachment.addresses.is_empty() {
            return Ok(false);
        }
        let datapath = Datapath::open(&self.plan.datapath.bpffs, &self.plan.network)
            .context("datapath: its pins are gone");
        let taken = datapath.and_then(|datapath| {
            let taken = attachment.enter(&datapath, &node.bridge, self.plan.datapath.attach);
            taken.inspect_err(|_| {
                // What matters is the first error.
                let _ = attachment.leave(&datapath);
            })
        });
        match taken {
            Ok(()) => {
                self.made.push(Made::FastPath(Box::new(attachment.clone())));
                Ok(true)
            }
            Err(error) if mode == Mode::Ebpf => Err(error),
            Err(error) => {
                let id = &attachment.container_id;
                tracing::warn!(container = id, "the pod takes the plain bridge: {error:#}");
                Ok(false)
            }
        }
    }

    /// Waits until the bridge takes packets from the pod, and sends some to it. The kernel tells it that the container's
    /// end came up from a work queue, which may be behind: what the pod sent before, its first ARP request, would be lost,
    /// and so would what comes from elsewhere for a node's first pod.
    async fn wait_for_port(&self, node: &Node, attachment: &Attachment) -> Result<()> {
        let name = &attachment.host_veth;
        self.wait_until_operational(attachment.ifindex)
            .await
            .with_context(|| format!("host veth {name:?}"))?;
        if node.bridge.operational {
            return Ok(());
        }
        // Somebody else's bridge may run the spanning tree protocol, and takes half a minute.
        if let Err(error) = self.wait_until_operational(node.bridge.index).await {
            tracing::warn!("bridge {:?}: {error:#}", node.bridge.name);
        }
        Ok(())
    }

    async fn wait_until_operational(&self, index: u32) -> Result<()> {
        // In all as long as the reference plugin waits.
        let mut delay = Duration::from_micros(200);
        while delay < Duration::from_secs(2) {
            if self.host.link_at(index).await?.context("gone")?.operational {
                return Ok(());
            }
            tokio::time::sleep(delay).await;
            delay *= 2;
        }
        bail!("does not come up")
    }

    /// Takes back what was made, the last first. Every step runs even if another failed.
    async fn roll_back(&mut self, node: &Node) {
        while let Some(made) = self.made.pop() {
            if let Err(error) = self.take_back(node, &made).await {
                tracing::warn!("roll-back of {made:?}: {error:#}");
            }
        }
    }

    async fn take_back(&self, node: &Node, made: &Made) -> Result<()> {
        let id = self.call.id();
        match made {
            Made::Record => node.store.remove_attachment(&id.container_id, &id.ifname),
            Made::Veth { ifindex } => self.host.delete(*ifindex).await,
            Made::MacCheck => {
                let check = MacCheck {
                    container_id: &id.container_id,
                    ifname: &id.ifname,
                };
                check.delete()
            }
            Made::Lease => self.call.release(&id),
            Made::Masqueraded(addresses) => {
                let masquerade = Masquerade {
                    network: &self.plan.network,
                };
                addresses
                    .iter()
                    .try_for_each(|address| masquerade.remove_pod(*address))
            }
            Made::FastPath(attachment) => {
                match Datapath::open(&self.plan.datapath.bpffs, &self.plan.network) {
                    Some(datapath) => attachment.leave(&datapath),
                    None => Ok(()),
                }
            }
        }
    }
}
