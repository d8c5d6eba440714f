//! The watch over pods that are new: it takes them onto the fast path, and what others put on their host veths takes
//! them off again.
//!
//! Plugins that come after beeline in the chain shape a pod (`bandwidth`: a tbf, and filters to an ifb) when beeline's
//! ADD has answered already. A redirect would skip all of that, so such a pod takes the slow path. As nothing calls
//! beeline at that moment, an ADD leaves a process behind that listens to the kernel, one a network, until no pod has
//! come for a while. It attaches programs and changes what the maps say, and carries no packet.
//!
//! As long as it is there, it also looks again for firewalls when nf_tables' rules or IPsec policies have changed, and
//! follows the MACs that pods' interfaces are given.

mod join;
mod pods;

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use nix::unistd::setsid;
use tokio::time::MissedTickBehavior;

use self::{join::Due, pods::Pods};
use super::{Attachment, Store, bridge, firewall, macs};
use crate::{
    child,
    datapath::Datapath,
    ipam::AttachmentId,
    net::{
        Netlink,
        link::inside,
        tc::{self, Change, Watch},
    },
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
    child::start(&[
        "watch".as_ref(),
        "--store".as_ref(),
        store.root().as_os_str(),
    ])
    .map(child::leave)
}

/// Why nobody could watch now: the user's instances of inotify may be used up.
pub fn refused() -> Option<std::io::Error> {
    inotify::Inotify::init().err()
}

/// Watches until the network is gone, or no pod has come for a while.
pub async fn watch(netlink: &Netlink, store: &Store) -> Result<()> {
    // Not to be stopped together with whatever started this.
    let _ = setsid();
    loop {
        let Some(lock) = store.lock_watch()? else {
            return Ok(());
        };
        let mut need = Need::new(store);
        serve(netlink, store, || need.lasts()).await?;
        drop(lock);
        // An ADD that came in between has left its pod to whoever held the lock.
        if !need.lasts() {
            return Ok(());
        }
    }
}

/// Watches for good, in a process that stays: an agent. While it does, ADDs start no watch of their own.
pub async fn keep(netlink: &Netlink, store: &Store) -> Result<()> {
    loop {
        // An ADD may have been first; its watch ends when no pod has come for a while.
        let Some(_lock) = store.lock_watch()? else {
            tokio::time::sleep(TICK).await;
            continue;
        };
        store.ensure_attachments_dir()?;
        serve(netlink, store, || store.root().exists()).await?;
    }
}

/// Goes on whatever fails with one pod: others come.
async fn serve(
    netlink: &Netlink,
    store: &Store,
    mut is_needed: impl FnMut() -> bool,
) -> Result<()> {
    let mut changes = Watch::open()?;
    let mut inside = inside::Watch::open()?;
    let mut pods = Pods::open(store)?;
    inspect_all(netlink, store, &pods).await;
    log(macs::heard(netlink, store, inside::Change::Unknown).await);
    // Rules may have come between the set-up and this.
    log(firewall::reconsider(netlink, store).await);
    let mut rules = Rules::default();
    let mut due = Due::new(store);
    due.put_off();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while is_needed() {
        tokio::select! {
            change = changes.next() => match change? {
                Change::Tc(ifindex) => {
                    if let Some(pod) = pods.behind(ifindex) {
                        log(inspect(netlink, store, pod).await);
                    }
                }
                Change::Unknown => inspect_all(netlink, store, &pods).await,
                Change::Gone(ifindex) => pods.forget(ifindex),
            },
            change = inside.next() => log(macs::heard(netlink, store, change?).await),
            changed = pods.changed() => {
                changed?;
                due.put_off();
            }
            () = due.wait() => {
                due = Due::new(store);
                match join::take_on(netlink, store, &pods.new).await {
                    Ok(()) => pods.new.clear(),
                    error => log(error),
                }
            }
            _ = tick.tick() => {
                if !pods.new.is_empty() {
                    // What failed is tried again.
                    due.again();
                }
                match rules.have_settled() {
                    Ok(true) => log(firewall::reconsider(netlink, store).await),
                    settled => log(settled.map(drop)),
                }
            }
        }
    }
    Ok(())
}

fn log(done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!("watch: {error:#}");
    }
}

async fn inspect_all(netlink: &Netlink, store: &Store, pods: &Pods<'_>) {
    for pod in pods.all() {
        log(inspect(netlink, store, pod).await);
    }
}

/// What has been seen of nf_tables' rule set and of IPsec policies.
#[derive(Default)]
struct Rules {
    /// Their generation at the last look.
    seen: Option<firewall::Generation>,
    changing: bool,
}

impl Rules {
    /// Whether the rules have changed since they were last looked at, and do not change any more: kube-proxy and others
    /// write theirs bit by bit.
    fn have_settled(&mut self) -> Result<bool> {
        let now = firewall::generation()?;
        let before = self.seen.replace(now);
        let changed = before.is_some_and(|before| before != now);
        let settled = self.changing && !changed;
        self.changing = changed;
        Ok(settled)
    }
}

/// When a pod last came or went.
struct Need<'a> {
    store: &'a Store,
    /// What the clock on the wall said then; it may be set at any time, and only tells one change from another.
    changed: Option<SystemTime>,
    seen: Instant,
}

impl<'a> Need<'a> {
    /// One that began now: whoever starts a watch has a pod for it.
    fn new(store: &'a Store) -> Self {
        Self {
            store,
            changed: store.attachments_changed(),
            seen: Instant::now(),
        }
    }

    /// Whether the network is there, and a pod came or went not long ago.
    fn lasts(&mut self) -> bool {
        let changed = self.store.attachments_changed();
        if changed != self.changed {
            self.changed = changed;
            self.seen = Instant::now();
        }
        changed.is_some() && self.seen.elapsed() < LINGER
    }
}

/// Takes a pod off the fast path if its packets are shaped, or puts it back.
async fn inspect(netlink: &Netlink, store: &Store, pod: &AttachmentId) -> Result<()> {
    let attachment = store.attachment(&pod.container_id, &pod.ifname)?;
    let Some(attachment) = attachment.filter(|attachment| attachment.fast_path) else {
        return Ok(());
    };
    let slow = tc::shaping(attachment.ifindex)?;
    if slow == attachment.slow {
        return Ok(());
    }
    let Some(record) = store.record() else {
        return Ok(());
    };
    let plan = &record.plan;
    let Some(bridge) = bridge::find(netlink, &plan.bridge).await? else {
        return Ok(());
    };
    let attachment = Attachment { slow, ..attachment };
    store.save_slow(&attachment)?;
    let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network);
    if let (Some(datapath), Some(pod)) = (datapath, attachment.pod(&bridge)) {
        datapath.change_pod(&attachment.ips(), pod)?;
    }
    Ok(())
}
