//! The chapter on ADD and DEL: how long they take, on a node that fills up, and many at once.

use anyhow::Result;

use super::bars::{self, Bars, Group};
use super::contenders::{color, ordered};
use super::document::{Document, Figure, Table};
use super::figures::{number, or_dash};
use super::lines::{Curves, Panel, Point, Scale, Series};
use super::stats::{Summary, quantile, sorted};
use crate::bench::types::{Control, Mode, Results};

/// Points of a curve; more would be noise, fewer would hide a kink.
const POINTS: usize = 50;

/// Adds the chapter, if ADD was measured.
pub(super) fn chapter(results: &Results, document: &mut Document) -> Result<()> {
    if results.control.is_empty() {
        return Ok(());
    }
    document.heading(2, "ADD and DEL");
    document.text(
        "Each sample is the wall time of one execution of the plugin, as a container runtime does it, from before \
         the process starts until after it ended; IPAM is host-local's. Contenders take turns in one run. beeline's ADD \
         ends with the pod on the plain bridge; \"ADD to fast path\" is how long it stays there (of many at once: since \
         the last ADD ended). Its DEL ends when the interfaces are gone, and leaves to the kernel what it does then.",
    );
    if of_mode(results, |mode| mode == Mode::Growth)
        .next()
        .is_some()
    {
        document.figure(growth_chart(results)?);
    }
    if of_mode(results, |mode| matches!(mode, Mode::Parallel(_)))
        .next()
        .is_some()
    {
        document.figure(parallel_chart(results)?);
    }
    document.table(table(results));
    Ok(())
}

fn of_mode(results: &Results, wanted: impl Fn(Mode) -> bool) -> impl Iterator<Item = &Control> {
    let controls = results.control.iter();
    controls.filter(move |control| wanted(control.mode) && !control.samples_ms.is_empty())
}

/// How a configuration is called where it matters.
pub(super) fn masquerading(masquerade: bool) -> &'static str {
    if masquerade { "ipMasq" } else { "no ipMasq" }
}

/// How a mode is called.
pub(super) fn mode(mode: Mode) -> String {
    match mode {
        Mode::Serial => "one by one".to_owned(),
        Mode::Growth => "node filling up".to_owned(),
        Mode::Parallel(count) => format!("{count} at once"),
    }
}

fn growth_chart(results: &Results) -> Result<Figure> {
    let panel = |masquerade: bool| {
        let of = of_mode(results, |mode| mode == Mode::Growth);
        let of: Vec<_> = of
            .filter(|one| one.verb == "ADD" && one.masquerade == masquerade)
            .collect();
        let names = ordered(of.iter().map(|one| one.contender.as_str()));
        let curve = |name: &str| {
            let one = of.iter().find(|one| one.contender == name)?;
            Some(Series {
                name: name.to_owned(),
                color: color(name),
                shape: None,
                points: curve(&one.samples_ms),
            })
        };
        Panel {
            title: if masquerade {
                "With ipMasq"
            } else {
                "Without ipMasq"
            }
            .to_owned(),
            x_axis: "pods that the node already has".to_owned(),
            y_axis: "ADD in ms".to_owned(),
            scale: Scale::Linear,
            series: names.into_iter().filter_map(curve).collect(),
        }
    };
    let panels = [false, true].map(panel).into_iter();
    let curves = Curves {
        title: "ADD latency on a node that fills up".to_owned(),
        subtitle: "Less is better. Line: median of neighbouring pods; band: their p10 to p90."
            .to_owned(),
        panels: panels.filter(|panel| !panel.series.is_empty()).collect(),
        columns: 2,
        panel_height: 330,
        one_scale: true,
    };
    Ok(Figure {
        file: "add-growth.svg".to_owned(),
        title: curves.title.clone(),
        svg: curves.svg()?,
    })
}

/// Medians of neighbours, each at the middle of those it stands for.
fn curve(samples: &[f64]) -> Vec<Point> {
    let width = samples.len().div_ceil(POINTS).max(1);
    let chunks = samples.chunks(width).enumerate();
    let point = |(index, chunk): (usize, &[f64])| {
        let values = sorted(chunk);
        Some(Point {
            x: (index * width) as f64 + (chunk.len() - 1) as f64 / 2.0,
            y: quantile(&values, 0.5)?,
            band: (quantile(&values, 0.1)?, quantile(&values, 0.9)?),
        })
    };
    chunks.filter_map(point).collect()
}

