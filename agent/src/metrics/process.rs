//! What the agent's process uses, by the names that client libraries of Prometheus' have for it.

use std::{fmt, fs};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// The agent's process.
#[derive(Debug)]
pub(super) struct Process {
    /// Unix time in seconds; it must not change, as clocks do.
    started: Option<f64>,
}

/// What procfs says of it now.
#[derive(Debug, PartialEq)]
struct Usage {
    resident_bytes: u64,
    cpu_seconds: f64,
    /// After the machine's.
    started_seconds: f64,
}

impl Process {
    pub(super) fn new() -> Self {
        let started = Usage::read().and_then(|usage| Ok(booted()? + usage.started_seconds));
        Self {
            started: logged(started),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(usage) = logged(Usage::read()) {
            let cpu = encoder.encode_descriptor(
                "process_cpu",
                "CPU time that the agent has used.",
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?;
            ConstCounter::new(usage.cpu_seconds).encode(cpu)?;
            let memory = encoder.encode_descriptor(
                "process_resident_memory",
                "Memory that the agent has in RAM.",
                Some(&Unit::Bytes),
                MetricType::Gauge,
            )?;
            ConstGauge::new(usage.resident_bytes).encode(memory)?;
        }
        if let Some(started) = self.started {
            let start = encoder.encode_descriptor(
                "process_start_time",
                "When the agent started, in Unix time.",
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            ConstGauge::new(started).encode(start)?;
        }
        Ok(())
    }
}

impl Usage {
    fn read() -> Result<Self> {
        let stat = read("/proc/self/stat")?;
        let memory = read("/proc/self/statm")?;
        Self::parse(&stat, &memory, ticks()?, page()?)
    }

    /// Takes what proc_pid_stat(5) and proc_pid_statm(5) describe.
    fn parse(stat: &str, memory: &str, ticks: f64, page: u64) -> Result<Self> {
        // The second field is the program's name in parentheses, in which anything can be.
        let (_, fields) = stat
            .rsplit_once(')')
            .context("/proc/self/stat: no program's name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| -> Result<f64> {
            let text = fields.get(number - 3);
            let text = text.with_context(|| format!("/proc/self/stat: no field {number}"))?;
            text.parse()
                .with_context(|| format!("/proc/self/stat: field {number} {text:?}"))
        };
        let pages = memory.split_whitespace().nth(1);
        let pages = pages.context("/proc/self/statm: no second field")?;
        let pages: u64 = pages
            .parse()
            .with_context(|| format!("/proc/self/statm: {pages:?}"))?;
        Ok(Self {
            resident_bytes: pages.saturating_mul(page),
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            started_seconds: field(22)? / ticks,
        })
    }
}

/// When the machine started, in Unix time.
fn booted() -> Result<f64> {
    let stat = read("/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    let seconds = line.context("/proc/stat: no btime")?;
    seconds
        .trim()
        .parse()
        .with_context(|| format!("/proc/stat: btime {seconds:?}"))
}

fn ticks() -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("sysconf: no CLK_TCK")?;
    Ok(ticks as f64)
}

fn page() -> Result<u64> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?.context("sysconf: no PAGE_SIZE")?;
    Ok(u64::try_from(size)?)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{path}: read"))
}

fn logged<T>(result: Result<T>) -> Option<T> {
    let warn = |error: &anyhow::Error| tracing::warn!("metrics of the process: {error:#}");
    result.inspect_err(warn).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_end_of_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 12345 1 1";
        let usage = Usage::parse(stat, "900 300 200 1 0 1 0", 100.0, 4096).unwrap();
        let expected = Usage {
            resident_bytes: 300 * 4096,
            cpu_seconds: 3.0,
            started_seconds: 123.45,
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn what_procfs_does_not_say_is_an_error() {
        for (stat, memory) in [
            ("", "1 2"),
            ("7 (a) S 1", "1 2"),
            ("7 (a) S 1 7 7 0 -1 0 1 0 0 0 x 50 0 0 20 0 1 0 1", "1 2"),
            ("7 (a) S 1 7 7 0 -1 0 1 0 0 0 1 50 0 0 20 0 1 0 1", "1"),
        ] {
            assert!(Usage::parse(stat, memory, 100.0, 4096).is_err(), "{stat}");
        }
    }

    #[test]
    fn this_process_started_a_while_ago_and_uses_memory() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        let age = super::super::now() - Process::new().started.unwrap();
        assert!((-2.0..3_600.0).contains(&age), "{age} s");
    }
}
