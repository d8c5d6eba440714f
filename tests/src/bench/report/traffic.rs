//! The chapters on traffic: rates and latencies, a chapter a place and number of Services.

use anyhow::Result;

use super::bars::{Bars, Group, Panel};
use super::contenders::{BRIDGE, BRIDGE_VXLAN, limit, ordered};
use super::document::{Document, Figure, Table};
use super::figures::{case, number, or_dash, percent, place, services, unit};
use super::rates::{
    Rounds, Setting, cases, of_setting, p50, p99, rate, settings, summary, to, to_limit,
};
use super::stats::{Summary, median};
use crate::bench::types::{Measurement, Place, Results};

/// Adds a chapter for each setting.
pub(super) fn chapters(results: &Results, document: &mut Document) -> Result<()> {
    for setting in settings(results) {
        let name = format!("{}, {}", place(setting.place), services(setting.services));
        document.heading(
            2,
            format!("Traffic on the {name}").replace("the across", "two nodes, across"),
        );
        document.text(method(results, setting));
        document.figure(rates_chart(results, setting, &name)?);
        for pinned in [true, false] {
            let table = rates_table(results, setting, pinned);
            if !table.rows.is_empty() {
                document.heading(3, format!("Rates, {}", pinning(pinned)));
                document.table(table);
            }
        }
        if of_setting(results, setting).any(|measurement| !measurement.p50_us.is_empty()) {
            document.heading(3, "Latency of a request and its response");
            document.figure(latency_chart(results, setting, &name)?);
            document.table(latency_table(results, setting));
        }
    }
    Ok(())
}

fn pinning(pinned: bool) -> &'static str {
    if pinned {
        "both ends on one CPU"
    } else {
        "not pinned"
    }
}

fn slug(setting: Setting) -> String {
    let place = match setting.place {
        Place::SameNode => "same-node",
        Place::AcrossNodes => "across-nodes",
    };
    format!("{place}-{}", setting.services)
}

fn method(results: &Results, setting: Setting) -> String {
    let (run, limit) = (&results.settings, limit(setting.place));
    let limit = match setting.place {
        Place::SameNode => format!("`{limit}`, two namespaces joined by one veth pair"),
        Place::AcrossNodes => format!("`{limit}`, node to node without pods"),
    };
    let services = match setting.services {
        0 => "No kube-proxy rules are loaded".to_owned(),
        count => format!(
            "Each node has kube-proxy's iptables rules for {} Services and `bridge-nf-call-iptables=1`",
            number(count.into())
        ),
    };
    format!(
        "{services}. Streams and small packets: iperf3, {} s a round; transactions: the bench's own generator, {} s a round; \
         rounds: {}; contenders interleaved. The limit is {limit}.",
        run.stream_seconds,
        run.transaction_seconds,
        run.rounds_in_words(),
    )
}

fn rates_chart(results: &Results, setting: Setting, name: &str) -> Result<Figure> {
    let limit = limit(setting.place);
    let panels = [true, false].map(|pinned| Panel {
        title: match pinned {
            true => "Both ends on one CPU: rate = 1 / CPU cost".to_owned(),
            false => "Not pinned".to_owned(),
        },
        axis: format!("rate ÷ rate of {limit}"),
        groups: groups(results, setting, |measurement| {
            let pinned = measurement.pinned == pinned;
            pinned.then(|| summary(to_limit(results, measurement, rate)))?
        }),
    });
    let bars = Bars {
        title: format!("Rates, {name}"),
        subtitle: "More is better. Bar: median of the rounds; whisker: slowest to fastest round."
            .to_owned(),
        contenders: contenders(results, setting, |measurement| {
            measurement.contender != limit
        }),
        limit: Some(limit),
        panels: panels
            .into_iter()
            .filter(|panel| !panel.groups.is_empty())
            .collect(),
    };
    Ok(Figure {
        file: format!("rates-{}.svg", slug(setting)),
        title: bars.title.clone(),
        svg: bars.svg()?,
    })
}

fn latency_chart(results: &Results, setting: Setting, name: &str) -> Result<Figure> {
    let panel = |title: &str, what: Rounds| {
        let of = |pinned: bool| {
            let mut groups = groups(results, setting, |measurement| {
                let pinned = measurement.pinned == pinned;
                pinned.then(|| Summary::of(what(measurement)))?
            });
            for group in &mut groups {
                group.name += if pinned { " (one CPU)" } else { "" };
            }
            groups
        };
        Panel {
            title: title.to_owned(),
            axis: "latency in µs".to_owned(),
            groups: of(false).into_iter().chain(of(true)).collect(),
        }
    };
    let bars = Bars {
        title: format!("Latency of a transaction, {name}"),
        subtitle: "Less is better. Bar: median of the rounds; whisker: best to worst round. “One CPU”: both ends pinned to it.".to_owned(),
        contenders: contenders(results, setting, |measurement| !measurement.p50_us.is_empty()),
        limit: None,
        panels: vec![
            panel("p50: half of the transactions took longer", p50),
            panel("p99: one transaction in a hundred took longer", p99),
        ],
    };
    Ok(Figure {
        file: format!("latency-{}.svg", slug(setting)),
        title: bars.title.clone(),
        svg: bars.svg()?,
    })
}

