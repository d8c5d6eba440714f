//! The built-in allocator: what the reference host-local plugin does, over the same files.
//!
//! An operation holds the lock of the network from start to end. What finds an attachment reads every file.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::range::RangeSet;
use super::store::{Locked, Owner, Store};
use super::{AttachmentId, Exhausted, IpamConf, Lease, LeasedIp, resolv_conf};

/// Reserves one address of each range set, the `requested` ones where they fit; on failure nothing stays reserved.
pub fn allocate(conf: &IpamConf, id: &AttachmentId, requested: &[IpAddr]) -> Result<Lease> {
    let dns = conf
        .resolv_conf
        .as_deref()
        .map(resolv_conf::read)
        .transpose()?
        .unwrap_or_default();
    let store = Store::create(&conf.data_dir, &conf.network)?.lock()?;
    let mut taken = Vec::new();
    let ips = reserve_all(conf, &store, id, requested, &mut taken).inspect_err(|_| {
        for ip in &taken {
            // The first failure is the one to report; GC finds what this one leaves.
            let _ = store.release(*ip);
        }
    })?;
    Ok(Lease {
        ips,
        routes: conf.routes.clone(),
        dns,
    })
}

/// Releases every address of an attachment; works whatever has become of the ranges, and may be repeated.
pub fn release(data_dir: &Path, network: &str, id: &AttachmentId) -> Result<()> {
    let Some(store) = Store::open(data_dir, network)? else {
        return Ok(());
    };
    let store = store.lock()?;
    for ip in addresses_of(&store.reserved()?, id) {
        store.release(ip)?;
    }
    Ok(())
}

/// Fails unless an address is reserved for the attachment.
pub fn check(data_dir: &Path, network: &str, id: &AttachmentId) -> Result<()> {
    let reserved = Store::open(data_dir, network)?
        .map(|store| store.reserved())
        .transpose()?;
    let found = !addresses_of(&reserved.unwrap_or_default(), id).is_empty();
    ensure!(found, "network {network}: no address is reserved for {id}");
    Ok(())
}

/// Releases the addresses of every attachment that is not in `keep`, and says which those were.
pub fn gc(data_dir: &Path, network: &str, keep: &[AttachmentId]) -> Result<Vec<IpAddr>> {
    let Some(store) = Store::open(data_dir, network)? else {
        return Ok(Vec::new());
    };
    store
        .lock()?
        .retain(|owner| keep.iter().any(|id| owner.is(id) || owner.is_legacy(id)))
}

/// How many more attachments find an address in every range set; takes no lock, so it never waits.
pub fn free(conf: &IpamConf) -> Result<u128> {
    let reserved = Store::open(&conf.data_dir, &conf.network)?
        .map(|store| store.reserved())
        .transpose()?;
    let reserved = reserved.unwrap_or_default();
    let free = conf.ranges.iter().map(|set| {
        let used = reserved.iter().filter(|(ip, _)| set.allocates(*ip)).count();
        set.capacity().saturating_sub(used as u128)
    });
    Ok(free.min().unwrap_or(0))
}

fn reserve_all(
    conf: &IpamConf,
    store: &Locked,
    id: &AttachmentId,
    requested: &[IpAddr],
    taken: &mut Vec<IpAddr>,
) -> Result<Vec<LeasedIp>> {
    let reserved = store.reserved()?;
    let mut requested: Vec<IpAddr> = requested.to_vec();
    requested.sort();
    requested.dedup();

    let mut ips = Vec::new();
    for (i, set) in conf.ranges.iter().enumerate() {
        let wanted = requested.iter().position(|ip| set.range_of(*ip).is_some());
        let leased = match wanted.map(|at| requested.remove(at)) {
            Some(ip) => reserve_requested(set, store, id, ip)?,
            None => reserve_next(set, i, store, id, &reserved)?,
        };
        taken.push(leased.address.ip());
        store.set_last_reserved(i, leased.address.ip())?;
        ips.push(leased);
    }
    if !requested.is_empty() {
        let list: Vec<_> = requested.iter().map(IpAddr::to_string).collect();
        bail!("failed to allocate all requested IPs: {}", list.join(" "));
    }
    Ok(ips)
}

fn reserve_requested(
    set: &RangeSet,
    store: &Locked,
    id: &AttachmentId,
    ip: IpAddr,
) -> Result<LeasedIp> {
    let range = set
        .range_of(ip)
        .with_context(|| format!("requested IP {ip} not in range set {set}"))?;
    ensure!(
        ip != range.gateway(),
        "requested IP {ip} is subnet's gateway"
    );
    let address = range.with_prefix(ip)?;
    ensure!(
        store.reserve(ip, id)?,
        "requested IP address {ip} is not available in range set {set}"
    );
    Ok(LeasedIp {
        address,
        gateway: Some(range.gateway()),
    })
}

fn reserve_next(
    set: &RangeSet,
    index: usize,
    store: &Locked,
    id: &AttachmentId,
    reserved: &[(IpAddr, Owner)],
) -> Result<LeasedIp> {
    let mine = addresses_of(reserved, id);
    if let Some(ip) = mine.iter().find(|ip| set.range_of(**ip).is_some()) {
        bail!("{ip} has been allocated to {id}, duplicate allocation is not allowed");
    }
    let used: HashSet<IpAddr> = reserved.iter().map(|(ip, _)| *ip).collect();
    let candidates = set.candidates(store.last_reserved(index));
    for (ip, range) in candidates.filter(|(ip, _)| !used.contains(ip)) {
        let address = range.with_prefix(ip)?;
        if store.reserve(ip, id)? {
            return Ok(LeasedIp {
                address,
                gateway: Some(range.gateway()),
            });
        }
    }
    Err(Exhausted {
        ranges: set.to_string(),
    }
    .into())
}

/// The addresses of an attachment; files that name only its container count when no other does.
fn addresses_of(reserved: &[(IpAddr, Owner)], id: &AttachmentId) -> Vec<IpAddr> {
    let select = |wanted: &dyn Fn(&Owner) -> bool| -> Vec<IpAddr> {
        reserved
            .iter()
            .filter(|(_, owner)| wanted(owner))
            .map(|(ip, _)| *ip)
            .collect()
    };
    let own = select(&|owner| owner.is(id));
    if own.is_empty() {
        select(&|owner| owner.is_legacy(id))
    } else {
        own
    }
}

#[cfg(test)]
#[path = "host_local_tests.rs"]
mod tests;
