//! The fuzz targets of `fuzz/`: built by cargo-fuzz with the toolchain that is pinned, and run for so many inputs.
//!
//! No sanitizer: memory safety is Rust's here, and that takes no nightly. New inputs of the corpus go with the run; what
//! makes a target fail stays in `fuzz/artifacts/`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::interrupt;
use crate::packages;
use crate::process::{self, say};
use crate::tools;
use crate::workspace;

/// The release of cargo-fuzz that we install.
const RELEASE: &str = "0.13.2";

/// How long each target runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// The corpus and a little more, always the same, in seconds.
    Short,
    /// So many inputs.
    Runs(u64),
}

impl Extent {
    /// Which of cargo-fuzz's builds it takes, and cargo's folder for it: for seconds the one that is built soonest.
    fn build(self) -> (&'static str, &'static str) {
        match self {
            Self::Short => ("--dev", "debug"),
            Self::Runs(_) => ("--release", "release"),
        }
    }

    fn options(self) -> Vec<String> {
        match self {
            Self::Short => ["-runs=20000", "-max_total_time=5", "-seed=1"]
                .map(str::to_owned)
                .to_vec(),
            Self::Runs(runs) => vec![format!("-runs={runs}")],
        }
    }
}

/// Builds all targets and runs one after the other, even if an earlier one failed.
pub(crate) fn run(extent: Extent) -> Result<()> {
    build(extent)?;
    let mut failed = Vec::new();
    for target in targets()? {
        if interrupt::seen() {
            break;
        }
        if let Err(error) = fuzz(&target, extent) {
            say(&format!("fuzz target {target}: {error:#}"));
            failed.push(target);
        }
    }
    ensure!(
        failed.is_empty(),
        "targets that failed: {}",
        failed.join(" ")
    );
    Ok(())
}

fn folder() -> PathBuf {
    workspace::root().join("fuzz")
}

fn target_folder() -> PathBuf {
    workspace::target().join("fuzz")
}

/// The names of the targets, each that of a file.
fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    let listed = fs::read_dir(&folder).with_context(|| format!("{}: list", folder.display()))?;
    let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let files = listed.filter_map(|entry| Some(entry.ok()?.path()));
    // Folders have parts of targets.
    let mut targets: Vec<_> = files
        .filter(|path| path.is_file())
        .filter_map(stem)
        .collect();
    targets.sort();
    Ok(targets)
}

fn build(extent: Extent) -> Result<()> {
    packages::require(&[packages::FUZZ])?;
    let mut cargo_fuzz = Command::new(tools::get("cargo-fuzz", RELEASE, &[])?);
    // It would say something else than the option.
    cargo_fuzz
        .current_dir(workspace::root())
        .env_remove("CARGO_TARGET_DIR");
    cargo_fuzz.args(["build", extent.build().0, "--sanitizer", "none"]);
    // cargo-fuzz's own choice is one, for speed: it would keep all cores but one idle.
    cargo_fuzz.args(["--codegen-units", "16", "--target-dir"]);
    process::run(cargo_fuzz.arg(target_folder()))
}

