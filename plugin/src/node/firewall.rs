//! Firewalls that the fast path would defeat, IPsec policies among them, and what follows from them.

use anyhow::Result;

use super::{Plan, Record, Store, Whole, control, peers::Neighbourhood, remove, setup};
use crate::{
    datapath::config::{Mode, overlap},
    net::{Netlink, ipsec},
    nft::audit::{self, Scope},
};

/// What in netfilter and xfrm the fast path of a network would defeat, each in one line.
pub(super) fn defeated(plan: &Plan, neighbourhood: &Neighbourhood) -> Vec<String> {
    let uplinks: Vec<String> = neighbourhood
        .links()
        .map(|link| link.name.clone())
        .collect();
    let peers: Vec<_> = plan.peers().iter().map(|peer| peer.cidr).collect();
    let scope = Scope {
        bridge: &plan.bridge.name,
        uplinks: &uplinks,
        pod_cidrs: &plan.pod_cidrs,
        peers: &peers,
    };
    // What cannot be told may be there.
    let unknown = |error| vec![format!("{error:#}")];
    let rules = audit::audit(&scope).map_or_else(unknown, |findings| {
        findings.iter().map(ToString::to_string).collect()
    });
    let policies = ipsec::policies().map_or_else(unknown, |policies| {
        let met = policies
            .iter()
            .filter(|policy| concerns_pods(policy, &scope));
        met.map(ToString::to_string).collect()
    });
    let default = ipsec::blocks_by_default().map_or_else(unknown, |blocks| {
        let drops = "ipsec default policy block drops pods' packets".to_owned();
        blocks.then_some(drops).into_iter().collect()
    });
    [rules, policies, default].concat()
}

/// Whether pods' packets may meet an IPsec policy. The fast path passes by the kernel's xfrm too.
fn concerns_pods(policy: &ipsec::Policy, scope: &Scope<'_>) -> bool {
    let pods = scope.pod_cidrs.iter().chain(scope.peers);
    let any = scope.pod_cidrs.is_empty();
    let are_pods = |network| any || pods.clone().any(|cidr| overlap(cidr, network));
    are_pods(&policy.source) && are_pods(&policy.destination)
}

/// What tells by a change that the firewalls may have changed: of nf_tables' rules, and of IPsec policies.
pub(super) type Generation = (u32, (u32, bool));

/// What it is now.
pub(super) fn generation() -> Result<Generation> {
    Ok((audit::generation()?, ipsec::generation()?))
}

/// Why pods take the slow path where these were found.
pub(super) fn reason(defeated: &[String]) -> String {
    let more = match defeated.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    let first = defeated.first().map_or("", String::as_str);
    format!(
        "the fast path would pass by a firewall: {first}{more}; datapath.mode \"ebpf\" does so knowingly"
    )
}

/// Looks again, and takes all pods off the fast path, or puts them back, if that is called for.
pub(super) async fn reconsider(netlink: &Netlink, store: &Store) -> Result<()> {
    let Some(record) = store.record() else {
        return Ok(());
    };
    let plan = &record.plan;
    let barred = record.off || remove::is_removed(&record) || plan.bars_fast_path().is_some();
    if barred || plan.datapath.mode != Mode::Auto {
        return Ok(());
    }
    let whole = Whole::of(plan, store).plan;
    let neighbourhood = Neighbourhood::find(netlink, &whole).await?;
    let found = defeated(&whole, &neighbourhood);
    if found.is_empty() == record.firewall.is_empty() {
        return Ok(());
    }
    if found.is_empty() {
        return control::load(netlink, plan, store, Vec::new())
            .await
            .map(drop);
    }
    leave(store, found)
}

/// Takes all pods off the fast path.
fn leave(store: &Store, found: Vec<String>) -> Result<()> {
    let _lock = store.lock_exclusive()?;
    let Some(record) = store.record() else {
        return Ok(());
    };
    let record = Record {
        degraded: Some(reason(&found)),
        firewall: found,
        ..record
    };
    store.save_record(&record)?;
    setup::unload(&record.plan)
}
