//! Where beeline is beaten by the bridge it replaces, found in the figures rather than remembered.

use super::contenders::rival;
use super::control::{beside, masquerading, mode};
use super::document::Document;
use super::figures::{case, number, place, services};
use super::rates::{Rounds, p50, p99, rate, same};
use super::stats::{Summary, ratios};
use crate::bench::types::{Measurement, Results};

/// Adds the list.
pub(super) fn chapter(results: &Results, document: &mut Document) {
    let mut losses: Vec<_> = results
        .traffic
        .iter()
        .filter_map(|one| traffic(results, one))
        .collect();
    losses.extend(control(results));
    document.heading(2, "Where beeline loses");
    if losses.is_empty() {
        document
            .text("Nowhere in this run: no figure is worse than the bridge's beyond the noise.");
        return;
    }
    document.text(
        "Worse than the bridge by more than 1 % and beyond the noise, which is: the ratio is on one side of 1 with \
         about 95 % confidence, in every round if there are fewer than eight. With `-vxlan`, against the bridge's vxlan.",
    );
    document.list(losses);
}

fn traffic(results: &Results, one: &Measurement) -> Option<String> {
    let kinds: [(&str, Rounds, bool); 3] = [
        ("rate", rate, true),
        ("p50", p50, false),
        ("p99", p99, false),
    ];
    let base = same(results, one, rival(&one.contender)?, one.services)?;
    let loss = |(what, rounds, more_is_better): (&str, Rounds, bool)| {
        let ratio = Summary::of(&ratios(rounds(one), rounds(base)))?;
        let worse = match more_is_better {
            true => ratio.sure.1 < 1.0 && ratio.median < 0.99,
            false => ratio.sure.0 > 1.0 && ratio.median > 1.01,
        };
        worse.then(|| format!("{} × the {what}", number(ratio.median)))
    };
    let losses: Vec<_> = kinds.into_iter().filter_map(loss).collect();
    (!losses.is_empty()).then(|| {
        format!(
            "{}, {}, {}, {}: `{}` has {} of `{}`",
            place(one.place),
            services(one.services),
            case(&one.case),
            if one.pinned { "one CPU" } else { "not pinned" },
            one.contender,
            losses.join(" and "),
            base.contender,
        )
    })
}

fn control(results: &Results) -> Vec<String> {
    let loss = |one: &crate::bench::types::Control| {
        let base = beside(results, one, rival(&one.contender)?)?;
        let (own, other) = (
            Summary::of(&one.samples_ms)?,
            Summary::of(&base.samples_ms)?,
        );
        let worse = own.differs(&other) && own.median > other.median * 1.01;
        worse.then(|| {
            format!(
                "{}, {}, {}: takes {} times as long as with `{}`",
                one.verb,
                mode(one.mode),
                masquerading(one.masquerade),
                number(own.median / other.median),
                base.contender,
            )
        })
    };
    results.control.iter().filter_map(loss).collect()
}
