//! The bench: what a pod's packet and a pod's ADD cost, beside everything a user would pick instead.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::{interrupt, sweep};

mod add;
mod arena;
mod case;
mod contender;
mod host;
pub mod kube_proxy;
mod options;
mod program;
mod progress;
pub mod report;
mod traffic;
pub mod types;

pub use options::{Measure, Options, Verb};
use types::{FORMAT, Results};

/// Does what the options ask for.
pub fn run(options: &Options) -> Result<ExitCode> {
    // Reading results needs neither root nor the machine to itself.
    if let Verb::Read(verb) = &options.verb {
        return verb.run().map(|()| ExitCode::SUCCESS);
    }
    interrupt::watch()?;
    let _only = only_one()?;
    for leftover in [sweep::bench(), sweep::dead_owners()].concat() {
        eprintln!("  removed {leftover}");
    }
    let parts = match &options.verb {
        Verb::Run(measure) => (measure, [true, false, false]),
        Verb::Program(measure) => (measure, [false, true, false]),
        Verb::Add(measure) => (measure, [false, false, true]),
        Verb::All(measure) => (measure, [true, true, true]),
        Verb::Read(_) | Verb::Cleanup => return Ok(ExitCode::SUCCESS),
    };
    let measured = measure(parts.0, parts.1);
    // Also after an error or an interrupt: what was dropped must be gone.
    let left = sweep::bench();
    let results = measured?;
    results.write(&parts.0.output)?;
    println!(
        "{}: {} measurements of traffic, {} of programs, {} of ADD and DEL, {} skipped ({:.0} s)",
        parts.0.output.display(),
        results.traffic.len(),
        results.programs.len(),
        results.control.len(),
        results.skipped.len(),
        results.settings.elapsed_seconds
    );
    ensure!(left.is_empty(), "left behind, now removed: {left:?}");
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &Measure, [traffic, programs, control]: [bool; 3]) -> Result<Results> {
    let start = Instant::now();
    let mut results = Results {
        format: FORMAT,
        host: host::probe(),
        settings: options.settings(),
        ..Results::default()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    results.settings.started = now.map_or(0, |now| now.as_secs());
    if programs {
        program::measure(&mut results).context("programs")?;
    }
    if traffic {
        traffic::measure(options, &mut results).context("traffic")?;
    }
    if control {
        add::measure(options, &mut results).context("ADD and DEL")?;
    }
    results.settings.elapsed_seconds = start.elapsed().as_secs_f64();
    Ok(results)
}

/// Keeps a second bench from sweeping this one, and from sharing its CPUs; goes with the process, whatever happens.
fn only_one() -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name("beeline-bench").context("lock")?;
    match UnixListener::bind_addr(&address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("another bench is running")
        }
        other => other.context("lock"),
    }
}
