//! STATUS: whether an ADD would work now.

use super::{Code, Error, Result, call::Call, plan};
use crate::{
    datapath::{bpffs, config::Mode},
    ipam::host_local,
    node::{Plan, Record, Store},
    room,
};

/// Answers quickly and changes nothing: the runtime asks every few seconds and waits. Takes no lock.
pub(super) fn status(call: &Call) -> Result<()> {
    let ipam = call.host_local()?;
    let plan = plan::plan(&call.conf, ipam.as_ref());
    let record = Store::new(&plan).record();
    if let Some(why) = degraded(&plan, record.as_ref()) {
        let network = &plan.network;
        let message = format!("network {network:?}: no eBPF, and datapath.mode is \"ebpf\": {why}");
        return Err(Error::new(Code::NotAvailableAndDegraded, message));
    }
    let unavailable = |why: String| Err(Error::new(Code::NotAvailable, why));
    if let Some(ipam) = &ipam
        && host_local::is_exhausted(ipam)?
    {
        let network = &plan.network;
        return unavailable(format!(
            "network {network:?}: no free address in its ranges"
        ));
    }
    let data = ipam.as_ref().map(|ipam| &*ipam.data_dir);
    let state = Store::new(&plan);
    for (key, directory) in [
        ("ipam.dataDir", data),
        ("datapath.stateDir", Some(state.root())),
    ] {
        let Some(directory) = directory else { continue };
        if let Some(why) = room::shortage(directory) {
            return unavailable(format!("{key} {}: {why}", directory.display()));
        }
    }
    if let Some(kind) = call.external_ipam() {
        call.delegate(kind, "STATUS")?;
    }
    if let Some(record) = record {
        record.warn();
    }
    Ok(())
}

/// Why pods have not the fast path that the configuration insists on, if somebody must see to it.
///
/// What the next ADD repairs by itself is no reason to send none. Nor is a plain bridge where mode `auto` allows it:
/// runtimes take a node without pods' network for one that cannot run pods.
fn degraded(plan: &Plan, record: Option<&Record>) -> Option<String> {
    if plan.datapath.mode != Mode::Ebpf {
        return None;
    }
    let off = record.filter(|record| record.off);
    let no_place = || bpffs::check(&plan.datapath.bpffs).err();
    off.and_then(|record| record.degraded.clone())
        .or_else(|| no_place().map(|error| format!("{error:#}")))
}
