//! What all rules together cost: the fast path on one node beside a program that has none of them.

use super::document::{Document, Table};
use super::figures::{grouped, number, or_dash};
use super::programs::{net, sizes};
use super::rates::summary;
use super::stats::{median, ratios};
use crate::bench::types::{ProgramCost, Results};

/// Adds what is known of it.
pub(super) fn section(results: &Results, document: &mut Document) {
    let table = comparison(results);
    if !table.rows.is_empty() {
        document.heading(3, "Beside a naive program");
        document.text(
            "The naive program is what a first attempt would be: it looks an IPv4 destination up in the same map, writes \
             both MACs and redirects. The goal is at most 1.6 times its cost with every rule on. Ratios are of the same \
             round: of whole runs, and of what they take beyond an empty program.",
        );
        document.table(table);
    }
    if !results.program_sizes.is_empty() {
        document.heading(3, "Instructions");
        document.text("As the verifier left them: without what the node does not use.");
        document.table(lengths(results));
    }
}

fn comparison(results: &Results) -> Table {
    let headings = [
        "from_pod → to_pod",
        "Peers",
        "Pods",
        "Flows",
        "ns",
        "Naive ns",
        "÷ naive",
        "÷ naive, beyond empty",
    ];
    let mut table = Table::new(1, headings);
    let is_compared =
        |cost: &&ProgramCost| (&*cost.program, &*cost.outcome) == ("from_pod", "to_pod");
    for cost in results.programs.iter().filter(is_compared) {
        let naive = results
            .programs
            .iter()
            .find(|other| other.program == ProgramCost::NAIVE && sizes(other) == sizes(cost));
        let Some(naive) = naive else {
            continue;
        };
        let ratio = |own: &[f64], base: &[f64]| {
            let ratio = summary(Some(ratios(own, base)));
            or_dash(ratio, |ratio| number(ratio.median))
        };
        let [peers, pods, flows] = sizes(cost).map(|size| grouped(size.into()));
        table.row([
            rules(cost.every_rule).to_owned(),
            peers,
            pods,
            flows,
            or_dash(median(&cost.nanoseconds), number),
            or_dash(median(&naive.nanoseconds), number),
            ratio(&cost.nanoseconds, &naive.nanoseconds),
            ratio(&net(cost), &net(naive)),
        ]);
    }
    table
}

fn rules(every: bool) -> &'static str {
    if every {
        "with every rule"
    } else {
        "without antiSpoof, overlay"
    }
}

fn lengths(results: &Results) -> Table {
    let [without, with] = [false, true].map(rules);
    let mut table = Table::new(1, ["Program", without, with]);
    for size in &results.program_sizes {
        let counts = [size.instructions, size.every_rule].map(|count| grouped(count.into()));
        let [without, with] = counts;
        table.row([size.program.clone(), without, with]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_whole_runs_and_of_what_they_take_beyond_an_empty_one() {
        let cost = |program: &str, every_rule, nanoseconds| ProgramCost {
            program: program.to_owned(),
            outcome: "to_pod".to_owned(),
            every_rule,
            nanoseconds: vec![nanoseconds],
            empty_nanoseconds: vec![20.0],
            ..ProgramCost::default()
        };
        let results = Results {
            programs: vec![
                cost(ProgramCost::NAIVE, false, 60.0),
                cost("from_pod", false, 80.0),
                cost("from_pod", true, 90.0),
                cost("from_uplink", false, 70.0),
            ],
            ..Results::default()
        };
        let rows = comparison(&results).rows;
        let ratios: Vec<_> = rows.iter().map(|row| &row[6..]).collect();
        assert_eq!(ratios, [["1.33", "1.50"], ["1.50", "1.75"]]);
    }
}
