//! Traffic that goes on while something changes, and whether any of it failed.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{Shutdown, shutdown};

use crate::netns::Namespace;
use crate::pod::Pod;
use crate::traffic::{connect, listen, timeout};

/// Connections a second between two pods, unless the machine is slower.
const RATE: u32 = 500;

/// What a client sends over a short connection, and what over its last.
const QUESTION: u8 = b'?';
const END: u8 = b'!';

/// So many short connections have to succeed before the change, and after it.
const ENOUGH: usize = 100;

/// An end of the traffic.
pub trait End: Sync {
    /// The namespace of its sockets.
    fn namespace(&self) -> &Namespace;

    /// Its address there.
    fn ip(&self) -> IpAddr;
}

impl End for Pod {
    fn namespace(&self) -> &Namespace {
        self.namespace()
    }

    fn ip(&self) -> IpAddr {
        self.ip()
    }
}

/// What became of the traffic between two pods.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Short connections: opened, asked, answered, closed.
    pub connections: usize,
    /// Questions and answers over the one long connection.
    pub exchanges: usize,
    /// What failed; both kinds go on after a failure.
    pub failures: Vec<String>,
    /// Connections that either pod's kernel gave up, and resets that it sent but for the answers to segments sent again:
    /// of a connection that is closed on both sides the listener knows nothing.
    pub resets: u64,
}

impl Tally {
    /// Panics unless there was traffic, and all of it arrived.
    #[track_caller]
    pub fn assert_unbroken(&self) {
        let Self {
            connections,
            exchanges,
            failures,
            resets,
        } = self;
        assert!(failures.is_empty(), "{self:?}");
        assert_eq!(*resets, 0, "resets: {self:?}");
        assert!(*connections >= 2 * ENOUGH, "{connections} connections");
        assert!(*exchanges > 0, "no exchange over the long connection");
    }
}

/// Runs `change` while each client asks its server over short connections and over a long one; both before and after the
/// change some are completed.
pub fn during<T: Send>(
    pairs: &[(&impl End, &impl End)],
    change: impl FnOnce() -> T + Send,
) -> Result<(T, Vec<Tally>)> {
    during_at(RATE, pairs, change)
}

/// The same with so many short connections a second between two ends: each takes a port away for a minute.
pub fn during_at<T: Send>(
    rate: u32,
    pairs: &[(&impl End, &impl End)],
    change: impl FnOnce() -> T + Send,
) -> Result<(T, Vec<Tally>)> {
    let before = resets(pairs)?;
    let stop = AtomicBool::new(false);
    let done: Vec<AtomicUsize> = pairs.iter().map(|_| AtomicUsize::new(0)).collect();
    let (changed, tallies) = thread::scope(|scope| -> Result<_> {
        let running: Vec<_> = pairs
            .iter()
            .zip(&done)
            .map(|(&(client, server), done)| {
                let stop = &stop;
                let short = scope.spawn(move || short(client, server, rate, done, stop));
                let long = scope.spawn(move || long(client, server, stop));
                (short, long)
            })
            .collect();
        let waited = wait_for_more(&done);
        let changed = change();
        let waited = waited.and_then(|()| wait_for_more(&done));
        stop.store(true, Ordering::Relaxed);
        let tallies: Result<Vec<Tally>> = running
            .into_iter()
            .map(|(short, long)| {
                let (exchanges, failed) = long.join().expect("no panic")?;
                let mut tally = short.join().expect("no panic")?;
                tally.exchanges = exchanges;
                tally.failures.extend(failed);
                Ok(tally)
            })
            .collect();
        let tallies = tallies?;
        waited.with_context(|| format!("{tallies:?}"))?;
        Ok((changed, tallies))
    })?;
    let after = resets(pairs)?;
    let resets = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.since(before));
    let with_resets = |(tally, resets)| Tally { resets, ..tally };
    Ok((
        changed,
        tallies.into_iter().zip(resets).map(with_resets).collect(),
    ))
}

fn wait_for_more(done: &[AtomicUsize]) -> Result<()> {
    let start: Vec<usize> = done.iter().map(|d| d.load(Ordering::Relaxed)).collect();
    let deadline = Instant::now() + 4 * timeout();
    let enough = || {
        let now = done.iter().map(|d| d.load(Ordering::Relaxed));
        now.zip(&start).all(|(now, start)| now >= start + ENOUGH)
    };
    while !enough() {
        ensure!(Instant::now() < deadline, "traffic: too few connections");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// One connection after the other, each with one question.
fn short(
    client: &impl End,
    server: &impl End,
    rate: u32,
    done: &AtomicUsize,
    stop: &AtomicBool,
) -> Result<Tally> {
    let listener = listen(server.namespace(), server.ip())?;
    let to = SocketAddr::from((server.ip(), listener.local_addr()?.port()));
    thread::scope(|scope| {
        let answering = scope.spawn(|| answer(&listener));
        let tally = client.namespace().within(|| {
            let mut tally = Tally::default();
            let mut next = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                match ask(to, QUESTION) {
                    Ok(()) => tally.connections += 1,
                    Err(error) => tally.failures.push(format!("{to}: {error:#}")),
                }
                done.fetch_add(1, Ordering::Relaxed);
                next += Duration::from_secs(1) / rate;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            tally
        });
        let ended = client.namespace().within(|| ask(to, END));
        if let Err(error) = ended {
            // The server waits on; without its socket it does not.
            shutdown(listener.as_raw_fd(), Shutdown::Both).context("listener")?;
            return Err(error);
        }
        answering.join().expect("no panic")?;
        Ok(tally)
    })
}

fn ask(to: SocketAddr, what: u8) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, timeout()).context("connect")?;
    stream.set_read_timeout(Some(timeout()))?;
    stream.write_all(&[what]).context("ask")?;
    stream.read_exact(&mut [0]).context("answer")?;
    Ok(())
}

