//! Bulk throughput and small packets, measured by iperf3.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::sched_setaffinity;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Deserialize;

use crate::netns::Namespace;
use crate::{exec, rr};

const PORT: &str = "5201";

/// Payload of a small packet in bytes.
const SMALL: u32 = 64;

/// One run.
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
    /// Segments sent again; only the sender of TCP knows.
    #[serde(default)]
    pub retransmits: u64,
    /// Datagrams; only of UDP.
    #[serde(default)]
    pub packets: u64,
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

    /// Small packets received a second.
    ///
    /// From the bytes: what iperf3 calls the received packets counts those it knows to be lost.
    pub fn small_packets(&self) -> f64 {
        self.end.sum_received.bits_per_second / f64::from(8 * SMALL)
    }

    /// Share of the small packets sent that did not arrive.
    pub fn small_packets_lost(&self) -> f64 {
        let received = self.end.sum_received.bytes as f64 / f64::from(SMALL);
        let sent = self.end.sum_sent.packets.max(1) as f64;
        (1.0 - received / sent).max(0.0)
    }
}

/// Runs one TCP stream from `client` to a server at `ip`, both ends on one CPU.
pub fn tcp_stream(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    seconds: u32,
    cpu: usize,
) -> Result<Report> {
    tcp_streams(client, server, ip, seconds, 1, Some(cpu))
}

/// Runs so many TCP streams at once, both ends on one CPU if it is given.
pub fn tcp_streams(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    seconds: u32,
    streams: u32,
    cpu: Option<usize>,
) -> Result<Report> {
    let streams = streams.to_string();
    run(client, server, ip, seconds, cpu, &["--parallel", &streams])
}

/// Sends small UDP packets as fast as possible, both ends on one CPU if it is given.
pub fn udp_small(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    seconds: u32,
    cpu: Option<usize>,
) -> Result<Report> {
    let length = SMALL.to_string();
    let arguments = ["--udp", "--bitrate", "0", "--length", &length];
    run(client, server, ip, seconds, cpu, &arguments)
}

fn run(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    seconds: u32,
    cpu: Option<usize>,
    arguments: &[&str],
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
    command.args(arguments);
    let output = exec::output(pin(&mut command, cpu)?, b"")?;
    Report::parse(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} to {ip}", client.name()))
}

/// Has a command end with the thread that starts it, and run on one CPU only if it is given.
#[expect(unsafe_code, reason = "runs between fork and exec")]
pub fn pin(command: &mut Command, cpu: Option<usize>) -> Result<&mut Command> {
    let set = cpu.map(rr::only).transpose()?;
    let pin = move || {
        // Otherwise a killed demo's server would keep its namespace.
        set_pdeathsig(Signal::SIGKILL)?;
        match &set {
            Some(set) => Ok(sched_setaffinity(Pid::from_raw(0), set)?),
            None => Ok(()),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls on data it owns; it allocates nothing.
    Ok(unsafe { command.pre_exec(pin) })
}

/// A server for one test, ended on drop.
struct Server(Child);

impl Server {
    fn start(namespace: &Namespace, cpu: Option<usize>) -> Result<Self> {
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
    fn a_recorded_report_of_eight_streams_is_their_sum() {
        let report = Report::parse(include_str!("../fixtures/iperf3-tcp-8.json")).unwrap();
        assert_eq!(report.end.sum_received.bytes, 2_391_015_424);
        assert_eq!(report.end.sum_sent.retransmits, 25);
    }

    #[test]
    fn small_packets_are_counted_where_they_arrive() {
        let report = Report::parse(include_str!("../fixtures/iperf3-udp.json")).unwrap();
        assert_eq!(report.small_packets().round(), 63_353.0);
        let lost = report.small_packets_lost();
        assert!((lost - 0.595).abs() < 0.001, "{lost}");
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
