//! What the log tells of a round: what is new, once.

use super::Made;

/// Logs what is new since the node was made before.
pub(super) fn news(before: Option<&Made>, made: &Made) {
    let peers = |made: &Made| made.judgement.peers.len();
    if before.is_none_or(|before| before.judgement != made.judgement) {
        let cidrs = made.judgement.pod_cidrs.iter().map(ToString::to_string);
        let cidrs = cidrs.collect::<Vec<_>>().join(" ");
        tracing::info!(pod_cidrs = cidrs, peers = peers(made), "node set up");
    }
    unheard(
        before.map(|before| &before.judgement.problems),
        &made.judgement.problems,
    );
    unheard(
        before.map(|before| &before.record.problems),
        &made.record.problems,
    );
    let missing = |made: &Made| -> Vec<String> {
        let say = |kind| format!("plugin {kind}: not in --bin-dir, left out of the configuration");
        made.conflist.missing.iter().map(say).collect()
    };
    unheard(before.map(missing).as_ref(), &missing(made));
    if before.map(|before| &before.record.degraded) != Some(&made.record.degraded)
        && let Some(reason) = &made.record.degraded
    {
        tracing::warn!("pods take the plain bridge, no eBPF: {reason}");
    }
}

fn unheard(before: Option<&Vec<String>>, now: &[String]) {
    let known = |problem: &&String| before.is_some_and(|before| before.contains(problem));
    now.iter()
        .filter(|problem| !known(problem))
        .for_each(|problem| tracing::warn!("{problem}"));
}
