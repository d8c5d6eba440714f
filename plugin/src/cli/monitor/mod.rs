//! `beeline monitor`: every packet that the programs judge, as it comes.

mod capture;
mod filter;
mod interfaces;
mod packet;
mod print;
mod wait;

use std::{
    fs::File,
    io::{self, BufWriter, ErrorKind, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use beeline_common::abi::MAX_CAPTURED;
use clap::{Args, ValueEnum};

use self::{capture::Capture, filter::Filter, interfaces::Interfaces, packet::Summary, wait::Ends};
use super::networks;
use crate::{
    datapath::{Datapath, Sighting},
    node::{Monitor, Store},
};

/// How often it looks for pods that are new.
const REFRESH: Duration = Duration::from_secs(1);

/// Enough for the headers that a line tells of.
const HEADERS: u32 = 128;

/// Options of `beeline monitor`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    networks: networks::Options,
    #[command(flatten)]
    filter: filter::Options,
    /// Ends after so many packets
    #[arg(long)]
    count: Option<u64>,
    /// Ends after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// How to print packets
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Writes packets to a file that tcpdump and Wireshark read, instead of printing them; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// How many bytes of each packet are captured; all by default
    #[arg(long, value_name = "BYTES", requires = "pcap", default_value_t = MAX_CAPTURED,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CAPTURED)))]
    snaplen: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// A line each, with the time in UTC
    Text,
    /// A JSON object a line
    Json,
}

/// Where packets go.
enum Sink {
    Text(BufWriter<io::Stdout>),
    Json(BufWriter<io::Stdout>),
    Capture(Capture<Box<dyn Write>>),
}

/// Shows packets until it is told to stop, or there were as many as were asked for.
pub(super) fn run(options: &Options) -> Result<()> {
    let stores = stores(&options.networks)?;
    let mut attachments = Vec::new();
    for store in &stores {
        attachments.extend(store.attachments()?);
    }
    let filter = Filter::new(&options.filter, &attachments)?;
    let mut sink = Sink::open(options)?;
    let on_stdout = options.pcap.as_ref().is_none_or(|file| is_stdout(file));
    // Before the first program is swapped: nothing must end this command without swapping it back.
    let ends = Ends::new(options.duration, on_stdout)?;
    let bytes = options.pcap.as_ref().map_or(HEADERS, |_| options.snaplen);
    let monitors = stores.iter().map(|store| Monitor::start(store, bytes));
    let mut session = Session {
        monitors: monitors.collect::<Result<_>>()?,
        filter,
        interfaces: Interfaces::default(),
        wanted: options.count.unwrap_or(u64::MAX),
        shown: 0,
        lost: 0,
    };
    eprintln!("monitoring; Ctrl-C ends it");
    let shown = session.run(&ends, &mut sink);
    let stopped = session.stop();
    match shown {
        // Whoever read it has seen enough.
        Err(error) if is_closed(&error) => {}
        shown => shown?,
    }
    stopped?;
    eprintln!("{} packets, {} lost", session.shown, session.lost);
    Ok(())
}

/// The networks that have a fast path.
fn stores(options: &networks::Options) -> Result<Vec<Store>> {
    let networks = options.networks()?.into_iter();
    let stores: Vec<Store> = networks
        .filter(|(_, record)| {
            let plan = &record.plan;
            Datapath::open(&plan.datapath.bpffs, &plan.network).is_some()
        })
        .map(|(store, _)| store)
        .collect();
    ensure!(
        !stores.is_empty(),
        "no network with a fast path on this node"
    );
    Ok(stores)
}

struct Session {
    monitors: Vec<Monitor>,
    filter: Filter,
    interfaces: Interfaces,
    wanted: u64,
    shown: u64,
    lost: u64,
}

impl Session {
    fn run(&mut self, ends: &Ends, sink: &mut Sink) -> Result<()> {
        let mut refresh = Instant::now() + REFRESH;
        while self.shown < self.wanted {
            let taps = self.monitors.iter().map(Monitor::waits_for);
            if ends.wait(taps.flat_map(|tap| tap.descriptors()), refresh)? {
                // What was told until now is shown still.
                self.stop()?;
                return self.show(sink);
            }
            self.show(sink)?;
            if Instant::now() >= refresh {
                self.monitors.iter_mut().try_for_each(Monitor::refresh)?;
                self.interfaces.refresh();
                refresh = Instant::now() + REFRESH;
            }
        }
        Ok(())
    }

    /// Shows what was told since the last time, in the order in which it happened.
    fn show(&mut self, sink: &mut Sink) -> Result<()> {
        let mut sightings = Vec::new();
        for monitor in &mut self.monitors {
            self.lost += monitor.tap().drain(&mut sightings)?;
        }
        sightings.sort_by_key(|sighting| sighting.time);
        for sighting in &sightings {
            let summary = Summary::of(&sighting.bytes);
            if self.shown < self.wanted && self.filter.takes(sighting, &summary) {
                sink.show(sighting, &summary, &mut self.interfaces)?;
                self.shown += 1;
            }
        }
        sink.flush()
    }

    /// Puts the pinned programs back, of every network even if that fails for one.
    fn stop(&mut self) -> Result<()> {
        let stopped: Vec<Result<()>> = self.monitors.iter_mut().map(Monitor::stop).collect();
        stopped.into_iter().collect()
    }
}

impl Sink {
    fn open(options: &Options) -> Result<Self> {
        let stdout = || BufWriter::new(io::stdout());
        let Some(path) = &options.pcap else {
            return Ok(match options.output {
                Output::Text => Self::Text(stdout()),
                Output::Json => Self::Json(stdout()),
            });
        };
        let out: Box<dyn Write> = if is_stdout(path) {
            Box::new(stdout())
        } else {
            let file = File::create(path);
            let file = file.with_context(|| format!("{}: create", path.display()))?;
            Box::new(BufWriter::new(file))
        };
        Ok(Self::Capture(Capture::new(out, options.snaplen)?))
    }

    fn show(
        &mut self,
        sighting: &Sighting,
        summary: &Summary,
        interfaces: &mut Interfaces,
    ) -> Result<()> {
        match self {
            Self::Text(out) => Ok(print::text(sighting, summary, interfaces, out)?),
            Self::Json(out) => Ok(print::json(sighting, summary, interfaces, out)?),
            Self::Capture(capture) => capture.add(sighting, interfaces),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Text(out) | Self::Json(out) => Ok(out.flush()?),
            Self::Capture(capture) => capture.flush(),
        }
    }
}

fn is_stdout(path: &std::path::Path) -> bool {
    path.as_os_str() == "-"
}

fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.root_cause().downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
