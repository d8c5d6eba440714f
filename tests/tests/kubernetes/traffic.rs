//! Traffic between pods while something changes, none of which may be lost.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use beeline_tests::steady;

use crate::pod::Pod;

/// Short connections a second between two pods: some 28,000 ports have to last for a change of minutes.
const RATE: u32 = 100;

/// Between two echo requests.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs `change` while each first pod pings its second and asks it over short connections and over a long one; fails if
/// anything of it does.
pub(crate) fn during<T: Send>(
    pairs: &[(&Pod, &Pod)],
    change: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let stop = AtomicBool::new(false);
    let (changed, pings) = thread::scope(|scope| {
        let pings = pairs.iter().map(|(from, to)| {
            let stop = &stop;
            scope.spawn(move || ping(from, to.ip(), stop))
        });
        let pings: Vec<_> = pings.collect();
        let changed = steady::during_at(RATE, pairs, change);
        stop.store(true, Ordering::Relaxed);
        let pings = pings.into_iter().map(|ping| ping.join().expect("no panic"));
        (changed, pings.collect::<Vec<_>>())
    });
    let (changed, tallies) = changed.context("traffic")?;
    // Without the change there is nothing to say about the traffic.
    let changed = changed?;
    for (tally, (sent, lost)) in tallies.iter().zip(&pings) {
        tally.assert_unbroken();
        ensure!(*sent > 100, "{sent} pings only");
        ensure!(lost.is_empty(), "{} of {sent} pings: {lost:?}", lost.len());
    }
    Ok(changed)
}

/// How many echo requests were sent, and what became of those that were not answered.
fn ping(from: &Pod, to: IpAddr, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut sent, mut lost) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let ping = from.ping(to, 1);
        sent += 1;
        if !ping.is_complete() {
            lost.push(format!("request {sent}: {ping}"));
        }
        thread::sleep(PAUSE);
    }
    (sent, lost)
}
