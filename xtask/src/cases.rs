//! The table of cases of the CNI specification and of the reference plugins: which of them the tests prove.
//!
//! `tests/cases/<area>.toml` says which tests prove a case. A case passed only if all its tests ran and passed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::libtest::{Outcome, Outcomes};
use crate::workspace;

/// What the files are about, in the order of the table; others come after them, under their own names.
const HEADINGS: [(&str, &str); 6] = [
    ("protocol", "Protocol"),
    ("ipam", "Address management"),
    ("bridge", "Bridge"),
    ("chain", "Chained plugins and the life of a pod"),
    ("security", "Security"),
    ("threats", "Threat model (docs/security.md)"),
];

/// Whether all tests ran, or only some were selected or got so far.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    Some,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What is proved.
    text: String,
    /// The names of tests, as `<target>::<name>`.
    tests: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
    NotRun,
}

/// Prints how many tests were skipped and why, and the table; fails if a case did.
pub(crate) fn report(outcomes: &Outcomes, extent: Extent) -> Result<()> {
    print!("{}", skips(outcomes));
    let (table, failed) = table(&areas()?, outcomes, extent);
    print!("{table}");
    ensure!(
        failed == 0,
        "{failed} cases of the CNI specification failed"
    );
    Ok(())
}

/// All files of cases, with their headings.
fn areas() -> Result<Vec<(String, Area)>> {
    let folder = workspace::root().join("tests/cases");
    let context = || format!("{}: read", folder.display());
    let entries = fs::read_dir(&folder).with_context(context)?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()
        .with_context(context)?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    let stem = |path: &PathBuf| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let rank = |stem: &str| HEADINGS.iter().position(|(file, _)| *file == stem);
    files.sort_by_key(|path| (rank(&stem(path)).unwrap_or(HEADINGS.len()), stem(path)));
    let read = |path: PathBuf| {
        let stem = stem(&path);
        let heading = rank(&stem).map_or(stem, |rank| HEADINGS[rank].1.to_owned());
        let text =
            fs::read_to_string(&path).with_context(|| format!("{}: read", path.display()))?;
        let area = toml::from_str(&text).with_context(|| path.display().to_string())?;
        Ok((heading, area))
    };
    files.into_iter().map(read).collect()
}

/// A line for each reason for which tests were skipped.
fn skips(outcomes: &Outcomes) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes.values() {
        if let Outcome::Skipped(reason) = outcome {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let line = |(reason, tests)| format!("tests skipped: {tests} ({reason})\n");
    reasons.into_iter().map(line).collect()
}

/// The table, and how many cases failed.
fn table(areas: &[(String, Area)], outcomes: &Outcomes, extent: Extent) -> (String, usize) {
    let mut table = "\nCases of the CNI specification and of the reference plugins\n".to_owned();
    let [mut passed, mut skipped, mut failed, mut not_run] = [0; 4];
    for (heading, area) in areas {
        let mut lines = String::new();
        for case in &area.case {
            let (count, verdict, why) = match case.verdict(outcomes, extent) {
                Verdict::Passed => (&mut passed, "passed", None),
                Verdict::Skipped(why) => (&mut skipped, "skipped", Some(why)),
                Verdict::Failed(why) => (&mut failed, "FAILED", Some(why)),
                Verdict::NotRun => {
                    not_run += 1;
                    continue;
                }
            };
            *count += 1;
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            let _ = writeln!(lines, "    {verdict:<8}{}{why}", case.text);
        }
        if !lines.is_empty() {
            let _ = write!(table, "  {heading}\n{lines}");
        }
    }
    let _ = write!(
        table,
        "cases of the CNI specification: {passed} passed, {skipped} skipped, {failed} failed"
    );
    if not_run > 0 {
        let _ = write!(table, ", {not_run} not run");
    }
    table.push('\n');
    (table, failed)
}

impl Case {
    fn verdict(&self, outcomes: &Outcomes, extent: Extent) -> Verdict {
        if self.tests.is_empty() {
            return Verdict::Failed("no tests".to_owned());
        }
        let of = |wanted: fn(Option<&Outcome>) -> bool| {
            self.tests.iter().find(|test| wanted(outcomes.get(*test)))
        };
        if let Some(test) = of(|outcome| outcome == Some(&Outcome::Failed)) {
            return Verdict::Failed(test.clone());
        }
        if let Some(test) = of(|outcome| outcome.is_none()) {
            return match extent {
                Extent::All => Verdict::Failed(format!("{test} did not run")),
                Extent::Some => Verdict::NotRun,
            };
        }
        let reasons = self.tests.iter().map(|test| outcomes.get(test));
        let skipped = reasons.filter_map(|outcome| match outcome {
            Some(Outcome::Skipped(reason)) => Some(reason.clone()),
            _ => None,
        });
        skipped
            .map(Verdict::Skipped)
            .next()
            .unwrap_or(Verdict::Passed)
    }
}

#[cfg(test)]
mod tests;
