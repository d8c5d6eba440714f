//! The chapter on programs: nanoseconds a packet against the size of each map.

use std::collections::BTreeMap;

use anyhow::Result;
use plotters::style::RGBColor;

use super::document::{Document, Figure, Table};
use super::figures::{grouped, number, or_dash, percent};
use super::growth;
use super::lines::{Curves, Panel, Point, Scale, Series};
use super::stats::{Summary, median};
use super::yardstick;
use crate::bench::types::{ProgramCost, Results};

/// Of Okabe and Ito's colours, those that no contender has come first.
const COLORS: [RGBColor; 7] = [
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x76, 0x76, 0x76),
];

/// What the sizes of a measurement are of, in the order of [`sizes`].
pub(super) const SIZES: [&str; 3] = ["peers", "pods on the node", "remembered flows"];

pub(super) fn sizes(cost: &ProgramCost) -> [u32; 3] {
    [cost.peers, cost.pods, cost.flows]
}

/// What a line of the chart is about: costs that differ too much for one axis.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Redirected,
    Passed,
    /// Passed, and its flow remembered.
    First,
}

impl Fate {
    const ALL: [(Self, &str); 3] = [
        (Self::Redirected, "Redirected"),
        (Self::Passed, "Passed to the stack"),
        (Self::First, "First of its flow in the stack"),
    ];

    fn of(cost: &ProgramCost) -> Self {
        match cost.outcome.as_str() {
            new if new.ends_with("(new)") => Self::First,
            outcome if outcome.starts_with("pass_") => Self::Passed,
            _ => Self::Redirected,
        }
    }
}

/// Adds the chapter, if programs were measured.
pub(super) fn chapter(results: &Results, document: &mut Document) -> Result<()> {
    if results.programs.is_empty() {
        return Ok(());
    }
    document.heading(2, "Programs");
    let jit = if results.host.bpf_jit {
        "on"
    } else {
        "off, so these figures say nothing about a real node"
    };
    document.text(format!(
        "Each program runs {} times a round on one prepared packet by `BPF_PROG_TEST_RUN`; an empty program is run \
         in turn, and what it takes is subtracted round by round. What a run changes for the next (a mark, a flow that \
         is new) runs once a system call, at most 2,000 times a round and with colder caches. “Every rule”: with \
         `antiSpoof` and an overlay, without which their instructions are not in the programs. The BPF JIT is {jit}.",
        grouped(results.settings.repeat.into()),
    ));
    yardstick::section(results, document);
    document.figure(chart(results)?);
    growth::section(results, document);
    document.heading(3, "Every size");
    document.table(table(results));
    Ok(())
}

/// What a program takes beyond an empty one, round by round.
pub(super) fn net(cost: &ProgramCost) -> Vec<f64> {
    let Some(middle) = median(&cost.empty_nanoseconds) else {
        return cost.nanoseconds.clone();
    };
    let rounds = cost.nanoseconds.iter().enumerate();
    let empty = |round| cost.empty_nanoseconds.get(round).copied();
    rounds
        .map(|(round, all)| all - empty(round).unwrap_or(middle))
        .collect()
}

/// A program and what becomes of the packet.
pub(super) fn name(cost: &ProgramCost) -> String {
    let rules = if cost.every_rule { ", every rule" } else { "" };
    format!("{} → {}{rules}", cost.program, cost.outcome)
}

/// What was measured at more than one size of something, each once.
pub(super) fn series(results: &Results) -> Vec<&ProgramCost> {
    let mut series: Vec<&ProgramCost> = Vec::new();
    for cost in results.programs.iter().filter(|cost| !cost.every_rule) {
        if series.iter().all(|known| name(known) != name(cost)) {
            series.push(cost);
        }
    }
    series
}

