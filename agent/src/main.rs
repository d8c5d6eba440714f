//! `beeline-agent`: the node daemon of cluster mode.
//!
//! The state of the cluster lives in an engine that already exists, Kubernetes or etcd. A [`backend`] watches it and says
//! which nodes there are; [`view`] tells what that means for this node; [`agent`] makes it so, by the plugin's own
//! library: maps, routes, masquerade and the conflist. Packets and ADDs need none of this to run.
//!
//! ```text
//! kubernetes ┐
//!            ├─ Event ─> view ─> agent ─> beeline::node (maps, routes), conflist
//! etcd ──────┘                     └────> health, metrics ─> http
//! ```

mod agent;
mod backend;
mod calls;
mod conflist;
mod exec;
mod gc;
mod health;
mod http;
mod install;
mod metrics;
mod options;
mod runtime;
mod signals;
mod uninstall;
mod view;

use std::{io, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result, bail};
use beeline::net::with_netlink;
use clap::Parser as _;
use tokio::sync::{mpsc, watch};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    agent::{Agent, End},
    backend::{Events, etcd, kubernetes},
    health::Health,
    metrics::Metrics,
    options::{Daemon, LogFormat, Options, Verb},
    signals::Signals,
};

/// So many events wait for the loop; then the backend waits.
const BACKLOG: usize = 1024;

fn main() -> ExitCode {
    let options = Options::parse();
    log_to_stderr(options.log_format);
    match run(options.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Kubernetes(options) => serve("kubernetes", &options.daemon, async |events, ready| {
            kubernetes::run(&options, events, ready).await
        }),
        Verb::Etcd(options) if options.release => runtime()?.block_on(etcd::release(&options)),
        Verb::Etcd(options) => {
            let known = conflist::former_pod_cidrs(&options.daemon.node);
            serve("etcd", &options.daemon, async |events, _| {
                etcd::run(&options, known, events).await
            })
        }
        Verb::Install(options) => install::install(&options),
        Verb::Uninstall(node) => {
            exec::use_host(&node)?;
            runtime()?.block_on(uninstall::uninstall(&node))
        }
        Verb::ExecIn { root, command } => exec::exec_in(&root, &command),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime: start")
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("BEELINE_LOG")
        .from_env_lossy();
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(false);
    match format {
        LogFormat::Text => logger.init(),
        LogFormat::Json => logger.json().init(),
    }
}

/// Runs the daemon on what a backend tells.
fn serve(
    name: &'static str,
    options: &Daemon,
    backend: impl AsyncFnOnce(Events, watch::Receiver<bool>) -> Result<()>,
) -> Result<()> {
    exec::use_host(&options.node)?;
    with_netlink(async |netlink| {
        let signals = Signals::new()?;
        let (events, told) = mpsc::channel(BACKLOG);
        let (ready, is_ready) = watch::channel(false);
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new()));
        let agent = Agent {
            options,
            backend: name,
            netlink,
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            ready,
        };
        let end = tokio::select! {
            end = agent.run(told, signals) => end?,
            ended = http::serve(options.listen, health, metrics) => {
                return ended.and_then(|()| bail!("--listen {}: ended", options.listen));
            }
            ended = backend(events, is_ready) => match ended {
                Ok(()) => bail!("{name}: ended"),
                Err(error) => return Err(error),
            },
        };
        match end {
            End::Replaced => tracing::info!("ending; pods go on"),
            End::Uninstalled => {
                tracing::info!("the DaemonSet was deleted: taking beeline off this node");
                uninstall::uninstall(&options.node).await?;
            }
        }
        Ok(())
    })
}