fn fuzz(target: &str, extent: Extent) -> Result<()> {
    let scratch = scratch()?;
    let artifacts = folder().join("artifacts").join(target);
    let new = scratch.path().join("corpus");
    for folder in [&artifacts, &new] {
        fs::create_dir_all(folder).with_context(|| format!("{}: create", folder.display()))?;
    }
    let triple = workspace::host_triple()?;
    let program = target_folder()
        .join(triple)
        .join(extent.build().1)
        .join(target);
    let log = target_folder().join(format!("{target}.log"));

    let mut command = Command::new(&program);
    command.args(extent.options());
    command.args(["-timeout=10", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let dictionary = folder()
        .join("dictionaries")
        .join(target)
        .with_extension("dict");
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.arg(&new).arg(folder().join("corpus").join(target));
    // Where targets make their files.
    command.env("TMPDIR", scratch.path());
    command.stderr(File::create(&log).with_context(|| format!("{}: create", log.display()))?);

    process::echo(&command);
    let status = command
        .status()
        .with_context(|| format!("{}: start", program.display()))?;
    let said = fs::read(&log).with_context(|| format!("{}: read", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    if status.success() {
        let Some(done) = Done::read(&said) else {
            bail!("says nothing of what it did; see {}", log.display());
        };
        say(&format!("fuzz target {target}: {}", done.line()));
        return Ok(());
    }
    bail!("{status}\n{}", advice(&program, extent, &said, &log))
}

/// A folder in memory, as targets make thousands of files, or else where temporary files are.
fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => TempDir::with_prefix_in("beeline-fuzz", memory),
        false => TempDir::with_prefix("beeline-fuzz"),
    };
    made.context("temporary folder: create")
}

/// What failed, and how it is seen again.
fn advice(program: &Path, extent: Extent, said: &str, log: &Path) -> String {
    let panics = said
        .lines()
        .skip_while(|line| !line.contains("panicked at"));
    let mut lines: Vec<String> = panics.take(6).map(str::to_owned).collect();
    let input = said.lines().find_map(|line| {
        let (_, path) = line.split_once("Test unit written to ")?;
        Some(path.trim())
    });
    if let Some(input) = input {
        let name = program.file_name().unwrap_or(OsStr::new(""));
        lines.push(format!("again:    {} {input}", program.display()));
        lines.push(format!(
            "smaller:  cargo fuzz tmin {} --sanitizer none {} {input}",
            extent.build().0,
            name.display()
        ));
        lines.push(
            "then make it a test of the crate that fails, with a name that says what was wrong"
                .to_owned(),
        );
    }
    lines.push(format!("all of it: {}", log.display()));
    lines.join("\n")
}

/// What a run did, as libFuzzer tells it.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    inputs: u64,
    per_second: u64,
    coverage: u64,
}

impl Done {
    fn read(said: &str) -> Option<Self> {
        let stat = |name: &str| {
            let mut lines = said.lines();
            let value = lines.find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
            value?.trim_start_matches(':').trim().parse().ok()
        };
        let mut words = said.split_whitespace();
        let mut coverage = 0;
        while words.by_ref().any(|word| word == "cov:") {
            coverage = words.next()?.parse().ok()?;
        }
        Some(Self {
            inputs: stat("number_of_executed_units")?,
            per_second: stat("average_exec_per_sec")?,
            coverage,
        })
    }

    fn line(&self) -> String {
        let Self {
            inputs,
            per_second,
            coverage,
        } = self;
        format!("{inputs} inputs, {per_second} a second, {coverage} edges covered, no crash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_did_is_read() {
        let said = "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                    #64\tDONE   cov: 2317 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\nDone 64 runs in 0 second(s)\n\
                    stat::number_of_executed_units: 64\nstat::average_exec_per_sec:     32\n";
        let expected = Done {
            inputs: 64,
            per_second: 32,
            coverage: 2317,
        };
        assert_eq!(Done::read(said), Some(expected));
        assert_eq!(Done::read("cov: 1\n"), None);
    }

    #[test]
    fn a_failure_says_where_its_input_is() {
        let said = "INFO: x\nthread '<unnamed>' panicked at fuzz_targets/call.rs:9:1:\nboom\n\
                    artifact_prefix='a/'; Test unit written to a/crash-1\n";
        let advice = advice(
            Path::new("/t/call"),
            Extent::Short,
            said,
            Path::new("/t/call.log"),
        );
        assert!(
            advice.starts_with("thread '<unnamed>' panicked"),
            "{advice}"
        );
        assert!(advice.contains("again:    /t/call a/crash-1"), "{advice}");
        assert!(advice.contains("sanitizer none call a/crash-1"), "{advice}");
    }

    #[test]
    fn each_target_has_a_corpus() {
        for target in targets().unwrap() {
            let corpus = folder().join("corpus").join(&target);
            let inputs = fs::read_dir(corpus).unwrap().count();
            assert!((1..=40).contains(&inputs), "{target}: {inputs}");
        }
    }
}