fn contenders(
    results: &Results,
    setting: Setting,
    takes_part: impl Fn(&Measurement) -> bool,
) -> Vec<&str> {
    let measurements = of_setting(results, setting).filter(|measurement| takes_part(measurement));
    ordered(measurements.map(|measurement| measurement.contender.as_str()))
}

/// A group a case, of those measurements that have a value.
fn groups<'a>(
    results: &'a Results,
    setting: Setting,
    value: impl Fn(&Measurement) -> Option<Summary>,
) -> Vec<Group<'a>> {
    let group = |name| {
        let measurements =
            of_setting(results, setting).filter(|measurement| measurement.case == name);
        let bars = measurements.filter_map(|one| Some((one.contender.as_str(), value(one)?)));
        Group {
            name: case(name).to_owned(),
            bars: bars.collect(),
        }
    };
    let groups = cases(results, setting).into_iter().map(group);
    groups.filter(|group| !group.bars.is_empty()).collect()
}

/// The measurements of a setting by case, contenders in their order.
fn rows(results: &Results, setting: Setting) -> Vec<&Measurement> {
    let names = contenders(results, setting, |_| true);
    let mut rows: Vec<_> = of_setting(results, setting).collect();
    let cases = cases(results, setting);
    rows.sort_by_key(|row| {
        let case = cases.iter().position(|case| *case == row.case);
        (
            case,
            !row.pinned,
            names.iter().position(|name| *name == row.contender),
        )
    });
    rows
}

fn rates_table(results: &Results, setting: Setting, pinned: bool) -> Table {
    let limit = format!("÷ {}", limit(setting.place));
    let [bridge, vxlan] = [BRIDGE, BRIDGE_VXLAN].map(|name| format!("÷ {name}"));
    let headings = [
        "Case",
        "Contender",
        "Unit",
        "Median",
        "Spread",
        &limit,
        "Spread of that",
        &bridge,
        &vxlan,
        "Lost",
    ];
    let mut table = Table::new(3, headings);
    for row in rows(results, setting)
        .into_iter()
        .filter(|row| row.pinned == pinned)
    {
        let rate_of = Summary::of(&row.rounds);
        let limit = summary(to_limit(results, row, rate));
        let [bridge, vxlan] =
            [BRIDGE, BRIDGE_VXLAN].map(|name| summary(to(name, results, row, rate)));
        table.row([
            case(&row.case).to_owned(),
            row.contender.clone(),
            unit(row.unit).to_owned(),
            or_dash(rate_of, |rate| number(rate.median)),
            or_dash(rate_of, |rate| percent(rate.spread())),
            or_dash(limit, |ratio| number(ratio.median)),
            or_dash(limit, |ratio| percent(ratio.spread())),
            or_dash(bridge, |ratio| number(ratio.median)),
            or_dash(vxlan, |ratio| number(ratio.median)),
            or_dash(median(&row.lost), percent),
        ]);
    }
    table.without_empty_columns()
}

fn latency_table(results: &Results, setting: Setting) -> Table {
    let limit = format!("p50 ÷ {}", limit(setting.place));
    let [bridge, vxlan] = [BRIDGE, BRIDGE_VXLAN].map(|name| format!("p50 ÷ {name}"));
    let headings = [
        "Case",
        "Pinned",
        "Contender",
        "p50 µs",
        "Spread",
        "p99 µs",
        "Spread",
        &limit,
        &bridge,
        &vxlan,
    ];
    let mut table = Table::new(3, headings);
    for row in rows(results, setting) {
        let (half, tail) = (Summary::of(&row.p50_us), Summary::of(&row.p99_us));
        if half.is_none() {
            continue;
        }
        let ratio = |ratios| or_dash(summary(ratios), |ratio| number(ratio.median));
        table.row([
            case(&row.case).to_owned(),
            if row.pinned { "one CPU" } else { "no" }.to_owned(),
            row.contender.clone(),
            or_dash(half, |half| number(half.median)),
            or_dash(half, |half| percent(half.spread())),
            or_dash(tail, |tail| number(tail.median)),
            or_dash(tail, |tail| percent(tail.spread())),
            ratio(to_limit(results, row, p50)),
            ratio(to(BRIDGE, results, row, p50)),
            ratio(to(BRIDGE_VXLAN, results, row, p50)),
        ]);
    }
    table.without_empty_columns()
}
