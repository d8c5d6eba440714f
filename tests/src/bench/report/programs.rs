//! The chapter on programs: nanoseconds a packet against the size of each map.

use std::collections::BTreeMap;

use anyhow::Result;
use plotters::style::RGBColor;

use super::document::{Document, Figure, Table};
use super::figures::{grouped, number, or_dash, percent};
use super::lines::{Curves, Panel, Point, Scale, Series};
use super::stats::{Summary, median};
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
const SIZES: [&str; 3] = ["peers", "pods on the node", "remembered flows"];

fn sizes(cost: &ProgramCost) -> [u32; 3] {
    [cost.peers, cost.pods, cost.flows]
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
         just before, and what it takes is subtracted round by round. The BPF JIT is {jit}.",
        grouped(results.settings.repeat.into()),
    ));
    document.figure(chart(results)?);
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
    format!("{} → {}", cost.program, cost.outcome)
}

fn names(results: &Results) -> Vec<String> {
    let mut names = Vec::new();
    for cost in &results.programs {
        if !names.contains(&name(cost)) {
            names.push(name(cost));
        }
    }
    names
}

fn chart(results: &Results) -> Result<Figure> {
    let panel = |which: usize| {
        let what = SIZES[which];
        let series = names(results).into_iter().enumerate();
        let series = series.map(|(index, name)| Series {
            color: COLORS[index % COLORS.len()],
            shape: Some(index),
            points: sweep(results, &name, which),
            name,
        });
        Panel {
            title: format!("Against {what}"),
            x_axis: format!("{what} (log scale)"),
            y_axis: "ns a packet beyond an empty program".to_owned(),
            scale: Scale::Log,
            series: series.filter(|series| series.points.len() > 1).collect(),
        }
    };
    let panels: Vec<_> = (0..SIZES.len())
        .map(panel)
        .filter(|panel| !panel.series.is_empty())
        .collect();
    let curves = Curves {
        title: "What a packet costs in each program".to_owned(),
        subtitle:
            "Less is better. Median of the rounds; in each panel the other two sizes stay the same."
                .to_owned(),
        columns: panels.len().max(1),
        panels,
        panel_height: 380,
        one_scale: true,
    };
    Ok(Figure {
        file: "programs.svg".to_owned(),
        title: curves.title.clone(),
        svg: curves.svg()?,
    })
}

/// The costs of a program as one size grows: the longest such series in which the other sizes stay the same.
fn sweep(results: &Results, of: &str, which: usize) -> Vec<Point> {
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
