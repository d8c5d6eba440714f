//! What runs in the guest, as shell scripts, and what it hands back, as files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::libtest::{self, Executable, Outcome, Outcomes};

/// The script that the guest's process 1 becomes.
pub(super) const SCRIPT: &str = "guest.sh";

/// The folder of what runs in the guest, below that for results.
pub(super) const PROGRAMS: &str = "bin";

/// Where the guest has it: in memory, as each page of a file of the host's is a question to the host.
const LOCAL: &str = "/run/bin";

/// Where a program is in the guest.
pub(super) fn program(name: &str) -> PathBuf {
    Path::new(LOCAL).join(name)
}

/// Some tests of one executable.
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) executable: Executable,
    pub(super) arguments: Vec<String>,
}

/// What came back of a suite: what became of its tests, or why that is not known.
pub(super) type Returned = (&'static str, Result<Outcomes>);

/// The `/init` of a guest whose kernel is unpacked in `kernel`, and whose results go to `share`.
pub(super) fn init(kernel: &Path, share: &Path) -> Result<String> {
    let (kernel, share) = (quoted(kernel)?, quoted(share)?);
    let rest = include_str!("init.sh");
    Ok(format!(
        "#!/bin/busybox sh\nkernel={kernel}\nexport share={share}\n{rest}"
    ))
}

/// The script that runs the suites with these variables.
pub(super) fn script(suites: &[Suite], environment: &[(&str, PathBuf)]) -> Result<String> {
    let mut script = include_str!("guest.sh").to_owned();
    script += &format!("cp -r \"$share/{PROGRAMS}\" {LOCAL}\n");
    for (key, value) in environment {
        script += &format!("export {key}={}\n", quoted(value)?);
    }
    for suite in suites {
        let Executable { path, manifest, .. } = &suite.executable;
        let folder = manifest.parent().unwrap_or(Path::new("/"));
        let program = program(&path.file_name().unwrap_or_default().to_string_lossy());
        script += &format!(
            "suite {} {} {}",
            suite.name,
            quoted(folder)?,
            quoted(&program)?
        );
        for argument in &suite.arguments {
            script += &format!(" {}", quoted(Path::new(argument))?);
        }
        script += "\n";
    }
    Ok(script)
}

/// Reads what the suites left in `share`.
pub(super) fn results(share: &Path, suites: &[Suite]) -> Vec<Returned> {
    let result = |suite: &Suite| {
        let file = |what: &str| {
            let path = share.join(format!("{}.{what}", suite.name));
            fs::read_to_string(&path).with_context(|| format!("{what}: did not come back"))
        };
        let outcomes = libtest::read(&file("out")?, &file("skips")?)?;
        let status = file("status").context("was cut short")?;
        let failed = outcomes.values().any(|outcome| *outcome == Outcome::Failed);
        ensure!(
            failed || status.trim() == "0",
            "ended with {}",
            status.trim()
        );
        Ok(outcomes)
    };
    suites
        .iter()
        .map(|suite| (suite.name, result(suite)))
        .collect()
}

/// A word of the shell's.
fn quoted(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{path:?}: not UTF-8"))?;
    ensure!(!text.contains('\''), "{text:?}: with a quote");
    Ok(format!("'{text}'"))
}