fn parallel_chart(results: &Results) -> Result<Figure> {
    let of = || {
        of_mode(results, |mode| matches!(mode, Mode::Parallel(_))).filter(|one| one.verb == "ADD")
    };
    let mut kinds: Vec<_> = of().map(|one| (one.masquerade, one.mode)).collect();
    kinds.sort();
    kinds.dedup();
    let panel = |title: &str, share: f64| bars::Panel {
        title: title.to_owned(),
        axis: "ADD in ms".to_owned(),
        groups: kinds
            .iter()
            .map(|kind| {
                group(
                    &of()
                        .filter(|one| (one.masquerade, one.mode) == *kind)
                        .collect::<Vec<_>>(),
                    share,
                )
            })
            .collect(),
    };
    let chart = Bars {
        title: "ADD latency, several at once".to_owned(),
        subtitle: "Less is better. Bar: quantile over all ADDs of a run.".to_owned(),
        contenders: ordered(of().map(|one| one.contender.as_str())),
        limit: None,
        panels: vec![panel("p50", 0.5), panel("p99", 0.99)],
    };
    Ok(Figure {
        file: "add-parallel.svg".to_owned(),
        title: chart.title.clone(),
        svg: chart.svg()?,
    })
}

fn group<'a>(of: &[&'a Control], share: f64) -> Group<'a> {
    let bar = |one: &&'a Control| {
        let value = quantile(&sorted(&one.samples_ms), share)?;
        Some((one.contender.as_str(), Summary::of(&[value])?))
    };
    let name = of
        .first()
        .map(|one| format!("{}, {}", mode(one.mode), masquerading(one.masquerade)));
    Group {
        name: name.unwrap_or_default(),
        bars: of.iter().filter_map(bar).collect(),
    }
}

fn table(results: &Results) -> Table {
    let headings = [
        "Verb",
        "How",
        "Config",
        "Contender",
        "Samples",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "Per second",
        "p50 ÷ bridge",
    ];
    let mut table = Table::new(4, headings);
    let names = ordered(results.control.iter().map(|one| one.contender.as_str()));
    let mut rows: Vec<_> = of_mode(results, |_| true).collect();
    rows.sort_by_key(|one| {
        let contender = names.iter().position(|name| *name == one.contender);
        (&one.verb, one.mode, one.masquerade, contender)
    });
    for one in rows {
        let samples = sorted(&one.samples_ms);
        let cell = |share| or_dash(quantile(&samples, share), number);
        let bridge = beside(results, one, super::contenders::BRIDGE);
        let bridge = bridge.and_then(|bridge| quantile(&sorted(&bridge.samples_ms), 0.5));
        let rate = (one.total_ms > 0.0).then(|| samples.len() as f64 / one.total_ms * 1e3);
        table.row([
            one.verb.clone(),
            mode(one.mode),
            masquerading(one.masquerade).to_owned(),
            one.contender.clone(),
            samples.len().to_string(),
            cell(0.5),
            cell(0.9),
            cell(0.99),
            or_dash(rate, number),
            or_dash(quantile(&samples, 0.5).zip(bridge), |(own, bridge)| {
                number(own / bridge)
            }),
        ]);
    }
    table
}

/// Another contender at the same.
pub(super) fn beside<'a>(
    results: &'a Results,
    one: &Control,
    contender: &str,
) -> Option<&'a Control> {
    results.control.iter().find(|other| {
        other.contender == contender
            && other.contender != one.contender
            && (&other.verb, other.masquerade, other.mode) == (&one.verb, one.masquerade, one.mode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_few_points_each_amid_its_samples() {
        let samples: Vec<_> = (0..1000).map(f64::from).collect();
        let points = curve(&samples);
        assert_eq!(points.len(), POINTS);
        assert_eq!((points[0].x, points[0].y), (9.5, 9.5));
        assert_eq!(curve(&[7.0])[0].y, 7.0);
    }
}
