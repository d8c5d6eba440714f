//! The watch over pods that are new: what others put on their host veths takes them off the fast path.
//!
//! Plugins that come after beeline in the chain shape a pod (`bandwidth`: a tbf, and filters to an ifb) when beeline's
//! ADD has answered already. A redirect would skip all of that, so such a pod takes the slow path. As nothing calls
//! beeline at that moment, an ADD leaves a process behind that listens to the kernel, one a network, until no pod has
//! come for a while. It changes what the maps say, and carries no packet.
//!
//! As long as it is there, it also looks again for firewalls when nf_tables' rules have changed, and follows the MACs that
//! pods' interfaces are given.

use std::{
    env,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::unistd::setsid;

use super::{Attachment, Store, bridge, firewall, macs};
use crate::{
    datapath::Datapath,
    net::{
        Netlink,
        link::inside,
        tc::{self, Change, Watch},
    },
    nft::audit,
};

/// How long a chain of plugins may take after beeline's ADD; the reference portmap has been seen to wait for seconds for
/// a lock of iptables.
const LINGER: Duration = Duration::from_secs(60);

/// How often it looks whether it is needed still.
const TICK: Duration = Duration::from_millis(500);

/// Sees to it that somebody watches the pods of a network.
pub fn ensure(store: &Store) -> Result<()> {
    // Whoever holds the lock watches, and will hear of the new pod.
    if store.lock_watch()?.is_none() {
        return Ok(());
    }
    // Two ADDs may come to the same end here; of their children one gets the lock.
    let program = env::current_exe().context("own executable: find")?;
    // A child of its own, with nothing of the runtime's: neither its pipes, nor its environment, nor its directory.
    Command::new(&program)
        .arg("watch")
        .arg("--store")
        .arg(store.root())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{}: run", program.display()))?;
    Ok(())
}

/// Watches until the network is gone, or no pod has come for a while.
pub async fn watch(netlink: &Netlink, store: &Store) -> Result<()> {
    let Some(_lock) = store.lock_watch()? else {
        return Ok(());
    };
    // Not to be stopped together with whatever started this.
    let _ = setsid();
    let (mut watch, mut inside) = (Watch::open()?, inside::Watch::open()?);
    inspect(netlink, store, None).await?;
    macs::heard(netlink, store, inside::Change::Unknown).await?;
    let mut rules = Rules::default();
    // Rules may have come between the set-up and this.
    firewall::reconsider(netlink, store).await?;
    while is_needed(store) {
        if rules.have_settled()? {
            firewall::reconsider(netlink, store).await?;
        }
        tokio::select! {
            change = watch.next() => match change? {
                Change::Tc(ifindex) => inspect(netlink, store, Some(ifindex)).await?,
                Change::Unknown => inspect(netlink, store, None).await?,
                Change::Gone(_) => {}
            },
            change = inside.next() => macs::heard(netlink, store, change?).await?,
            () = tokio::time::sleep(TICK) => {}
        }
    }
    Ok(())
}

/// What has been seen of nf_tables' rule set.
#[derive(Default)]
struct Rules {
    /// Its generation at the last look.
    seen: Option<u32>,
    changing: bool,
}

impl Rules {
    /// Whether the rules have changed since they were last looked at, and do not change any more: kube-proxy and others
    /// write theirs bit by bit.
    fn have_settled(&mut self) -> Result<bool> {
        let now = audit::generation()?;
        let before = self.seen.replace(now);
        let changed = before.is_some_and(|before| before != now);
        let settled = self.changing && !changed;
        self.changing = changed;
        Ok(settled)
    }
}

/// Whether the network is there, and a pod came or went not long ago.
fn is_needed(store: &Store) -> bool {
    let changed = store.attachments_changed();
    changed.is_some_and(|time| time.elapsed().is_ok_and(|since| since < LINGER))
}

/// Takes pods off the fast path whose packets are shaped, or puts them back, all or the one behind a host veth.
pub(super) async fn inspect(netlink: &Netlink, store: &Store, only: Option<u32>) -> Result<()> {
    let Some(record) = store.record() else {
        return Ok(());
    };
    let plan = &record.plan;
    let Some(bridge) = bridge::find(netlink, &plan.bridge).await? else {
        return Ok(());
    };
    for attachment in store.attachments()? {
        let asked = only.is_none_or(|ifindex| ifindex == attachment.ifindex);
        if !asked || !attachment.fast_path {
            continue;
        }
        let slow = tc::shaping(attachment.ifindex)?;
        if slow == attachment.slow {
            continue;
        }
        let attachment = Attachment { slow, ..attachment };
        store.save_slow(&attachment)?;
        let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network);
        if let (Some(datapath), Some(pod)) = (datapath, attachment.pod(&bridge)) {
            datapath.change_pod(&attachment.ips(), pod)?;
        }
    }
    Ok(())
}
