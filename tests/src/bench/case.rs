//! What is measured between two ends; the same code for every contender.

use std::time::Duration;

use anyhow::Result;

use super::arena::End;
use super::types::Unit;
use crate::{iperf, rr};

/// How one round is run.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) client: End<'a>,
    pub(super) server: End<'a>,
    /// The CPU that both ends share, if they do.
    pub(super) cpu: Option<usize>,
    /// iperf3 knows only whole seconds.
    pub(super) stream_seconds: u32,
    pub(super) transactions: Duration,
}

/// What came of one round.
#[derive(Default)]
pub(super) struct Sample {
    pub(super) rate: f64,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) lost: Option<f64>,
}

/// A case, and how to run a round of it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    /// Whether the quick setting has it.
    pub(super) quick: bool,
    pub(super) run: fn(&Round) -> Result<Sample>,
}

/// All cases.
pub(super) const ALL: &[Case] = &[
    Case {
        name: "tcp-stream",
        unit: Unit::GigabitsPerSecond,
        quick: true,
        run: |round| round.streams(1),
    },
    Case {
        name: "tcp-stream-8",
        unit: Unit::GigabitsPerSecond,
        quick: false,
        run: |round| round.streams(8),
    },
    Case {
        name: "udp-small",
        unit: Unit::PacketsPerSecond,
        quick: true,
        run: |round| round.small_packets(),
    },
    Case {
        name: "tcp-rr",
        unit: Unit::TransactionsPerSecond,
        quick: true,
        run: |round| round.transactions(rr::tcp),
    },
    Case {
        name: "udp-rr",
        unit: Unit::TransactionsPerSecond,
        quick: true,
        run: |round| round.transactions(rr::udp),
    },
    Case {
        name: "tcp-crr",
        unit: Unit::TransactionsPerSecond,
        quick: true,
        run: |round| round.transactions(rr::tcp_connect),
    },
];

/// The names of all.
pub(super) fn names() -> Vec<&'static str> {
    ALL.iter().map(|case| case.name).collect()
}

impl Round<'_> {
    fn streams(&self, count: u32) -> Result<Sample> {
        let (from, to) = (self.client.namespace, self.server.namespace);
        let seconds = self.stream_seconds;
        let report = iperf::tcp_streams(from, to, self.server.ip, seconds, count, self.cpu)?;
        Ok(Sample {
            rate: report.gigabits(),
            ..Sample::default()
        })
    }

    fn small_packets(&self) -> Result<Sample> {
        let (from, to) = (self.client.namespace, self.server.namespace);
        let report = iperf::udp_small(from, to, self.server.ip, self.stream_seconds, self.cpu)?;
        Ok(Sample {
            rate: report.small_packets(),
            lost: Some(report.small_packets_lost()),
            ..Sample::default()
        })
    }

    fn transactions(&self, run: Transactions) -> Result<Sample> {
        let (from, to) = (self.client.namespace, self.server.namespace);
        let report = run(from, to, self.server.ip, self.transactions, self.cpu)?;
        let microseconds = |duration: Duration| Some(duration.as_secs_f64() * 1e6);
        Ok(Sample {
            rate: report.rate,
            p50_us: microseconds(report.p50),
            p99_us: microseconds(report.p99),
            lost: None,
        })
    }
}

type Transactions = fn(
    &crate::netns::Namespace,
    &crate::netns::Namespace,
    std::net::IpAddr,
    Duration,
    Option<usize>,
) -> Result<rr::Report>;
