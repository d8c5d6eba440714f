//! Running tests so that we know what became of each: cargo builds them, and their executables run here, as cargo would
//! run them. `cargo test` itself names the executables on another stream than that on which they speak.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::process::{self, say};
use crate::{interrupt, workspace};

mod output;

/// Where tests write that they cannot run here; the variable is that of `beeline_tests::skip`.
const SKIPS: &str = "BEELINE_SKIPS";

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// It cannot run here, for this reason.
    Skipped(String),
    Failed,
}

/// What became of all tests that ran, by `<target>::<name>`, where the target is that of cargo with underscores.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// The tests so far.
#[derive(Default)]
pub(crate) struct Tests {
    pub(crate) outcomes: Outcomes,
    /// How many suites ran to their end, whatever became of their tests.
    pub(crate) suites: usize,
}

/// Some tests of the workspace.
#[derive(Default)]
pub(crate) struct Suite<'a> {
    /// What selects them, in the words of `cargo test`.
    pub(crate) select: &'a [&'a str],
    /// What their executables get as arguments.
    pub(crate) arguments: &'a [&'a str],
    /// What they get in the environment.
    pub(crate) environment: Vec<(&'a str, PathBuf)>,
}

/// What cargo says of each thing it built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    profile: Profile,
    #[serde(default)]
    executable: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Default, Deserialize)]
struct Target {
    name: String,
}

/// An executable with tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The target of cargo, with underscores.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    /// The manifest of its package.
    pub(crate) manifest: PathBuf,
}

/// Builds the tests that `select` names in the words of `cargo test`.
pub(crate) fn build(select: &[&str]) -> Result<Vec<Executable>> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-run"]).args(select);
    cargo.arg("--message-format=json-render-diagnostics");
    process::echo(&cargo);
    let output = cargo.stderr(Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "cargo test --no-run: {}",
        output.status
    );
    let built = executables(&String::from_utf8(output.stdout)?)?;
    ensure!(!built.is_empty(), "cargo built no tests");
    Ok(built)
}

/// What became of the tests of an executable that ran elsewhere, from what it said and the skips that it wrote.
pub(crate) fn read(said: &str, skips: &str) -> Result<Outcomes> {
    let mut outcomes = output::parse(said)?;
    output::note_skips(&mut outcomes, skips)?;
    Ok(outcomes)
}

impl Suite<'_> {
    /// Builds and runs the tests; each executable runs even if an earlier one failed.
    pub(crate) fn run(&self, tests: &mut Tests) -> Result<()> {
        let mut failures = Vec::new();
        for executable in build(self.select)? {
            if interrupt::seen() {
                bail!("interrupted");
            }
            if let Err(error) = self.execute(&executable, &mut tests.outcomes) {
                say(&format!("{error:#}"));
                failures.push(executable.target);
            }
        }
        tests.suites += 1;
        ensure!(failures.is_empty(), "failed: {}", failures.join(", "));
        Ok(())
    }

    fn execute(&self, executable: &Executable, outcomes: &mut Outcomes) -> Result<()> {
        let skips = tempfile::NamedTempFile::new().context("skips: create")?;
        let mut command = Command::new(&executable.path);
        let folder = executable.manifest.parent().unwrap_or(Path::new("/"));
        command.args(self.arguments).current_dir(folder);
        command.env("CARGO_MANIFEST_DIR", folder);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.env(SKIPS, skips.path());
        if io::stdout().is_terminal() {
            // It sees a pipe.
            command.arg("--color=always");
        }
        process::echo(&command);
        let mut child = command.stdout(Stdio::piped()).spawn().context("start")?;
        let stdout = child.stdout.take().context("standard output")?;
        let said = pass_through(stdout, &mut io::stdout())?;
        let status = child.wait()?;

        let target = &executable.target;
        let mut seen = output::parse(&said).with_context(|| target.clone())?;
        let noted = output::note_skips(&mut seen, &fs::read_to_string(skips.path())?);
        for (test, outcome) in seen {
            record(outcomes, format!("{target}::{test}"), outcome);
        }
        ensure!(status.success(), "{target}: {status}");
        noted.with_context(|| target.clone())
    }
}

/// The executables among what cargo built, a line of JSON each.
fn executables(messages: &str) -> Result<Vec<Executable>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("cargo's messages")?;
        let Some(path) = message.executable else {
            continue;
        };
        // Integration tests have the programs of their package built too.
        if message.reason == "compiler-artifact" && message.profile.test {
            found.push(Executable {
                target: message.target.name.replace('-', "_"),
                path,
                manifest: message.manifest_path,
            });
        }
    }
    Ok(found)
}

/// A library and a program can have the same name, and even tests of the same name: the worst counts.
fn record(outcomes: &mut Outcomes, test: String, outcome: Outcome) {
    let entry = outcomes.entry(test).or_insert(Outcome::Passed);
    if *entry == Outcome::Passed || outcome == Outcome::Failed {
        *entry = outcome;
    }
}

/// Copies what is said as it comes, and returns it.
fn pass_through(mut from: impl Read, to: &mut impl Write) -> Result<String> {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.context("output: read")?,
        };
        if read == 0 {
            return Ok(String::from_utf8_lossy(&said).into_owned());
        }
        said.extend_from_slice(&buffer[..read]);
        // Nobody listening is no reason to stop.
        let _ = to.write_all(&buffer[..read]).and_then(|()| to.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_told_from_what_else_cargo_built() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"manifest_path":"/s/Cargo.toml","profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"beeline-demo"},"manifest_path":"/w/tests/Cargo.toml","profile":{"test":false},"executable":"/t/beeline-demo"}
{"reason":"build-script-executed","package_id":"x"}
{"reason":"compiler-artifact","target":{"name":"beeline-tests"},"manifest_path":"/w/tests/Cargo.toml","profile":{"test":true},"executable":"/t/beeline_tests-1"}
{"reason":"compiler-artifact","target":{"name":"e2e"},"manifest_path":"/w/tests/Cargo.toml","profile":{"test":true},"executable":"/t/e2e-2"}
{"reason":"build-finished","success":true}
"#;
        let found = executables(messages).unwrap();
        let targets: Vec<_> = found.iter().map(|found| &*found.target).collect();
        assert_eq!(targets, ["beeline_tests", "e2e"]);
        assert_eq!(found[1].path, Path::new("/t/e2e-2"));
        assert_eq!(found[1].manifest, Path::new("/w/tests/Cargo.toml"));
    }

    #[test]
    fn what_is_said_is_passed_on_unchanged() {
        let said = "test a ... ok\nhalf a line\u{1b}[0m";
        let mut shown = Vec::new();
        assert_eq!(pass_through(said.as_bytes(), &mut shown).unwrap(), said);
        assert_eq!(shown, said.as_bytes());
    }

    #[test]
    fn of_tests_of_the_same_name_the_worst_counts() {
        let skipped = || Outcome::Skipped("why".to_owned());
        let orders = [
            vec![Outcome::Failed, skipped(), Outcome::Passed],
            vec![Outcome::Passed, skipped(), Outcome::Failed],
        ];
        for order in orders {
            let mut outcomes = Outcomes::new();
            for outcome in order {
                record(&mut outcomes, "x".to_owned(), outcome);
            }
            assert_eq!(outcomes["x"], Outcome::Failed);
        }
    }
}
