//! Traffic as the report sees it: every measurement beside the limit and the bridge of the same circumstances.

use super::contenders::limit;
use super::stats::{Summary, ratios};
use crate::bench::types::{Measurement, Place, Results};

/// Something that was measured each round, of which others are a multiple.
pub(super) type Rounds = fn(&Measurement) -> &[f64];

/// The rate.
pub(super) fn rate(of: &Measurement) -> &[f64] {
    &of.rounds
}

/// The median latency.
pub(super) fn p50(of: &Measurement) -> &[f64] {
    &of.p50_us
}

/// The latency of the slowest hundredth.
pub(super) fn p99(of: &Measurement) -> &[f64] {
    &of.p99_us
}

/// What one chapter of the report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting {
    pub(super) place: Place,
    pub(super) services: u32,
}

/// The settings there are, one node before two, few Services before many.
pub(super) fn settings(results: &Results) -> Vec<Setting> {
    let mut settings: Vec<_> = results.traffic.iter().map(setting).collect();
    settings.sort();
    settings.dedup();
    settings
}

/// The setting that a measurement belongs to.
pub(super) fn setting(of: &Measurement) -> Setting {
    Setting {
        place: of.place,
        services: of.services,
    }
}

/// Names of the cases of a setting, in the order they were run.
pub(super) fn cases(results: &Results, setting: Setting) -> Vec<&str> {
    let mut cases = Vec::new();
    for measurement in of_setting(results, setting) {
        if !cases.contains(&measurement.case.as_str()) {
            cases.push(&measurement.case);
        }
    }
    cases
}

/// The measurements of a setting.
pub(super) fn of_setting(results: &Results, of: Setting) -> impl Iterator<Item = &Measurement> {
    let measurements = results.traffic.iter();
    measurements.filter(move |measurement| setting(measurement) == of)
}

/// How many times the limit's a measurement is; the limit itself has none.
pub(super) fn to_limit(results: &Results, of: &Measurement, what: Rounds) -> Option<Vec<f64>> {
    to(limit(of.place), results, of, what)
}

/// How many times another contender's a measurement is.
pub(super) fn to(
    contender: &str,
    results: &Results,
    of: &Measurement,
    what: Rounds,
) -> Option<Vec<f64>> {
    relative(of, same(results, of, contender, of.services)?, what)
}

/// A summary of such ratios.
pub(super) fn summary(ratios: Option<Vec<f64>>) -> Option<Summary> {
    Summary::of(&ratios?)
}

/// Another contender under the same circumstances.
pub(super) fn same<'a>(
    results: &'a Results,
    as_: &Measurement,
    contender: &str,
    services: u32,
) -> Option<&'a Measurement> {
    results.traffic.iter().find(|other| {
        other.contender == contender
            && other.services == services
            && (&other.case, other.place, other.pinned) == (&as_.case, as_.place, as_.pinned)
    })
}

fn relative(of: &Measurement, base: &Measurement, what: Rounds) -> Option<Vec<f64>> {
    let ratios = ratios(what(of), what(base));
    let other = of.contender != base.contender && !ratios.is_empty();
    other.then_some(ratios)
}