fn chart(results: &Results) -> Result<Figure> {
    let panel = |(fate, words): (Fate, &str), which: usize| {
        let what = SIZES[which];
        let series = series(results).into_iter().enumerate();
        let series = series.filter(|(_, cost)| Fate::of(cost) == fate);
        let series = series.map(|(index, cost)| Series {
            color: COLORS[index % COLORS.len()],
            shape: Some(index),
            points: sweep(results, &name(cost), which),
            name: name(cost),
        });
        Panel {
            title: words.to_owned(),
            x_axis: format!("{what} (log scale)"),
            y_axis: "ns a packet beyond an empty program".to_owned(),
            scale: Scale::Log,
            series: series.filter(|series| series.points.len() > 1).collect(),
        }
    };
    // A column a size: a line that lacks one would shift the others.
    let columns: Vec<_> = (0..SIZES.len())
        .filter(|which| !panel(Fate::ALL[0], *which).series.is_empty())
        .collect();
    let line = |fate| columns.iter().map(move |which| panel(fate, *which));
    let panels: Vec<_> = Fate::ALL
        .into_iter()
        .map(|fate| line(fate).collect::<Vec<_>>())
        .filter(|line| line.iter().any(|panel| !panel.series.is_empty()))
        .flatten()
        .collect();
    let curves = Curves {
        title: "What a packet costs in each program".to_owned(),
        subtitle:
            "Less is better. Median of the rounds. In each column the other two sizes stay the same; each line has its own scale."
                .to_owned(),
        columns: columns.len().max(1),
        panels,
        panel_height: 300,
        one_scale: true,
    };
    Ok(Figure {
        file: "programs.svg".to_owned(),
        title: curves.title.clone(),
        svg: curves.svg()?,
    })
}

/// The costs of a program as one size grows: the longest such series in which the other sizes stay the same.
pub(super) fn sweep(results: &Results, of: &str, which: usize) -> Vec<Point> {
    let mut series: BTreeMap<[u32; 3], BTreeMap<u32, &ProgramCost>> = BTreeMap::new();
    for cost in results.programs.iter().filter(|cost| name(cost) == of) {
        let mut others = sizes(cost);
        let own = std::mem::take(&mut others[which]);
        series.entry(others).or_default().insert(own, cost);
    }
    // Among the longest the smallest sizes, which is the last that `max_by_key` meets.
    let longest = series.into_values().rev().max_by_key(BTreeMap::len);
    let points = longest.unwrap_or_default().into_iter();
    let point = |(size, cost): (u32, &ProgramCost)| {
        let cost = Summary::of(&net(cost))?;
        Some(Point {
            x: size.into(),
            y: cost.median,
            band: (cost.min, cost.max),
        })
    };
    points.filter_map(point).collect()
}

fn table(results: &Results) -> Table {
    let headings = [
        "Program → outcome",
        "Peers",
        "Pods",
        "Flows",
        "ns beyond empty",
        "Spread",
        "Empty ns",
    ];
    let mut table = Table::new(1, headings);
    for cost in &results.programs {
        let own = Summary::of(&net(cost));
        table.row([
            name(cost),
            grouped(cost.peers.into()),
            grouped(cost.pods.into()),
            grouped(cost.flows.into()),
            or_dash(own, |own| number(own.median)),
            or_dash(own, |own| percent(own.spread())),
            or_dash(median(&cost.empty_nanoseconds), number),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(peers: u32, pods: u32, nanoseconds: f64) -> ProgramCost {
        ProgramCost {
            program: "from_pod".to_owned(),
            peers,
            pods,
            nanoseconds: vec![nanoseconds],
            empty_nanoseconds: vec![10.0],
            ..ProgramCost::default()
        }
    }

    #[test]
    fn a_sweep_changes_one_size_only() {
        let programs = vec![
            cost(1, 250, 50.0),
            cost(10, 250, 51.0),
            cost(10, 9, 60.0),
            cost(100, 250, 52.0),
        ];
        let results = Results {
            programs,
            ..Results::default()
        };
        let points = sweep(&results, "from_pod → ", 0);
        let points: Vec<_> = points.iter().map(|point| (point.x, point.y)).collect();
        assert_eq!(points, [(1.0, 40.0), (10.0, 41.0), (100.0, 42.0)]);
        assert_eq!(sweep(&results, "from_pod → ", 1).len(), 2);
    }
}
