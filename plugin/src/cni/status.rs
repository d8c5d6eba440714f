//! STATUS: whether an ADD would work now.

use super::{Code, Error, Result, call::Call, plan};
use crate::{ipam::host_local, node::Store};

/// Answers quickly and changes nothing: the runtime asks every few seconds and waits. Takes no lock.
///
/// A node whose pods take the plain bridge against the plan can serve ADD, so that it says so on standard error only.
pub(super) fn status(call: &Call) -> Result<()> {
    let ipam = call.host_local()?;
    let plan = plan::plan(&call.conf, ipam.as_ref());
    let unavailable = |why: String| Err(Error::new(Code::NotAvailable, why));
    if let Some(ipam) = &ipam
        && host_local::is_exhausted(ipam)?
    {
        let network = &plan.network;
        return unavailable(format!(
            "network {network:?}: no free address in its ranges"
        ));
    }
    if let Some(kind) = call.external_ipam() {
        call.delegate(kind, "STATUS")?;
    }
    if let Some(record) = Store::new(&plan).record() {
        record.warn();
    }
    Ok(())
}
