//! Runs IPAM plugins that are programs of their own.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// A result is a few hundred bytes; more than this is not one.
const MAX_OUTPUT: u64 = 4 << 20;

/// The error object of another plugin, passed on as it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DelegateError {
    /// The code.
    pub code: u32,
    /// The message.
    #[serde(default)]
    pub msg: String,
    /// More about it.
    #[serde(default)]
    pub details: String,
}

impl fmt::Display for DelegateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.msg {
            "" => write!(f, "failed with code {}, and does not say why", self.code),
            msg => f.write_str(msg),
        }
    }
}

impl std::error::Error for DelegateError {}

/// An IPAM plugin that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    kind: String,
    program: PathBuf,
}

impl Delegate {
    /// Looks for the plugin `kind` in the directories of `CNI_PATH`; relative ones do not count.
    pub fn find<P: AsRef<Path>>(kind: &str, search_path: &[P]) -> Result<Self> {
        let plain = !kind.is_empty() && !kind.contains(['/', '\0']) && kind != "." && kind != "..";
        ensure!(plain, "ipam.type {kind:?}: not the name of a plugin");
        let directories = || {
            search_path
                .iter()
                .map(P::as_ref)
                .filter(|directory| directory.is_absolute())
        };
        let mut candidates = directories().map(|directory| directory.join(kind));
        match candidates.find(|path| fs::metadata(path).is_ok_and(|found| found.is_file())) {
            Some(program) => Ok(Self {
                kind: kind.into(),
                program,
            }),
            None => {
                let searched: Vec<_> = directories().map(|d| d.display().to_string()).collect();
                bail!(
                    "ipam.type {kind:?}: no such plugin in CNI_PATH {:?}",
                    searched.join(":")
                )
            }
        }
    }

    /// Runs the plugin with this configuration and environment, in which `CNI_COMMAND` becomes `command`, and gives
    /// back what it printed. An error object becomes a [`DelegateError`].
    pub fn run(
        &self,
        command: &str,
        config: &[u8],
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Vec<u8>> {
        let run = || -> Result<Vec<u8>> {
            let mut process = Command::new(&self.program);
            process.env_clear().envs(env).env("CNI_COMMAND", command);
            process.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = spawn(&mut process)?;
            let output = converse(&mut child, config);
            let status = child.wait()?;
            answer(status, output?)
        };
        run().with_context(|| format!("ipam {}: {command}", self.kind))
    }
}

/// What a plugin that ended so has said.
pub(crate) fn answer(status: ExitStatus, output: Vec<u8>) -> Result<Vec<u8>> {
    if status.success() {
        return Ok(output);
    }
    match serde_json::from_slice::<DelegateError>(&output) {
        Ok(error) => Err(error.into()),
        Err(_) if output.is_empty() => bail!("{status}, with no error message"),
        Err(_) => bail!("{status}: {:?}", String::from_utf8_lossy(&output)),
    }
}

/// Starts the program; it may have been opened for writing by a fork of whoever installed it a moment ago.
fn spawn(process: &mut Command) -> Result<Child> {
    for _ in 0..20 {
        match process.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(50))
            }
            other => return other.context("start"),
        }
    }
    process.spawn().context("start")
}

/// Writes the configuration while reading the output, so that neither side can wait for the other.
fn converse(child: &mut Child, config: &[u8]) -> Result<Vec<u8>> {
    let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
    thread::scope(|scope| {
        let write = move || {
            // A plugin that does not read its configuration to the end has its reasons: its exit tells.
            let _ = stdin.as_mut().map(|stdin| stdin.write_all(config));
        };
        let writer = thread::Builder::new().spawn_scoped(scope, write);
        writer.context("start a thread")?;
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout
                .take(MAX_OUTPUT + 1)
                .read_to_end(&mut output)
                .context("read the output")?;
        }
        ensure!(
            output.len() as u64 <= MAX_OUTPUT,
            "output of more than {MAX_OUTPUT} bytes"
        );
        Ok(output)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn plugin(script: &str) -> (TempDir, Delegate) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("stub");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let found = Delegate::find("stub", &[dir.path()]).unwrap();
        (dir, found)
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        let path = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];
        pairs
            .iter()
            .chain(&path)
            .map(|(k, v)| (k.into(), v.into()))
            .collect()
    }

    #[test]
    fn the_plugin_sees_the_same_bytes_and_the_whole_environment() {
        let (_dir, stub) = plugin("cat; echo \"|$CNI_COMMAND|$CNI_ARGS|$OTHER\"");
        let config = b"{ \"Name\" :\"x\",\r\n \"a\":1, \"a\":2 }\n";
        let env = env(&[("CNI_COMMAND", "ADD"), ("CNI_ARGS", "A=b"), ("OTHER", "o")]);
        let output = stub.run("DEL", config, env).unwrap();
        assert_eq!(output, [&config[..], b"|DEL|A=b|o\n"].concat());
    }

    #[test]
    fn an_error_object_is_passed_on() {
        let (_dir, stub) = plugin(
            r#"echo '{"cniVersion":"1.0.0","code":117,"msg":"no","details":"way"}'; exit 1"#,
        );
        let error = stub.run("ADD", b"{}", env(&[])).unwrap_err();
        let found = error.downcast_ref::<DelegateError>().unwrap();
        assert_eq!(
            (found.code, &*found.msg, &*found.details),
            (117, "no", "way")
        );
    }

    #[test]
    fn a_failure_without_an_error_object_shows_what_there_is() {
        let (_dir, stub) = plugin("echo oops; exit 3");
        let error = format!("{:#}", stub.run("ADD", b"{}", env(&[])).unwrap_err());
        assert_eq!(error, "ipam stub: ADD: exit status: 3: \"oops\\n\"");
        let (_dir, stub) = plugin("exit 3");
        assert!(
            format!("{:#}", stub.run("ADD", b"{}", env(&[])).unwrap_err())
                .contains("no error message")
        );
    }

    #[test]
    fn large_input_that_nobody_reads_does_not_block() {
        let (_dir, stub) = plugin("echo done");
        assert_eq!(
            stub.run("ADD", &vec![b' '; 1 << 20], env(&[])).unwrap(),
            b"done\n"
        );
        let (_dir, stub) = plugin("cat");
        assert_eq!(
            stub.run("ADD", &vec![b' '; 1 << 20], env(&[]))
                .unwrap()
                .len(),
            1 << 20
        );
    }

    #[test]
    fn the_search_takes_only_regular_files_in_absolute_directories() {
        let (dir, _) = plugin("");
        let find =
            |kind: &str, path: &Path| Delegate::find(kind, &[Path::new(""), Path::new("."), path]);
        assert!(find("stub", dir.path()).is_ok());
        for kind in ["", ".", "..", "a/b", "../stub", "/bin/sh"] {
            let error = find(kind, dir.path()).unwrap_err().to_string();
            assert!(error.contains("not the name of a plugin"), "{error}");
        }
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(find("folder", dir.path()).is_err());
        let missing = find("missing", dir.path()).unwrap_err().to_string();
        assert!(
            missing.contains("\"missing\"") && missing.contains(&dir.path().display().to_string()),
            "{missing}"
        );
    }
}
