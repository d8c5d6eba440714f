//! CHECK: whether an attachment still is as ADD left it.

use anyhow::{Context as _, Result, bail, ensure};
use ipnetwork::IpNetwork;

use super::{
    CniResult, Interface,
    call::{Call, open_netns},
    plan,
};
use crate::{
    datapath::Datapath,
    ipam::{AttachmentId, host_local},
    net::{Netlink, link::Link, mac::Mac, route::Filter, with_netlink},
    nft::MacCheck,
    node::{Attachment, Plan, Store},
};

/// Compares the node and the container with the previous result.
pub(super) fn check(call: &Call) -> super::Result<()> {
    let previous = call.conf.previous_result()?;
    let plan = call.plan();
    let netns = open_netns(&call.env)?;
    let id = call.id();
    if let Some(ipam) = call.host_local()? {
        host_local::check(&ipam.data_dir, &plan.network, &call.ipam_index(), &id)?;
    }
    if let Some(kind) = call.external_ipam() {
        call.delegate(kind, "CHECK")?;
    }
    let eth = netns.within(|| {
        with_netlink(async |container| {
            check_container(container, &call.env.netns, &id.ifname, &previous).await
        })
    })?;
    with_netlink(async |host| {
        check_host(host, &plan, &previous, &eth).await?;
        check_fast_path(&plan, &Store::new(&plan), &id.container_id, &id.ifname)
    })?;
    if call.conf.macspoofchk {
        check_macs(&plan, &id, &previous)?;
    }
    Ok(())
}

/// Checks the bridge, and the other end of the container's interface. Interfaces that others have put into the result are
/// theirs to check.
async fn check_host(host: &Netlink, plan: &Plan, previous: &CniResult, eth: &Link) -> Result<()> {
    let name = &plan.bridge.name;
    let bridge = host.link(name).await?;
    let bridge = bridge.with_context(|| format!("bridge {name:?}: missing"))?;
    ensure!(
        bridge.kind.as_deref() == Some("bridge"),
        "bridge {name:?}: is no bridge"
    );
    // Whether somebody else made it promiscuous does not matter.
    ensure!(
        bridge.promiscuous || !plan.bridge.promiscuous,
        "bridge {name:?}: is not promiscuous, as promiscMode has it"
    );
    for link in [name, &plan.bridge.gateway_interface()] {
        check_on_host(host, link, previous).await?;
    }
    let peer = eth.peer_index.context("container interface: no veth")?;
    let port = host.link_at(peer).await?;
    let port = port.context("container interface: its other end is not on the host")?;
    check_on_host(host, &port.name, previous).await?;
    ensure!(
        port.controller == Some(bridge.index),
        "host interface {:?}: not on bridge {name:?}",
        port.name
    );
    Ok(())
}

/// Checks that an interface is there, as the result says.
async fn check_on_host(host: &Netlink, name: &str, previous: &CniResult) -> Result<()> {
    let link = host.link(name).await?;
    let link = link.with_context(|| format!("host interface {name:?}: missing"))?;
    let mut interfaces = previous.interfaces().iter();
    let said = interfaces.find(|interface| interface.sandbox.is_empty() && interface.name == name);
    let said = said.with_context(|| format!("prevResult: interface {name:?} is not in it"))?;
    check_mac(name, link.mac, &said.mac)
}

fn check_fast_path(plan: &Plan, store: &Store, container_id: &str, ifname: &str) -> Result<()> {
    let Some(attachment) = store.attachment(container_id, ifname)? else {
        bail!("attachment {container_id} {ifname}: nothing is recorded of it");
    };
    let off = store
        .record()
        .is_none_or(|record| record.degraded.is_some());
    if off || !attachment.fast_path {
        return Ok(());
    }
    let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network)
        .context("datapath: its pins are gone")?;
    let held = datapath.pods()?;
    let Attachment {
        addresses, ifindex, ..
    } = &attachment;
    for address in addresses.iter().map(IpNetwork::ip) {
        let there = held
            .iter()
            .any(|(ip, pod)| *ip == address && pod.ifindex == *ifindex);
        ensure!(there, "fast path: {address} is missing from it");
    }
    for hook in Attachment::HOOKS {
        ensure!(
            datapath.is_attached(hook, *ifindex),
            "fast path: no program {} on {:?}",
            hook.name(),
            attachment.host_veth
        );
    }
    Ok(())
}

fn check_macs(plan: &Plan, id: &AttachmentId, previous: &CniResult) -> Result<()> {
    let host_veth = plan::host_veth_name(&plan.network, id);
    let mac = &container_interface(previous, &id.ifname)?.mac;
    let check = MacCheck {
        container_id: &id.container_id,
        ifname: &id.ifname,
    };
    ensure!(
        check.is_applied(&host_veth, &mac.to_lowercase())?,
        "macspoofchk: the rules for host interface {host_veth:?} are not as ADD made them"
    );
    Ok(())
}

async fn check_container(
    container: &Netlink,
    netns: &str,
    ifname: &str,
    previous: &CniResult,
) -> Result<Link> {
    let link = container.link(ifname).await?;
    let link = link.with_context(|| format!("container interface {ifname:?}: missing"))?;
    ensure!(
        link.kind.as_deref() == Some("veth"),
        "container interface {ifname:?}: is no veth"
    );
    let ours = container_interface(previous, ifname)?;
    ensure!(
        ours.sandbox == netns,
        "prevResult: interface {ifname:?} is in sandbox {:?}, not in CNI_NETNS {netns:?}",
        ours.sandbox
    );
    check_mac(ifname, link.mac, &ours.mac)?;
    let held = container.addresses(link.index).await?;
    for ip in previous.ips() {
        let elsewhere = previous
            .interface_of(ip)
            .is_some_and(|interface| interface.name != ifname || interface.sandbox.is_empty());
        ensure!(
            elsewhere || held.iter().any(|address| address.network == ip.address),
            "container interface {ifname:?}: address {} is missing",
            ip.address
        );
    }
    let routes = container.routes(Filter::default()).await?;
    for route in previous.routes() {
        let found = routes.iter().any(|held| {
            held.destination == network(route.dst)
                && route.gw.is_none_or(|gw| held.gateway == Some(gw))
        });
        ensure!(found, "container: route to {} is missing", route.dst);
    }
    Ok(link)
}

/// The network without the bits of a host that it may be written with.
fn network(written: IpNetwork) -> IpNetwork {
    IpNetwork::new(written.network(), written.prefix()).unwrap_or(written)
}

fn container_interface<'a>(previous: &'a CniResult, ifname: &str) -> Result<&'a Interface> {
    let mut interfaces = previous.interfaces().iter();
    interfaces
        .find(|interface| !interface.sandbox.is_empty() && interface.name == ifname)
        .with_context(|| format!("prevResult: interface {ifname:?} is not in it"))
}

fn check_mac(name: &str, held: Option<Mac>, expected: &str) -> Result<()> {
    if expected.is_empty() {
        return Ok(());
    }
    let held = held.map(|mac| mac.to_string()).unwrap_or_default();
    ensure!(
        held.eq_ignore_ascii_case(expected),
        "interface {name:?}: has MAC {held}, not {expected}"
    );
    Ok(())
}
