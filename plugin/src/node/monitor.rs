//! Monitoring a network: programs that tell of every packet take the place of the pinned ones, and give it back.

use anyhow::{Context as _, Result, bail};

use super::{Lock, Record, Store, fastpath};
use crate::datapath::{Datapath, Tap};

/// A network that is monitored as long as this value lives.
pub struct Monitor {
    store: Store,
    bytes: u32,
    tap: Tap,
    withdrawn: bool,
    _alone: Lock,
}

impl Monitor {
    /// Has the network's programs tell of that many bytes of each packet.
    ///
    /// # Errors
    ///
    /// Somebody monitors the network already, or its fast path is off.
    pub fn start(store: &Store, bytes: u32) -> Result<Self> {
        let (record, datapath) = open(store)?;
        let network = &record.plan.network;
        let Some(alone) = store.lock_monitor()? else {
            bail!("network {network}: is being monitored already");
        };
        let tap = Tap::open(datapath, &fastpath::settings(&record.plan), bytes)?;
        let mut monitor = Self {
            store: store.clone(),
            bytes,
            tap,
            withdrawn: false,
            _alone: alone,
        };
        monitor.refresh()?;
        Ok(monitor)
    }

    /// Has programs tell that were attached since, and starts over if all were loaded anew.
    ///
    /// # Errors
    ///
    /// The fast path is off by now.
    pub fn refresh(&mut self) -> Result<()> {
        // Nobody loads meanwhile: an old program must not take the place of a new one.
        open(&self.store)?;
        let _lock = self.store.lock_shared()?;
        if !self.tap.is_current() {
            let (record, datapath) = open(&self.store)?;
            self.tap = Tap::open(datapath, &fastpath::settings(&record.plan), self.bytes)?;
        }
        self.tap.cover()
    }

    /// The programs that tell.
    pub fn tap(&mut self) -> &mut Tap {
        &mut self.tap
    }

    /// The same, to wait for.
    pub fn waits_for(&self) -> &Tap {
        &self.tap
    }

    /// Puts the pinned programs back. What they have told until then can still be drained.
    pub fn stop(&mut self) -> Result<()> {
        if self.withdrawn || open(&self.store).is_err() {
            return Ok(());
        }
        let _lock = self.store.lock_shared()?;
        self.withdrawn = true;
        self.tap.withdraw()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!("monitor: put the programs back: {error:#}");
        }
    }
}

/// What a network was set up for, and its fast path.
fn open(store: &Store) -> Result<(Record, Datapath)> {
    let record = store.record();
    let record = record.with_context(|| format!("{}: no network", store.root().display()))?;
    let plan = &record.plan;
    let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network);
    let datapath =
        datapath.with_context(|| format!("network {}: no fast path to monitor", plan.network))?;
    Ok((record, datapath))
}
