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
    net::{Netlink, mac::Mac, route::Filter, with_netlink},
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
    with_netlink(async |host| {
        check_host(host, &plan, &previous).await?;
        check_fast_path(&plan, &Store::new(&plan), &id.container_id, &id.ifname)
    })?;
    if call.conf.macspoofchk {
        check_macs(&plan, &id, &previous)?;
    }
    netns.within(|| {
        with_netlink(async |container| check_container(container, &id.ifname, &previous).await)
    })?;
    Ok(())
}

async fn check_host(host: &Netlink, plan: &Plan, previous: &CniResult) -> Result<()> {
    let name = &plan.bridge.name;
    let bridge = host.link(name).await?;
    let bridge = bridge.with_context(|| format!("bridge {name:?}: missing"))?;
    ensure!(
        bridge.kind.as_deref() == Some("bridge"),
        "bridge {name:?}: is no bridge"
    );
    for interface in previous.interfaces() {
        if !interface.sandbox.is_empty() {
            continue;
        }
        let name = &interface.name;
        let link = host.link(name).await?;
        let link = link.with_context(|| format!("host interface {name:?}: missing"))?;
        check_mac(name, link.mac, &interface.mac)?;
        if link.kind.as_deref() == Some("veth") {
            ensure!(
                link.controller == Some(bridge.index),
                "host interface {name:?}: not on bridge {:?}",
                bridge.name
            );
        }
    }
    Ok(())
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

async fn check_container(container: &Netlink, ifname: &str, previous: &CniResult) -> Result<()> {
    let link = container.link(ifname).await?;
    let link = link.with_context(|| format!("container interface {ifname:?}: missing"))?;
    let ours = container_interface(previous, ifname)?;
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
            held.destination == route.dst && route.gw.is_none_or(|gw| held.gateway == Some(gw))
        });
        ensure!(found, "container: route to {} is missing", route.dst);
    }
    Ok(())
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
