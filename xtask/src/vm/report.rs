//! What is said at the end: kernels and tests, how the plugin works on each kernel, and what failed or was skipped.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use super::{Outcome, guest::Returned, kernel::Kernel};
use crate::libtest;

/// What came back of all machines.
#[derive(Default)]
pub(super) struct Report {
    kernels: Vec<(&'static str, Result<Outcome>)>,
}

impl Report {
    pub(super) fn add(&mut self, kernel: &Kernel, outcome: Result<Outcome>) {
        self.kernels.push((kernel.version, outcome));
    }

    pub(super) fn has_failures(&self) -> bool {
        let failed = |(_, result): &Returned| match result {
            Ok(outcomes) => outcomes
                .values()
                .any(|one| *one == libtest::Outcome::Failed),
            Err(_) => true,
        };
        self.kernels.iter().any(|(_, outcome)| match outcome {
            Ok(outcome) => outcome.suites.iter().any(failed),
            Err(_) => true,
        })
    }

    fn came_back(&self) -> impl Iterator<Item = &Outcome> {
        self.kernels
            .iter()
            .filter_map(|(_, outcome)| outcome.as_ref().ok())
    }

    /// A line a kernel, a column a suite.
    fn counts(&self) -> Vec<Vec<String>> {
        let first = self.came_back().next();
        let suites = first.into_iter().flat_map(|outcome| &outcome.suites);
        let heading = ["kernel"].into_iter().chain(suites.map(|(name, _)| *name));
        let mut rows = vec![heading.map(str::to_owned).collect()];
        for (version, outcome) in &self.kernels {
            rows.push(match outcome {
                Ok(outcome) => {
                    let counts = outcome.suites.iter().map(|(_, result)| count(result));
                    [outcome.release.clone()]
                        .into_iter()
                        .chain(counts)
                        .collect()
                }
                Err(error) => vec![(*version).to_owned(), format!("{error:#}")],
            });
        }
        rows
    }

    /// A line a fact, a column a kernel.
    fn facts(&self) -> Vec<Vec<String>> {
        let mut facts: BTreeMap<&str, BTreeMap<usize, &str>> = BTreeMap::new();
        for (kernel, outcome) in self.came_back().enumerate() {
            for (what, how) in outcome
                .facts
                .lines()
                .filter_map(|line| line.split_once('\t'))
            {
                facts.entry(what).or_default().insert(kernel, how);
            }
        }
        let kernels = self.came_back().map(|outcome| outcome.release.clone());
        let mut rows = vec![["".to_owned()].into_iter().chain(kernels).collect()];
        let columns = self.came_back().count();
        for (what, by_kernel) in facts {
            let cells = (0..columns).map(|kernel| by_kernel.get(&kernel).copied().unwrap_or("?"));
            rows.push([what].into_iter().chain(cells).map(str::to_owned).collect());
        }
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in self.came_back() {
            for (suite, result) in &outcome.suites {
                let release = &outcome.release;
                match result {
                    Ok(outcomes) => write_exceptions(f, &format!("{release} {suite}"), outcomes)?,
                    Err(error) => writeln!(f, "{release} {suite}: {error:#}")?,
                }
            }
        }
        writeln!(f, "\npassed/failed/skipped\n{}", aligned(&self.counts()))?;
        write!(f, "{}", aligned(&self.facts()))
    }
}

fn write_exceptions(
    f: &mut fmt::Formatter<'_>,
    of: &str,
    outcomes: &libtest::Outcomes,
) -> fmt::Result {
    for (test, outcome) in outcomes {
        match outcome {
            libtest::Outcome::Passed => {}
            libtest::Outcome::Failed => writeln!(f, "{of}: {test}: FAILED")?,
            libtest::Outcome::Skipped(why) => writeln!(f, "{of}: {test}: skipped: {why}")?,
        }
    }
    Ok(())
}

fn count(result: &Result<libtest::Outcomes>) -> String {
    let Ok(outcomes) = result else {
        return "lost".to_owned();
    };
    let mut counts = [0; 3];
    for outcome in outcomes.values() {
        counts[match outcome {
            libtest::Outcome::Passed => 0,
            libtest::Outcome::Failed => 1,
            libtest::Outcome::Skipped(_) => 2,
        }] += 1;
    }
    counts.map(|count: usize| count.to_string()).join("/")
}

/// A table in columns as wide as needed.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell =
        |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| cell(row, column)).max().unwrap_or(0))
        .collect();
    let mut table = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        table += cells.collect::<Vec<_>>().join("  ").trim_end();
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn outcome(release: &str, facts: &str) -> Outcome {
        let outcomes = [
            ("a", libtest::Outcome::Passed),
            ("b", libtest::Outcome::Failed),
            ("c", libtest::Outcome::Skipped("no tcx".to_owned())),
        ];
        let outcomes = outcomes.map(|(name, outcome)| (name.to_owned(), outcome));
        Outcome {
            release: release.to_owned(),
            suites: vec![
                ("bpf", Ok(outcomes.into())),
                ("e2e", Err(anyhow!("cut short"))),
            ],
            facts: facts.to_owned(),
        }
    }

    #[test]
    fn kernels_are_lines_of_counts_and_columns_of_facts() {
        let mut report = Report::default();
        report.add(
            &"5.10".parse().unwrap(),
            Ok(outcome("5.10.0-46-amd64", "attached by\tclsact\n")),
        );
        report.add(&"6.1".parse().unwrap(), Err(anyhow!("did not boot")));
        report.add(
            &"6.12".parse().unwrap(),
            Ok(outcome("6.12.117", "attached by\ttcx\n")),
        );
        assert!(report.has_failures());
        let expected = "\
5.10.0-46-amd64 bpf: b: FAILED
5.10.0-46-amd64 bpf: c: skipped: no tcx
5.10.0-46-amd64 e2e: cut short
6.12.117 bpf: b: FAILED
6.12.117 bpf: c: skipped: no tcx
6.12.117 e2e: cut short

passed/failed/skipped
kernel           bpf           e2e
5.10.0-46-amd64  1/1/1         lost
6.1              did not boot
6.12.117         1/1/1         lost

             5.10.0-46-amd64  6.12.117
attached by  clsact           tcx
";
        assert_eq!(report.to_string(), expected);
    }
}
