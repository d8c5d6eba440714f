//! The loop that keeps the node as the cluster wants it.
//!
//! Everything that must outlive the agent is in the kernel or in a file when a round ends: whatever kills the agent, packets
//! and ADDs go on, and the next one finds what there is.

mod make;
mod probe;
mod report;
mod upkeep;
mod watcher;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use beeline::{
    child, cni,
    net::Netlink,
    node::{Lock, Plan, Record, Store},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::{
    backend::Event,
    conflist::{self, Conflist},
    health::Health,
    metrics::Metrics,
    options::Daemon,
    signals::Signals,
    view::{Judgement, View},
};

/// Changes that come so soon after another are made together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Where changes do not end, rounds begin so far apart.
const APART: Duration = Duration::from_secs(1);

/// When to try again what failed.
const RETRY: Duration = Duration::from_secs(5);

/// How often the loop goes round at least.
const BEAT: Duration = Duration::from_secs(10);

/// How often to look for what pods left behind.
const GC: Duration = Duration::from_secs(300);

/// What the loop works with.
pub(crate) struct Agent<'a> {
    pub(crate) options: &'a Daemon,
    /// `kubernetes` or `etcd`.
    pub(crate) backend: &'static str,
    pub(crate) netlink: &'a Netlink,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    /// Told whether pods get networking here.
    pub(crate) ready: watch::Sender<bool>,
}

/// What the loop knows.
struct State {
    view: View,
    /// Whether the backend has told what members there are.
    listed: bool,
    /// What the node was last made.
    made: Option<Made>,
    /// When there is something to do.
    due: Option<Instant>,
    /// When the last round began.
    began: Option<Instant>,
    /// Why the last round failed.
    failure: Option<String>,
    /// Why the backend cannot be reached.
    lost: Option<String>,
    uninstalled: bool,
    /// Keeps other agents away.
    lock: Option<Lock>,
    /// Hears what the plugin's calls took.
    calls: Option<JoinHandle<()>>,
}

/// What a node was made.
struct Made {
    conflist: Conflist,
    plan: Plan,
    store: Store,
    judgement: Judgement,
    record: Record,
    /// Whether the node may differ from it.
    doubtful: bool,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Another agent will take over.
    Replaced,
    /// The agent was uninstalled, and the node is to be left as it was before.
    Uninstalled,
}

impl Agent<'_> {
    /// Runs until it is told to end.
    pub(crate) async fn run(
        &self,
        mut events: mpsc::Receiver<Event>,
        mut signals: Signals,
    ) -> Result<End> {
        let mut state = State {
            view: View::new(&self.options.node_name),
            listed: false,
            made: None,
            due: None,
            began: None,
            failure: None,
            lost: Some("not reached yet".to_owned()),
            uninstalled: false,
            lock: None,
            calls: None,
        };
        tokio::select! {
            biased;
            // Whatever is half done: the next agent does it all again, as after a kill.
            () = signals.next() => {}
            ended = self.keep(&mut state, &mut events) => return ended.map(|never| match never {}),
        }
        // Whether the node is to be left may be among what is not read yet.
        while let Ok(event) = events.try_recv() {
            self.take(&mut state, event);
        }
        if let Some(calls) = state.calls.take() {
            // Its socket goes with it.
            calls.abort();
            let _ = calls.await;
        }
        Ok(match state.uninstalled {
            true => End::Uninstalled,
            false => End::Replaced,
        })
    }

    /// Keeps the node as the cluster wants it, for good.
    async fn keep(
        &self,
        state: &mut State,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<Infallible> {
        self.resume(state).await;
        let mut beat = interval(BEAT);
        let mut resync = interval(self.options.resync);
        let mut gc = interval(GC.min(self.options.gc_age));
        loop {
            self.health.beat();
            tokio::select! {
                event = events.recv() => self.take(state, event.context("the backend has ended")?),
                () = wait(state.due) => self.round(state).await,
                _ = resync.tick() => self.resync(state).await,
                _ = gc.tick() => self.collect(state).await,
                _ = beat.tick() => child::reap(),
            }
        }
    }

    /// Brings the node up as it was before, if it was: the backend may not be reached for long.
    async fn resume(&self, state: &mut State) {
        let pod_cidrs = conflist::former_pod_cidrs(&self.options.node);
        if pod_cidrs.is_empty() {
            return;
        }
        let stored = || {
            let conflist = conflist::render(&self.options.node, &pod_cidrs).ok()?;
            let plan = cni::plan_of(&conflist.plugin).ok()?;
            Store::new(&plan).cluster()
        };
        let cluster = stored().unwrap_or_default();
        let judgement = Judgement {
            pod_cidrs: pod_cidrs.clone(),
            peers: cluster.peers,
            problems: cluster.problems,
        };
        self.make(state, judgement).await;
    }

    fn take(&self, state: &mut State, event: Event) {
        match &event {
            Event::Lost(reason) => {
                if state.lost.as_ref() != Some(reason) {
                    tracing::warn!("{}: lost, going on as before: {reason}", self.backend);
                }
                state.lost = Some(reason.clone());
            }
            Event::Uninstalled(uninstalled) => state.uninstalled = *uninstalled,
            Event::Back | Event::All(_) | Event::Changed(_) | Event::Gone(_) => {
                if state.lost.take().is_some() {
                    tracing::info!("{}: connected", self.backend);
                }
            }
        }
        self.metrics.set_backend_up(state.lost.is_none());
        // The first list counts also if nothing is in it.
        let listed = matches!(event, Event::All(_));
        state.listed |= listed;
        if state.view.take(event) || listed && state.made.is_none() {
            let now = Instant::now();
            let next = state.began.map_or(now, |began| began + APART);
            state.due.get_or_insert(next.max(now + TOGETHER));
        }
    }

    async fn round(&self, state: &mut State) {
        state.due = None;
        state.began = Some(Instant::now());
        if !state.listed {
            return self.resume(state).await;
        }
        let judgement = state.view.judge();
        self.metrics
            .set_cluster(state.view.len(), judgement.problems.len());
        self.make(state, judgement).await;
    }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn wait(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
