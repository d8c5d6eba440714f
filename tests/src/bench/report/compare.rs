//! Two runs side by side: what changed beyond the noise, and how much of the rest agrees.

use std::collections::BTreeMap;

use super::contenders::limit;
use super::control::{masquerading, mode};
use super::document::Table;
use super::figures::{grouped, number, percent, place, services};
use super::markdown;
use super::programs::{name, net};
use super::rates::{Rounds, p50, p99, rate, to_limit};
use super::stats::Summary;
use crate::bench::types::{Measurement, Results};

/// Two medians this close agree.
const AGREES: f64 = 0.05;

/// Smaller changes are of no interest, however sure.
const CHANGED: f64 = 0.02;

const CRITERION: &str = "Changed: the medians differ by more than 2 %, and their 95 % confidence intervals (all \
     rounds, if there are fewer than eight) do not overlap.";

/// Something that both runs may have measured.
#[derive(Clone, Debug)]
struct Figure {
    value: Summary,
    more_is_better: bool,
    /// Whether it is a rate of a contender pinned to one CPU relative to the limit, which two runs must agree on.
    pinned_ratio: bool,
}

/// Prints what changed from one run to another beyond the noise, as a Markdown table.
pub fn compare(a: &Results, b: &Results) -> String {
    let (from, to) = (figures(a), figures(b));
    let both: Vec<_> = from
        .iter()
        .filter_map(|(what, one)| Some((what, one, to.get(what)?)))
        .collect();
    let mut changed: Vec<_> = both
        .iter()
        .filter(|(_, one, other)| is_change(one, other))
        .collect();
    changed.sort_by(|x, y| size(y).total_cmp(&size(x)));

    let mut text = differences(a, b);
    text += &format!("{CRITERION}\n\n");
    let mut table = Table::new(
        1,
        ["What", "A", "Spread", "B", "Spread", "B ÷ A", "Verdict"],
    );
    for (what, one, other) in &changed {
        let ratio = other.value.median / one.value.median;
        let better = (other.value.median > one.value.median) == one.more_is_better;
        table.row([
            (*what).clone(),
            number(one.value.median),
            percent(one.value.spread()),
            number(other.value.median),
            percent(other.value.spread()),
            number(ratio),
            if better { "better" } else { "worse" }.to_owned(),
        ]);
    }
    match table.rows.is_empty() {
        true => text += "Nothing changed beyond the noise.\n",
        false => text += &markdown::table(&table),
    }
    text += &format!("\n{} of {} figures changed.\n", changed.len(), both.len());
    text += &agreement(
        "all figures",
        both.iter().map(|(_, one, other)| (*one, *other)),
    );
    let pinned = both.iter().filter(|(_, one, _)| one.pinned_ratio);
    text += &agreement(
        "pinned rates relative to the limit",
        pinned.map(|(_, one, other)| (*one, *other)),
    );
    text + &missing("A", &from, &to) + &missing("B", &to, &from)
}

/// What makes the two runs hard to compare.
fn differences(a: &Results, b: &Results) -> String {
    let (x, y) = (&a.host, &b.host);
    let pairs = [
        ("kernel", &x.kernel, &y.kernel),
        ("CPU", &x.cpu, &y.cpu),
        ("commit", &x.commit, &y.commit),
        ("reference plugin", &x.reference, &y.reference),
    ];
    let differ = pairs.into_iter().filter(|(_, a, b)| a != b);
    let mut text: String = differ
        .map(|(what, a, b)| format!("{what}: {a:?} in A, {b:?} in B\n"))
        .collect();
    if a.settings.quick || b.settings.quick {
        text += "a run was quick: its figures are rough\n";
    }
    if text.is_empty() { text } else { text + "\n" }
}

fn is_change(a: &Figure, b: &Figure) -> bool {
    a.value.differs(&b.value) && (b.value.median / a.value.median - 1.0).abs() > CHANGED
}

/// How far the medians are apart, whichever is larger.
fn size((_, a, b): &(&String, &Figure, &Figure)) -> f64 {
    (b.value.median / a.value.median).ln().abs()
}

fn agreement<'a>(what: &str, pairs: impl Iterator<Item = (&'a Figure, &'a Figure)>) -> String {
    let pairs: Vec<_> = pairs.collect();
    let close =
        |(a, b): &&(&Figure, &Figure)| (b.value.median / a.value.median - 1.0).abs() <= AGREES;
    let agree = pairs.iter().filter(close).count();
    match pairs.len() {
        0 => String::new(),
        all => format!("{agree} of {all} agree within 5 %: {what}.\n"),
    }
}

fn missing(run: &str, of: &BTreeMap<String, Figure>, other: &BTreeMap<String, Figure>) -> String {
    let only: Vec<_> = of
        .keys()
        .filter(|what| !other.contains_key(*what))
        .collect();
    match only.first() {
        None => String::new(),
        Some(first) => format!("Only in {run}: {}, such as {first}.\n", only.len()),
    }
}