/// Answers one connection after the other until one says that it is the last.
fn answer(listener: &TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().context("accept")?;
        stream.set_read_timeout(Some(timeout()))?;
        let mut byte = [0];
        if stream.read(&mut byte).context("question")? == 1 {
            stream.write_all(&byte).context("answer")?;
        }
        let ended = byte == [END];
        // The client closes first, so that this end does not reset what it has not read.
        let _ = stream.read(&mut byte);
        if ended {
            return Ok(());
        }
    }
}

/// One connection with question after question.
fn long(
    client: &impl End,
    server: &impl End,
    stop: &AtomicBool,
) -> Result<(usize, Option<String>)> {
    let listener = listen(server.namespace(), server.ip())?;
    let to = SocketAddr::from((server.ip(), listener.local_addr()?.port()));
    let stream = connect(client.namespace(), to)?;
    let (mut accepted, _) = listener.accept().context("accept")?;
    accepted.set_nodelay(true)?;
    let exchange = |stream: &mut TcpStream| {
        stream.write_all(&[QUESTION])?;
        stream.read_exact(&mut [0])
    };
    thread::scope(move |scope| {
        let mut stream = stream;
        scope.spawn(move || {
            let mut byte = [0];
            while accepted.read(&mut byte).is_ok_and(|length| length == 1)
                && accepted.write_all(&byte).is_ok()
            {}
        });
        let (mut exchanges, mut failure) = (0, None);
        while failure.is_none() && !stop.load(Ordering::Relaxed) {
            match exchange(&mut stream) {
                Ok(()) => exchanges += 1,
                Err(error) => failure = Some(format!("long connection to {to}: {error}")),
            }
            thread::sleep(Duration::from_millis(1));
        }
        // The other end waits for more.
        drop(stream);
        Ok((exchanges, failure))
    })
}

/// What the kernels of two ends count of TCP (RFC 4022; `/proc/net/snmp`).
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    given_up: u64,
    resets_sent: u64,
    sent_again: u64,
}

impl Counted {
    fn of(ends: [&Namespace; 2]) -> Result<Self> {
        let mut counted = Self::default();
        for end in ends {
            let text = end.within(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
            counted.add(&text)?;
        }
        Ok(counted)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = lines.next().zip(lines.next()).context("snmp: no TCP")?;
        for (name, value) in names.split(' ').zip(values.split(' ')) {
            let count = match name {
                "AttemptFails" | "EstabResets" => &mut self.given_up,
                "OutRsts" => &mut self.resets_sent,
                "RetransSegs" => &mut self.sent_again,
                _ => continue,
            };
            *count += value.parse::<u64>().context(name.to_owned())?;
        }
        Ok(())
    }

    fn since(&self, before: &Self) -> u64 {
        let sent_again = self.sent_again - before.sent_again;
        let unexplained = (self.resets_sent - before.resets_sent).saturating_sub(sent_again);
        self.given_up - before.given_up + unexplained
    }
}

fn resets<C: End, S: End>(pairs: &[(&C, &S)]) -> Result<Vec<Counted>> {
    let pair = |(client, server): &(&C, &S)| Counted::of([client.namespace(), server.namespace()]);
    pairs.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(values: &str) -> Counted {
        let mut counted = Counted::default();
        let names = "Tcp: RtoMin AttemptFails EstabResets RetransSegs OutRsts";
        let text = format!("Ip: Forwarding\nIp: 1\n{names}\nTcp: 200 {values}\n");
        counted.add(&text).expect("counts");
        counted
    }

    #[test]
    fn a_reset_that_no_retransmission_explains_is_told() {
        let before = counted("1 1 5 2");
        let resets = |values| counted(values).since(&before);
        assert_eq!(resets("1 1 5 2"), 0);
        assert_eq!(resets("1 1 6 3"), 0);
        assert_eq!(resets("1 1 5 3"), 1);
        assert_eq!(resets("2 1 9 2"), 1);
        assert_eq!(resets("1 3 9 5"), 2);
        assert!(Counted::default().add("Ip: 1").is_err());
    }
}
