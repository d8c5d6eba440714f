//! Running other programs, visibly.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Lines shown of a quiet command's output when it fails.
const TAIL: usize = 30;

/// Prints `command`, runs it with our own output, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    echo(command);
    let status = command
        .status()
        .with_context(|| format!("{}: start", describe(command)))?;
    check(command, status)
}

/// Runs `command` and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("{}: start", describe(command)))?;
    check(command, output.status)?;
    String::from_utf8(output.stdout).with_context(|| format!("{}: read output", describe(command)))
}

/// Runs `command` behind a spinner that shows its latest line; without a terminal, prints its lines.
///
/// A failure shows the end of what the command said.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    echo(command);
    let (reader, writer) = io::pipe().context("pipe: create")?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let child = command.spawn();
    // The command holds the pipe's writing end; until it lets go, the reader below sees no end of file.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("{}: start", describe(command)))?;

    let spinner = io::stderr().is_terminal().then(spinner);
    let mut tail = VecDeque::with_capacity(TAIL);
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        match &spinner {
            Some(spinner) => spinner.set_message(line.clone()),
            None => eprintln!("{line}"),
        }
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    let status = child.wait()?;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
        if !status.success() {
            tail.iter().for_each(|line| eprintln!("{line}"));
        }
    }
    check(command, status)
}

/// Says something of our own, apart from what the commands print.
pub(crate) fn say(message: &str) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(io::stderr(), "xtask: {message}");
}

/// Prints `command` dimly.
pub(crate) fn echo(command: &Command) {
    let line = describe(command);
    let _ = if io::stderr().is_terminal() {
        writeln!(io::stderr(), "\x1b[2m$ {line}\x1b[0m")
    } else {
        writeln!(io::stderr(), "$ {line}")
    };
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg}");
    let spinner = ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{}: {status}", describe(command));
    }
    Ok(())
}

fn describe(command: &Command) -> String {
    let program = command.get_program();
    // The folder of rustup's cargo says nothing and is long.
    let cargo = program.as_encoded_bytes().ends_with(b"/cargo");
    let program = if cargo { "cargo".as_ref() } else { program };
    let words = std::iter::once(program).chain(command.get_args());
    let words: Vec<_> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("sh -c exit 3: "), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run_quietly(&mut Command::new("/nonexistent/tool")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/tool"), "{error}");
    }

    #[test]
    fn a_quiet_command_ends_and_reports_failure() {
        assert!(run_quietly(Command::new("sh").args(["-c", "echo a; echo b >&2"])).is_ok());
        assert!(run_quietly(&mut Command::new("false")).is_err());
    }
}