/// All figures of a run by what they are of.
fn figures(results: &Results) -> BTreeMap<String, Figure> {
    let mut figures = BTreeMap::new();
    let mut add = |what: String, values: &[f64], more_is_better, pinned_ratio| {
        if let Some(value) = Summary::of(values).filter(|value| value.median != 0.0) {
            figures.insert(
                what,
                Figure {
                    value,
                    more_is_better,
                    pinned_ratio,
                },
            );
        }
    };
    let kinds: [(&str, Rounds, bool); 3] = [
        ("rate", rate, true),
        ("p50", p50, false),
        ("p99", p99, false),
    ];
    for one in &results.traffic {
        for (kind, rounds, more_is_better) in kinds {
            let own = rounds(one).to_vec();
            // What the machine can do at all is the only thing that is compared as it is.
            let ratio = to_limit(results, one, rounds);
            let (values, base) = match ratio {
                Some(ratios) => (ratios, format!(" ÷ {}", limit(one.place))),
                None => (own, String::new()),
            };
            let pinned_ratio = kind == "rate" && one.pinned && !base.is_empty();
            add(
                format!("{}, {kind}{base}", traffic(one)),
                &values,
                more_is_better,
                pinned_ratio,
            );
        }
    }
    for one in &results.programs {
        let sizes = [one.peers, one.pods, one.flows].map(|size| grouped(size.into()));
        let [peers, pods, flows] = sizes;
        let what = format!(
            "{}, {peers} peers, {pods} pods, {flows} flows, ns",
            name(one)
        );
        add(what, &net(one), false, false);
    }
    for one in &results.control {
        let how = (mode(one.mode), masquerading(one.masquerade));
        let what = format!("{} {}, {}, {}, ms", one.contender, one.verb, how.0, how.1);
        add(what, &one.samples_ms, false, false);
    }
    figures
}

fn traffic(one: &Measurement) -> String {
    let pinned = if one.pinned { "one CPU" } else { "not pinned" };
    let place = place(one.place);
    format!(
        "{} {} {place}, {}, {pinned}",
        one.contender,
        one.case,
        services(one.services)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit that makes ten, and beeline with these rates.
    fn run(rounds: [f64; 5]) -> Results {
        let measurement = |contender: &str, rounds: [f64; 5]| Measurement {
            case: "tcp-stream".to_owned(),
            contender: contender.to_owned(),
            pinned: true,
            rounds: rounds.to_vec(),
            ..Measurement::default()
        };
        Results {
            traffic: vec![
                measurement("veth", [10.0; 5]),
                measurement("beeline", rounds),
            ],
            ..Results::default()
        }
    }

    #[test]
    fn a_change_beyond_the_noise_is_told() {
        let before = run([8.9, 9.0, 9.1, 9.0, 9.0]);
        let text = compare(&before, &run([7.1, 7.2, 7.3, 7.2, 7.2]));
        assert!(
            text.contains("beeline tcp-stream same node, no Services, one CPU, rate ÷ veth"),
            "{text}"
        );
        assert!(text.contains("|  0.80 |   worse |"), "{text}");
        assert!(text.contains("1 of 2 figures changed"), "{text}");
        assert!(
            text.contains("0 of 1 agree within 5 %: pinned rates relative to the limit"),
            "{text}"
        );
        let text = compare(&run([7.1, 7.2, 7.3, 7.2, 7.2]), &before);
        assert!(text.contains("|  1.25 |  better |"), "{text}");
    }

    #[test]
    fn noise_is_no_change() {
        let text = compare(
            &run([8.0, 9.0, 9.1, 9.9, 9.5]),
            &run([7.9, 8.4, 9.2, 8.2, 8.3]),
        );
        assert!(text.contains("Nothing changed beyond the noise"), "{text}");
        assert!(
            text.contains("1 of 2 agree within 5 %: all figures"),
            "{text}"
        );
    }

    #[test]
    fn a_machine_twice_as_fast_changes_no_ratio() {
        let mut twice = run([18.0, 18.2, 17.8, 18.0, 18.0]);
        twice.traffic[0].rounds = vec![20.0; 5];
        let text = compare(&run([9.0, 9.1, 8.9, 9.0, 9.0]), &twice);
        assert!(!text.contains("| beeline"), "{text}");
        assert!(text.contains("| veth tcp-stream"), "{text}");
    }

    #[test]
    fn what_only_one_run_has_and_other_machines_are_told() {
        let (all, mut fewer) = (run([9.0; 5]), run([9.0; 5]));
        fewer.traffic.pop();
        fewer.host.kernel = "6.1".to_owned();
        let text = compare(&all, &fewer);
        assert!(text.contains("Only in A: 1, such as beeline"), "{text}");
        assert!(text.contains("kernel: \"\" in A, \"6.1\" in B"), "{text}");
    }
}
