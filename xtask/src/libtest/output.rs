//! What the standard test harness, libtest, prints in its `pretty` format.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::Outcome;

/// What became of each test, by its name.
///
/// # Errors
///
/// The harness counted other than we did, as when a test printed into the midst of a line, or it printed no result at
/// all, as when the executable crashed.
pub(super) fn parse(said: &str) -> Result<BTreeMap<String, Outcome>> {
    let said = without_colours(said);
    let outcomes: BTreeMap<_, _> = said.lines().filter_map(line).collect();
    let result = said.lines().find_map(|line| {
        let counts = line.strip_prefix("test result: ")?;
        counts.split_once(". ").map(|(_, counts)| counts)
    });
    let result = result.context("no result: did it crash?")?;
    let counted = |wanted: fn(&Outcome) -> bool| {
        let count = outcomes.values().filter(|outcome| wanted(outcome)).count();
        count.to_string()
    };
    let counts = [
        (counted(|outcome| *outcome == Outcome::Passed), "passed"),
        (counted(|outcome| *outcome == Outcome::Failed), "failed"),
        (
            counted(|outcome| matches!(outcome, Outcome::Skipped(_))),
            "ignored",
        ),
    ];
    for (count, what) in counts {
        let said = result
            .split("; ")
            .find_map(|part| part.strip_suffix(what)?.strip_suffix(' '));
        ensure!(
            said == Some(&*count),
            "{count} tests read as {what}, but the harness says {result:?}"
        );
    }
    Ok(outcomes)
}

/// Changes those that passed to those that were skipped, by lines of `<test>\t<reason>`.
pub(super) fn note_skips(outcomes: &mut BTreeMap<String, Outcome>, lines: &str) -> Result<()> {
    let mut unknown = Vec::new();
    for line in lines.lines() {
        let (test, reason) = line.split_once('\t').unwrap_or((line, "no reason"));
        match outcomes.get_mut(test) {
            None => unknown.push(line),
            Some(Outcome::Failed) => {}
            Some(outcome) => *outcome = Outcome::Skipped(reason.to_owned()),
        }
    }
    ensure!(
        unknown.is_empty(),
        "skipped, but none of its tests: {unknown:?}"
    );
    Ok(())
}

/// Reads `test <name>[ - should panic] ... <outcome>`.
fn line(line: &str) -> Option<(String, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    let outcome = match outcome.split_once(", ").unwrap_or((outcome, "ignored")) {
        ("ok", _) => Outcome::Passed,
        ("FAILED", _) => Outcome::Failed,
        ("ignored", reason) => Outcome::Skipped(reason.to_owned()),
        _ => return None,
    };
    Some((name.to_owned(), outcome))
}

fn without_colours(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default();
    // A colour is "[31m"; some terminals have a character set, "(B", named before it ends.
    let rest = parts.map(|part| match part.strip_prefix("(B") {
        Some(after) => after,
        None => part.split_once('m').map_or(part, |(_, after)| after),
    });
    std::iter::once(first).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "
running 5 tests
test cni::a_pod ... ok
test ignored_here ... ignored, needs a mouse
test ignored_silently ... ignored
test panics - should panic ... ok
test ipam::broken ... FAILED

failures:

---- ipam::broken stdout ----
test that was said by a test

failures:
    ipam::broken

test result: FAILED. 2 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.10s

";

    fn skipped(reason: &str) -> Outcome {
        Outcome::Skipped(reason.to_owned())
    }

    #[test]
    fn each_test_has_its_outcome() {
        let outcomes = parse(SAID).unwrap();
        let expected = [
            ("cni::a_pod", Outcome::Passed),
            ("ignored_here", skipped("needs a mouse")),
            ("ignored_silently", skipped("ignored")),
            ("ipam::broken", Outcome::Failed),
            ("panics", Outcome::Passed),
        ];
        let expected = expected.map(|(name, outcome)| (name.to_owned(), outcome));
        assert_eq!(outcomes, BTreeMap::from(expected));
    }

    #[test]
    fn colours_are_no_part_of_it() {
        let coloured = SAID
            .replace("ok\n", "\x1b[32mok\x1b(B\x1b[m\n")
            .replace("FAILED\n", "\x1b[31mFAILED\x1b[0m\n");
        assert_eq!(parse(&coloured).unwrap(), parse(SAID).unwrap());
    }

    #[test]
    fn a_line_that_cannot_be_read_is_noticed_by_the_count() {
        let garbled = SAID.replace("test cni::a_pod", "noisetest cni::a_pod");
        let error = parse(&garbled).unwrap_err().to_string();
        assert!(error.starts_with("1 tests read as passed"), "{error}");
    }

    #[test]
    fn a_crash_is_no_result() {
        let crashed = SAID.split("failures:").next().unwrap();
        assert!(parse(crashed).is_err());
    }

    #[test]
    fn a_skip_takes_the_place_of_a_pass_but_not_of_a_failure() {
        let mut outcomes = parse(SAID).unwrap();
        let lines = "cni::a_pod\tno VLAN filtering\nipam::broken\tno VLAN filtering\n";
        note_skips(&mut outcomes, lines).unwrap();
        assert_eq!(outcomes["cni::a_pod"], skipped("no VLAN filtering"));
        assert_eq!(outcomes["ipam::broken"], Outcome::Failed);
        let error = note_skips(&mut outcomes, "tokio-worker\tx\n").unwrap_err();
        assert!(error.to_string().contains("tokio-worker"), "{error}");
    }
}
