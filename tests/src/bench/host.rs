//! What the bench runs on.

use std::fs;
use std::process::Command;

use nix::sched::sched_getaffinity;
use nix::sys::utsname::uname;
use nix::unistd::Pid;

use super::contender::reference;
use super::types::Host;
use crate::exec;

/// Looks around; what cannot be found out is left empty.
pub(super) fn probe() -> Host {
    let names = uname().ok();
    let name = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        names
            .as_ref()
            .map(|names| part(names).to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let memory: u64 = field("/proc/meminfo", "MemTotal:", ' ')
        .parse()
        .unwrap_or_default();
    Host {
        kernel: name(|names| names.release()),
        machine: name(|names| names.machine()),
        distribution: value("/etc/os-release", "PRETTY_NAME=")
            .trim_matches('"')
            .to_owned(),
        cpu: value("/proc/cpuinfo", "model name")
            .trim_start_matches([' ', '\t', ':'])
            .to_owned(),
        cpus: cpus(),
        memory_mib: memory / 1024,
        beeline: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit(),
        iperf3: first_line(Command::new("iperf3").arg("--version")),
        iproute2: first_line(Command::new("ip").arg("-V")),
        iptables: first_line(Command::new("iptables").arg("--version")),
        reference: reference_version(),
        bpf_jit: read("/proc/sys/net/core/bpf_jit_enable").trim() != "0",
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The rest of the first line of a file that starts so.
fn value(path: &str, start: &str) -> String {
    let text = read(path);
    text.lines()
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_default()
        .to_owned()
}

fn field(path: &str, start: &str, end: char) -> String {
    value(path, start)
        .trim()
        .split(end)
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn first_line(command: &mut Command) -> String {
    let text = exec::stdout(command).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn cpus() -> u32 {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else {
        return 0;
    };
    let cpus = 0..nix::sched::CpuSet::count();
    cpus.filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .count() as u32
}

fn git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments);
    exec::stdout(&mut git)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn commit() -> String {
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return String::new();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + "-dirty",
    }
}

/// The reference plugins say who they are when started without a command.
fn reference_version() -> String {
    let Ok(plugin) = reference() else {
        return String::new();
    };
    let output = exec::output(Command::new(plugin.path()).env_clear(), b"");
    let text = output
        .map(|output| [output.stderr, output.stdout].concat())
        .unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
