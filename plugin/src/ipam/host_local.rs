//! The built-in allocator: what the reference host-local plugin does, over the same files.
//!
//! An operation holds the lock of the network from start to end. `index` is where it remembers who has which addresses, so
//! that it need not read every file to find an attachment's; where that cannot be written, it does.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use super::locked::{Held, Locked};
use super::range::{Range, RangeSet};
use super::store::{Owner, Store};
use super::{AttachmentId, Exhausted, IpamConf, Lease, LeasedIp, index::Index, resolv_conf};

/// Reserves one address of each range set, the `requested` ones where they fit; on failure nothing stays reserved.
pub fn allocate(
    conf: &IpamConf,
    index: &Path,
    id: &AttachmentId,
    requested: &[IpAddr],
) -> Result<Lease> {
    let dns = conf
        .resolv_conf
        .as_deref()
        .map(resolv_conf::read)
        .transpose()?
        .unwrap_or_default();
    let mut store = Store::create(&conf.data_dir, &conf.network)?.lock(Some(index))?;
    let held = store.held_by(id)?;
    let mut taken = Vec::new();
    let ips = match reserve_all(conf, &store, id, requested, &held, &mut taken) {
        Ok(ips) => ips,
        Err(error) => {
            let left = taken.iter().filter(|ip| store.release(**ip).is_err());
            // The first failure is the one to report; GC finds what another leaves.
            if left.count() == 0 {
                store.note(&held);
            }
            return Err(error);
        }
    };
    let owner = Owner::from(id);
    let before = held.ips.into_iter().filter(|_| held.owner == owner);
    let ips_of_id = before.chain(taken).collect();
    store.note(&Held {
        owner,
        ips: ips_of_id,
    });
    Ok(Lease {
        ips,
        routes: conf.routes.clone(),
        dns,
    })
}

/// Releases every address of an attachment; works whatever has become of the ranges, and may be repeated.
pub fn release(data_dir: &Path, network: &str, index: &Path, id: &AttachmentId) -> Result<()> {
    let Some(store) = Store::open(data_dir, network)? else {
        return Ok(());
    };
    let mut store = store.lock(Some(index))?;
    store.sweep()?;
    let held = store.held_by(id)?;
    if held.ips.is_empty() {
        return Ok(());
    }
    held.ips.iter().try_for_each(|ip| store.release(*ip))?;
    store.note(&Held {
        ips: Vec::new(),
        ..held
    });
    Ok(())
}

/// Fails unless an address is reserved for the attachment.
pub fn check(data_dir: &Path, network: &str, index: &Path, id: &AttachmentId) -> Result<()> {
    let missing = || format!("network {network}: no address is reserved for {id}");
    let store = Store::open(data_dir, network)?.with_context(missing)?;
    // What a file says is so, whether or not the index is up to date.
    let noted = Index::open(index).and_then(|index| index.get(&Owner::from(id)));
    if let Ok(ips) = noted
        && !ips.is_empty()
        && store.all_of(&ips, &Owner::from(id))?
    {
        return Ok(());
    }
    let reserved = store.reserved()?;
    let found = |(_, owner): &(IpAddr, Owner)| owner.is(id) || owner.is_legacy(id);
    ensure!(reserved.iter().any(found), missing());
    Ok(())
}

/// Releases the addresses of every attachment that is not in `keep`, and says which those were.
pub fn gc(
    data_dir: &Path,
    network: &str,
    index: &Path,
    keep: &[AttachmentId],
) -> Result<Vec<IpAddr>> {
    let open = || Store::open(data_dir, network);
    let Some(store) = open()? else {
        return Ok(Vec::new());
    };
    // It must read every file anyway.
    let released = store
        .lock(None)?
        .retain(|owner| keep.iter().any(|id| owner.is(id) || owner.is_legacy(id)))?;
    if let Some(store) = open()? {
        // Makes the index anew, unless it says what the files do: an earlier one may not have come so far.
        store.lock(Some(index))?;
    }
    Ok(released)
}

