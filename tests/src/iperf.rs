//! Bulk throughput, measured by iperf3 with both ends on one CPU.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Deserialize;

use crate::exec;
use crate::netns::Namespace;

const PORT: &str = "5201";

/// One run of a TCP stream.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Totals of the run.
    pub end: End,
}

/// Totals of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct End {
    /// What the client sent.
    pub sum_sent: Sum,
    /// What the server received.
    pub sum_received: Sum,
}

/// Sums over a run's streams.
#[derive(Clone, Debug, Deserialize)]
pub struct Sum {
    /// Duration.
    pub seconds: f64,
    /// Payload.
    pub bytes: u64,
    /// Payload rate.
    pub bits_per_second: f64,
    /// Segments sent again; only the sender knows.
    #[serde(default)]
    pub retransmits: u64,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
}

impl Report {
    /// Reads iperf3's JSON.
    pub fn parse(json: &str) -> Result<Self> {
        if let Ok(Failure { error }) = serde_json::from_str(json) {
            bail!("iperf3: {error}");
        }
        serde_json::from_str(json).context("iperf3: not the JSON expected")
    }

    /// Payload received, in Gbit/s.
    pub fn gigabits(&self) -> f64 {
        self.end.sum_received.bits_per_second / 1e9
    }
}

/// Runs one TCP stream from `client` to a server at `ip`, both ends on one CPU.
pub fn tcp_stream(
    client: &Namespace,
    server: &Namespace,
    ip: Ipv4Addr,
    seconds: u32,
    cpu: usize,
) -> Result<Report> {
    let _server = Server::start(server, cpu)?;
    let mut command = client.command("iperf3");
    let (ip, seconds) = (ip.to_string(), seconds.to_string());
    command.args([
        "--json",
        "--client",
        &ip,
        "--port",
        PORT,
        "--time",
        &seconds,
        "--connect-timeout",
        "3000",
    ]);
    let output = exec::output(pin(&mut command, cpu)?, b"")?;
    Report::parse(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} to {ip}", client.name()))
}

/// Has a command run on one CPU only, and end with the thread that starts it.
pub fn pin(command: &mut Command, cpu: usize) -> Result<&mut Command> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    let pin = move || {
        // Otherwise a killed demo's server would keep its namespace.
        set_pdeathsig(Signal::SIGKILL)?;
        Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
    };
    // SAFETY: between fork and exec the closure makes two system calls on data it owns; it allocates nothing.
    Ok(unsafe { command.pre_exec(pin) })
}

/// A server for one test, ended on drop.
struct Server(Child);

impl Server {
    fn start(namespace: &Namespace, cpu: usize) -> Result<Self> {
        let mut command = namespace.command("iperf3");
        command.args(["--server", "--one-off", "--forceflush", "--port", PORT]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = pin(&mut command, cpu)?.spawn().context("iperf3: start")?;
        let stdout = child.stdout.take();
        let server = Self(child);
        let mut lines = BufReader::new(stdout.context("no standard output")?).lines();
        // Its own word is the only sign that connects are welcome which is not itself a connect.
        let ready = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("listening"));
        anyhow::ensure!(ready, "{}: iperf3 does not listen", namespace.name());
        // Reads on, so that the server's report does not meet a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself, unless the client failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_report_is_understood() {
        let report = Report::parse(include_str!("../fixtures/iperf3-tcp.json")).unwrap();
        assert_eq!(report.end.sum_received.bytes, 2_588_672_000);
        assert!(
            (report.gigabits() - 20.6).abs() < 0.1,
            "{}",
            report.gigabits()
        );
    }

    #[test]
    fn an_error_of_iperf3_is_passed_on() {
        let json =
            r#"{"start":{},"end":{},"error":"unable to connect to server: Connection refused"}"#;
        let error = Report::parse(json).unwrap_err();
        assert_eq!(
            error.to_string(),
            "iperf3: unable to connect to server: Connection refused"
        );
    }
}
