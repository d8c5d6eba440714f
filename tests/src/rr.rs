//! Latency: one byte to and fro, over one connection or one connection each; both ends on one CPU if it is given.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;

use crate::netns::Namespace;
use crate::traffic;

/// What one run of request and response came to.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Transactions a second.
    pub rate: f64,
    /// Median time of a transaction.
    pub p50: Duration,
    /// Time that one transaction in a hundred exceeds.
    pub p99: Duration,
}

impl Report {
    fn of(mut times: Vec<Duration>, elapsed: Duration) -> Result<Self> {
        ensure!(!times.is_empty(), "no transaction was completed");
        times.sort_unstable();
        let quantile = |percent: usize| times[(times.len() - 1) * percent / 100];
        Ok(Self {
            rate: times.len() as f64 / elapsed.as_secs_f64(),
            p50: quantile(50),
            p99: quantile(99),
        })
    }
}

/// Runs TCP request/response from `client` to a server at `ip`.
pub fn tcp(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    duration: Duration,
    cpu: impl Into<Option<usize>>,
) -> Result<Report> {
    let cpu = cpu.into();
    let listener = traffic::listen(server, ip)?;
    let mut stream = traffic::connect(
        client,
        SocketAddr::from((ip, listener.local_addr()?.port())),
    )?;
    let (accepted, _) = listener.accept().context("accept")?;
    accepted.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(move || pinned(cpu, || answer_tcp(accepted)));
        let client = scope.spawn(move || {
            pinned(cpu, || {
                transact(duration, || {
                    stream.write_all(&[0])?;
                    stream.read_exact(&mut [0])
                })
            })
        });
        client.join().expect("the client does not panic")
    })
}

/// Runs UDP request/response from `client` to a server at `ip`.
pub fn udp(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    duration: Duration,
    cpu: impl Into<Option<usize>>,
) -> Result<Report> {
    let cpu = cpu.into();
    let (client, server) = (
        traffic::udp_socket(client, traffic::any(ip))?,
        traffic::udp_socket(server, ip)?,
    );
    client
        .connect((ip, server.local_addr()?.port()))
        .context("connect")?;
    thread::scope(|scope| {
        scope.spawn(|| pinned(cpu, || answer_udp(&server)));
        let measured = scope.spawn(|| {
            pinned(cpu, || {
                let report = transact(duration, || {
                    client.send(&[0])?;
                    client.recv(&mut [0; 1]).map(drop)
                });
                // Two bytes ask the server to end.
                client
                    .send(&[0, 0])
                    .and(report.map_err(std::io::Error::other))
                    .map_err(Into::into)
            })
        });
        measured.join().expect("the client does not panic")
    })
}

/// Runs TCP connect/request/response/close from `client` to a server at `ip`.
pub fn tcp_connect(
    client: &Namespace,
    server: &Namespace,
    ip: IpAddr,
    duration: Duration,
    cpu: impl Into<Option<usize>>,
) -> Result<Report> {
    let cpu = cpu.into();
    // A port of this run's own: the connections that a former run left in TIME_WAIT do not count against it.
    let listener = traffic::listen(server, ip)?;
    let to = SocketAddr::from((ip, listener.local_addr()?.port()));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| pinned(cpu, || answer_connects(&listener, &ended)));
        let report = client.within(|| {
            pinned(cpu, || {
                transact(duration, || {
                    let mut stream = TcpStream::connect_timeout(&to, traffic::timeout())?;
                    stream.set_read_timeout(Some(traffic::timeout()))?;
                    stream.write_all(&[0])?;
                    stream.read_exact(&mut [0])
                })
            })
        });
        ended.store(true, Ordering::Relaxed);
        // The one more connection that lets the server see that; without one it would wait on.
        let woken = client.within(|| TcpStream::connect_timeout(&to, traffic::timeout()));
        if woken.is_ok() {
            server.join().expect("the server does not panic")?;
        } else {
            shutdown(listener.as_raw_fd(), Shutdown::Both).context("listener")?;
        }
        report
    })
}

fn transact(duration: Duration, mut once: impl FnMut() -> std::io::Result<()>) -> Result<Report> {
    let mut times = Vec::with_capacity(1 << 16);
    let start = Instant::now();
    let mut last = start;
    while last - start < duration {
        once().context("transaction")?;
        let now = Instant::now();
        times.push(now - last);
        last = now;
    }
    Report::of(times, last - start)
}

fn answer_tcp(mut stream: TcpStream) -> Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn answer_connects(listener: &TcpListener, ended: &AtomicBool) -> Result<()> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(_) if ended.load(Ordering::Relaxed) => return Ok(()),
            Err(error) => return Err(error).context("accept"),
        };
        if ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut byte = [0];
        if stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
    }
}

fn answer_udp(socket: &UdpSocket) -> Result<()> {
    let mut bytes = [0; 2];
    loop {
        match socket.recv_from(&mut bytes)? {
            (1, client) => drop(socket.send_to(&bytes[..1], client)?),
            _ => return Ok(()),
        }
    }
}

/// Runs `f` with the calling thread on one CPU, if one is given; the thread is to end afterwards.
fn pinned<T>(cpu: Option<usize>, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Some(cpu) = cpu {
        sched_setaffinity(Pid::from_raw(0), &only(cpu)?).with_context(|| format!("CPU {cpu}"))?;
    }
    f()
}

/// The set of one CPU.
pub(crate) fn only(cpu: usize) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    Ok(set)
}

/// The last CPU this process may use: the first is where most interrupts go.
pub(crate) fn last_cpu() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("CPU affinity")?;
    let last = (0..CpuSet::count())
        .rev()
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    last.context("no CPU is allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_gives_rate_and_quantiles() {
        let times = (1..=100).map(Duration::from_micros).collect();
        let report = Report::of(times, Duration::from_millis(10)).unwrap();
        assert_eq!(report.rate, 10_000.0);
        assert_eq!(
            (report.p50, report.p99),
            (Duration::from_micros(50), Duration::from_micros(99))
        );
        assert!(Report::of(Vec::new(), Duration::ZERO).is_err());
    }
}