/// Who has addresses, and since when; takes no lock, so it is a snapshot. Files of the old form, which name no interface,
/// count as of `eth0`: [`gc`] keeps them by their containers.
pub fn owners(data_dir: &Path, network: &str) -> Result<Vec<(AttachmentId, SystemTime)>> {
    let Some(store) = Store::open(data_dir, network)? else {
        return Ok(Vec::new());
    };
    let reserved = store.reserved()?.into_iter();
    let owners = reserved.map(|(ip, owner)| {
        let ifname = owner.ifname.unwrap_or_else(|| "eth0".to_owned());
        let id = AttachmentId::new(owner.container_id, ifname);
        Ok(store.written(ip)?.map(|since| (id, since)))
    });
    owners.filter_map(Result::transpose).collect()
}

/// Whether a range set has no address left; takes no lock, so it never waits.
pub fn is_exhausted(conf: &IpamConf) -> Result<bool> {
    let store = Store::open(&conf.data_dir, &conf.network)?;
    let without_room = |used: &[IpAddr]| {
        conf.ranges.iter().any(|set| {
            let used = used.iter().filter(|ip| set.allocates(**ip)).count();
            used as u128 >= set.capacity()
        })
    };
    let Some(store) = store else {
        return Ok(without_room(&[]));
    };
    if !without_room(&store.addresses()?) {
        return Ok(false);
    }
    // Some files may be empty, and their addresses free.
    let reserved = store.reserved()?;
    let used: Vec<IpAddr> = reserved.into_iter().map(|(ip, _)| ip).collect();
    Ok(without_room(&used))
}

fn reserve_all(
    conf: &IpamConf,
    store: &Locked,
    id: &AttachmentId,
    requested: &[IpAddr],
    held: &Held,
    taken: &mut Vec<IpAddr>,
) -> Result<Vec<LeasedIp>> {
    let mut requested: Vec<IpAddr> = requested.to_vec();
    requested.sort();
    requested.dedup();

    let mut ips = Vec::new();
    for (i, set) in conf.ranges.iter().enumerate() {
        let wanted = requested.iter().position(|ip| set.range_of(*ip).is_some());
        let (ip, range) = match wanted.map(|at| requested.remove(at)) {
            Some(ip) => reserve_requested(set, store, id, ip)?,
            None => reserve_next(set, i, store, id, held)?,
        };
        taken.push(ip);
        store.set_last_reserved(i, ip)?;
        ips.push(LeasedIp {
            address: range.with_prefix(ip)?,
            gateway: Some(range.gateway()),
        });
    }
    if !requested.is_empty() {
        let list: Vec<_> = requested.iter().map(IpAddr::to_string).collect();
        bail!("failed to allocate all requested IPs: {}", list.join(" "));
    }
    Ok(ips)
}

fn reserve_requested<'a>(
    set: &'a RangeSet,
    store: &Locked,
    id: &AttachmentId,
    ip: IpAddr,
) -> Result<(IpAddr, &'a Range)> {
    let range = set
        .range_of(ip)
        .with_context(|| format!("requested IP {ip} not in range set {set}"))?;
    ensure!(
        ip != range.gateway(),
        "requested IP {ip} is subnet's gateway"
    );
    store
        .reserve(id, [(ip, range)])?
        .with_context(|| format!("requested IP address {ip} is not available in range set {set}"))
}

fn reserve_next<'a>(
    set: &'a RangeSet,
    index: usize,
    store: &Locked,
    id: &AttachmentId,
    held: &Held,
) -> Result<(IpAddr, &'a Range)> {
    if let Some(ip) = held.ips.iter().find(|ip| set.range_of(**ip).is_some()) {
        bail!("{ip} has been allocated to {id}, duplicate allocation is not allowed");
    }
    let candidates = set.candidates(store.last_reserved(index));
    store.reserve(id, candidates)?.ok_or_else(|| {
        let ranges = set.to_string();
        Exhausted { ranges }.into()
    })
}

#[cfg(test)]
#[path = "host_local_tests.rs"]
mod tests;
