//! Taking pods onto the fast path when their ADD has ended.
//!
//! To attach a program, the kernel waits for an RCU grace period, some 10 ms, and holds the lock meanwhile that all
//! changes to interfaces need (`tcx_entry_sync`, Linux 6.6; RTNL). ADDs that did that themselves would take several
//! times as long, and wait for each other. So a pod starts on the plain bridge, which needs nothing of this, and
//! changes to the fast path a moment later: with all that it sends and receives at once, and but for the flows that
//! the stack translates.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::{
    datapath::{Datapath, config::AttachBy},
    ipam::AttachmentId,
    net::{Netlink, tc},
    node::{Attachment, Bridge, Record, Store, bridge, fastpath, macs},
};

/// When pods that came join.
#[derive(Clone, Copy)]
struct Pace {
    /// So long no pod shall have come: ADDs are not to wait for those before them.
    quiet: Duration,
    /// So long a pod waits at most for that.
    patience: Duration,
}

const BY_TCX: Pace = Pace {
    quiet: Duration::from_millis(30),
    patience: Duration::from_secs(1),
};

/// The reference `bandwidth` plugin, later in the chain, fails where a host veth has a clsact qdisc; beside the one that it
/// makes itself our filters do well.
const BY_CLSACT: Pace = Pace {
    quiet: Duration::from_secs(1),
    patience: Duration::from_secs(5),
};

/// So many pods go together: nobody can set the node up anew meanwhile.
const TOGETHER: usize = 8;

/// When pods that came are due.
pub(super) struct Due {
    pace: Pace,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Due {
    /// None has come yet.
    pub(super) fn new(store: &Store) -> Self {
        let by_tcx = |record: Record| record.plan.datapath.attach.is_tcx();
        let pace = match store.record().is_none_or(by_tcx) {
            true => BY_TCX,
            false => BY_CLSACT,
        };
        Self {
            pace,
            first: None,
            last: None,
        }
    }

    /// A pod has come.
    pub(super) fn put_off(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// Some are to be taken once more, unless they are waited for already.
    pub(super) fn again(&mut self) {
        if self.first.is_none() {
            self.put_off();
        }
    }

    /// Waits until they are due; forever if there are none.
    pub(super) async fn wait(&self) {
        match self.at() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn at(&self) -> Option<Instant> {
        let Pace { quiet, patience } = self.pace;
        let (first, last) = self.first.zip(self.last)?;
        Some((last + quiet).min(first + patience))
    }
}

/// Takes these onto the fast path, unless they are gone or the network has none. A pod that cannot be taken stays on
/// the plain bridge, and `beeline status` says why.
///
/// # Errors
///
/// Something that has nothing to do with the pods; it is worth another try.
pub(super) async fn take_on(netlink: &Netlink, store: &Store, pods: &[AttachmentId]) -> Result<()> {
    for pods in pods.chunks(TOGETHER) {
        // A network that is gone shall not come back by its lock.
        if !store.root().exists() {
            return Ok(());
        }
        let _lock = store.lock_shared()?;
        let Some(record) = store.record().filter(|record| record.is_fast()) else {
            return Ok(());
        };
        let conf = &record.plan.datapath;
        let datapath = Datapath::open(&conf.bpffs, &record.plan.network);
        let bridge = bridge::find(netlink, &record.plan.bridge).await?;
        let datapath = datapath.context("datapath: its pins are gone")?;
        let bridge = bridge.context("bridge: not as it was set up")?;
        let mut introduced = Vec::new();
        for pod in pods {
            introduced.extend(introduce(store, &datapath, &bridge, conf.attach, pod)?);
        }
        switch(store, &datapath, &bridge, &introduced)?;
        for pod in &introduced {
            // Its MAC may have changed when no program knew it.
            macs::follow(netlink, store, pod).await?;
        }
    }
    Ok(())
}

/// Attaches the programs, that look on for now; none if the pod is gone, or has it behind itself.
fn introduce(
    store: &Store,
    datapath: &Datapath,
    bridge: &Bridge,
    by: AttachBy,
    pod: &AttachmentId,
) -> Result<Option<Attachment>> {
    let (container_id, ifname) = (&pod.container_id, &pod.ifname);
    let Some(_lock) = store.lock_attachment(container_id, ifname)? else {
        return Ok(None);
    };
    let attachment = store.attachment(container_id, ifname)?;
    let Some(attachment) = attachment.filter(Attachment::waits) else {
        return Ok(None);
    };
    match attachment.introduce(datapath, bridge, by) {
        Ok(()) => Ok(Some(attachment)),
        Err(error) => {
            // What matters is the first error; of what stays the programs know that the pod is slow.
            let _ = attachment.leave(datapath);
            store.save_slow(&Attachment {
                slow: Some(format!("no fast path: {error:#}")),
                ..attachment
            })?;
            Ok(None)
        }
    }
}

/// Has the stack keep what it translates, and all else of the pods change the path.
fn switch(store: &Store, datapath: &Datapath, bridge: &Bridge, pods: &[Attachment]) -> Result<()> {
    let addresses: HashSet<_> = pods.iter().flat_map(Attachment::ips).collect();
    fastpath::remember_translated(datapath, &addresses)?;
    for pod in pods {
        let Some(_lock) = store.lock_attachment(&pod.container_id, &pod.ifname)? else {
            continue;
        };
        let pod = Attachment {
            slow: tc::shaping(pod.ifindex)?,
            fast_path: true,
            ..pod.clone()
        };
        store.save_slow(&pod)?;
        if let Some(entry) = pod.pod(bridge) {
            datapath.change_pod(&pod.ips(), entry)?;
        }
        // Last, as it lets a DEL in.
        store.save_attachment(&pod)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due() -> Due {
        Due {
            pace: BY_CLSACT,
            first: None,
            last: None,
        }
    }

    #[test]
    fn every_pod_that_comes_puts_them_off_until_they_have_waited_long_enough() {
        let mut due = due();
        assert_eq!(due.at(), None);
        due.put_off();
        let first = due.at().unwrap();
        due.put_off();
        assert!(due.at().unwrap() > first);
        due.last = due.last.map(|last| last + BY_CLSACT.patience);
        let patience = BY_CLSACT.patience - BY_CLSACT.quiet;
        assert_eq!(due.at(), Some(first + patience));
    }

    #[test]
    fn one_more_look_at_those_that_wait_puts_them_off_no_further() {
        let mut due = due();
        due.again();
        let once = due.at();
        assert!(once.is_some());
        due.again();
        assert_eq!(due.at(), once);
    }
}
