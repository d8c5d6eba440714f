//! How a packet's cost grows with each map.

use super::document::{Document, Table};
use super::figures::{grouped, number};
use super::programs::{SIZES, name, series, sweep};
use crate::bench::types::Results;

/// Adds the table, if any size was changed.
pub(super) fn section(results: &Results, document: &mut Document) {
    let table = table(results);
    if table.rows.is_empty() {
        return;
    }
    document.heading(3, "Growth");
    document.text(
        "ns beyond empty at the smallest and at the largest size of one map, while the others stay the same. Sizes take \
         turns, round by round.",
    );
    document.table(table);
}

fn table(results: &Results) -> Table {
    let headings = [0, 1, 2].map(|which| heading(results, which));
    let [peers, pods, flows] = headings.each_ref().map(String::as_str);
    let mut table = Table::new(1, ["Program → outcome", peers, pods, flows]);
    for cost in series(results) {
        let name = name(cost);
        let [peers, pods, flows] = [0, 1, 2].map(|which| growth(results, &name, which));
        table.row([name, peers, pods, flows]);
    }
    table.without_empty_columns()
}

/// Between which sizes, if they are the same for all programs.
fn heading(results: &Results, which: usize) -> String {
    let ends = series(results).into_iter().filter_map(|cost| {
        let points = sweep(results, &name(cost), which);
        let [first, .., last] = &points[..] else {
            return None;
        };
        Some([first.x, last.x].map(|size| grouped(size as i64)))
    });
    let mut ends: Vec<_> = ends.collect();
    ends.dedup();
    match &ends[..] {
        [[from, to]] => format!("{from} to {to} {}", SIZES[which]),
        _ => SIZES[which].to_owned(),
    }
}

fn growth(results: &Results, of: &str, which: usize) -> String {
    match &sweep(results, of, which)[..] {
        [first, .., last] => format!("{} → {}", number(first.y), number(last.y)),
        _ => "–".to_owned(),
    }
}
