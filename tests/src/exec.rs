//! Running programs and reading what they say.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::netns::Namespace;
use crate::plan::Family;

/// Runs a command with `input` on its standard input and returns all it wrote.
pub fn output(command: &mut Command, input: &[u8]) -> Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("{:?}: start", command.get_program()))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // From a thread: a child may write more than a pipe holds before it reads; it may also not read at all.
    let output = thread::scope(|scope| {
        scope.spawn(move || match stdin.write_all(input) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        });
        child.wait_with_output()
    });
    output.with_context(|| format!("{:?}: wait", command.get_program()))
}

/// Runs a command that must succeed and returns its standard output.
pub fn stdout(command: &mut Command) -> Result<String> {
    succeed(command, b"")
}

/// Runs a command that must succeed and parses its standard output as JSON.
pub fn json<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let text = stdout(command)?;
    serde_json::from_str(&text)
        .with_context(|| format!("{command:?}: not the JSON expected: {text}"))
}

/// Runs `ip` commands inside a namespace, in one process.
pub fn ip_batch(namespace: &Namespace, commands: &[String]) -> Result<()> {
    let input = commands.join("\n") + "\n";
    succeed(
        namespace.command("ip").args(["-batch", "-"]),
        input.as_bytes(),
    )
    .map(drop)
    .with_context(|| format!("namespace {}: ip commands:\n{input}", namespace.name()))
}

/// Loads an nftables script inside a namespace, all of it or nothing.
pub fn nft(namespace: &Namespace, script: &str) -> Result<()> {
    succeed(
        namespace.command("nft").args(["-f", "-"]),
        script.as_bytes(),
    )
    .map(drop)
    .with_context(|| format!("namespace {}: nftables script:\n{script}", namespace.name()))
}

/// Loads a script of the family's iptables inside a namespace; chains that it does not name stay.
pub fn iptables(namespace: &Namespace, family: Family, script: &str) -> Result<()> {
    let program = match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    };
    succeed(
        namespace.command(program).args(["--noflush", "--wait"]),
        script.as_bytes(),
    )
    .map(drop)
    .with_context(|| format!("namespace {}: {program} script", namespace.name()))
}

fn succeed(command: &mut Command, input: &[u8]) -> Result<String> {
    let output = output(command, input)?;
    if !output.status.success() {
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        bail!("{command:?}: {}: {}{}", output.status, out, err.trim_end());
    }
    String::from_utf8(output.stdout).context("output is not UTF-8")
}
