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

mod backend;
mod exec;
mod health;
mod install;
mod options;
mod uninstall;
mod view;

use std::{io, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use options::{LogFormat, Options, Verb};

fn main() -> ExitCode {
    let options = Options::parse();
    log(options.log_format);
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
        Verb::Install(options) => install::install(&options),
        Verb::Uninstall(node) => {
            exec::use_host(&node)?;
            runtime()?.block_on(uninstall::uninstall(&node))
        }
        Verb::ExecIn { root, command } => exec::exec_in(&root, &command),
        Verb::Kubernetes(_) | Verb::Etcd(_) => bail!("not in this build"),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime: start")
}

fn log(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("BEELINE_LOG")
        .from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}
