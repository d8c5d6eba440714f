//! `test`: the tiers, from plain unit tests to nodes of a real Kubernetes.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::cases::{self, Extent};
use crate::libtest::{Suite, Tests};
use crate::process::{self, say};
use crate::steps::Steps;
use crate::{build, build_ebpf, fuzz, image, interrupt, kubernetes, packages, workspace};

/// The suites of a full run: one a tier, and two of `netns`.
const SUITES: usize = 4;

/// The module of the agent's tests with a real etcd.
const ETCD: &str = "backend::etcd::netns_tests";

/// Which tiers to run; none selected means all.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Run the unit tests, which need no root
    #[arg(long)]
    unit: bool,
    /// Run the BPF programs in the kernel, on made-up packets
    #[arg(long)]
    bpf: bool,
    /// Run the plugin end to end, on nodes made of network namespaces
    #[arg(long)]
    netns: bool,
    /// Run the plugin under a real Kubernetes, on nodes made of namespaces; builds Kubernetes the first time
    #[arg(long)]
    kubernetes: bool,
    /// Where Kubernetes' programs are or shall be, instead of BEELINE_KUBE_DIR or ~/.cache/beeline-kube
    #[arg(long, value_name = "DIR")]
    kube_dir: Option<PathBuf>,
    /// Fuzz each target of fuzz/ with so many inputs, and the packet logic with so many packets, on the host and in the
    /// kernel; other runs take a few
    #[arg(long, value_name = "INPUTS")]
    fuzz: Option<u64>,
    /// Run the tests that kill, fill and churn a node at full length, and show what they count; takes most of an hour
    #[arg(long)]
    soak: bool,
}

impl Args {
    /// Returns the selection, all if there is none.
    fn selected(&self) -> Self {
        let all = self.is_all();
        Self {
            unit: self.unit || all,
            bpf: self.bpf || all,
            netns: self.netns || all,
            kubernetes: self.kubernetes || all,
            kube_dir: self.kube_dir.clone(),
            fuzz: self.fuzz,
            soak: self.soak,
        }
    }

    fn is_all(&self) -> bool {
        let some = self.unit || self.bpf || self.netns || self.kubernetes;
        !(some || self.soak || self.fuzz.is_some())
    }
}

/// Runs every selected tier, even if an earlier one failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let selected = args.selected();
    interrupt::survive()?;
    // Without the object not even the plugin's unit tests compile.
    build_ebpf::run()?;

    let mut steps = Steps::default();
    let mut tests = Tests::default();
    if selected.unit {
        steps.step("unit", || unit(&mut tests));
    }
    if selected.bpf {
        steps.step("bpf", || bpf(&mut tests));
    }
    if selected.netns {
        steps.step("netns", || netns(&mut tests));
        steps.step("etcd", || etcd(&mut tests));
    }
    // What cases name is in these; a tier that was cut short has no suite.
    let all =
        selected.unit && selected.bpf && selected.netns && tests.suites == SUITES && is_root();
    if selected.kubernetes && !interrupt::seen() {
        match kubernetes::prepare(selected.kube_dir.as_deref()) {
            Ok(directory) => steps.step("kubernetes", || on_kubernetes(&mut tests, &directory)),
            Err(error) if args.is_all() => steps.skip("kubernetes", format!("{error:#}")),
            Err(error) => steps.step("kubernetes", || Err(error)),
        }
    }
    if tests.suites > 0 {
        let extent = if all { Extent::All } else { Extent::Some };
        steps.step("cases", || cases::report(&tests.outcomes, extent));
    }
    if args.is_all() {
        steps.step("fuzz", || fuzz::run(fuzz::Extent::Short));
    }
    if let Some(packets) = selected.fuzz {
        steps.step("fuzz", || fuzz::run(fuzz::Extent::Runs(packets)));
        steps.step("fuzz on the host", || {
            fuzz_packets(packets, &["beeline-common", "--lib"])
        });
        steps.step("fuzz in the kernel", || {
            require_root()?;
            packages::require(&[packages::BUILD_TESTS])?;
            fuzz_packets(packets, &["beeline-tests", "--test", "bpf"])
        });
    }
    if selected.soak {
        steps.step("soak", soak);
    }
    steps.finish()
}

/// Runs the tests that take long when asked to, one after the other, and shows what they print.
fn soak() -> Result<()> {
    let environment = netns_environment()?;
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "beeline-tests", "--test", "e2e"]);
    cargo.args(["soak_", "--", "--nocapture", "--test-threads=1"]);
    cargo.env("BEELINE_SOAK", "1").envs(environment);
    let tested = process::run(&mut cargo);
    let cleaned = clean();
    tested.and(cleaned)
}

/// Runs the fuzz tests of a target, optimised, and shows what they print: packets, and what became of them.
fn fuzz_packets(packets: u64, target: &[&str]) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--release", "--package"]).args(target);
    cargo.args(["fuzz_", "--", "--nocapture"]);
    cargo.env("BEELINE_FUZZ_PACKETS", packets.to_string());
    process::run(&mut cargo)
}

fn unit(tests: &mut Tests) -> Result<()> {
    packages::require(&[packages::BUILD_AGENT])?;
    let libraries = ["--package", "beeline-common", "--package", "beeline"];
    let programs = ["--package", "beeline-agent", "--package", "xtask"];
    let select = [libraries, programs].concat();
    let mut suite = Suite {
        select: &select,
        ..Suite::default()
    };
    if is_root() {
        packages::require(&[packages::REFERENCE])?;
        // These are a step of their own.
        suite.arguments = &["--skip", ETCD];
    } else {
        say("unit: not root, hence without the tests in modules named netns_tests");
        suite.arguments = &["--skip", "netns_tests"];
    }
    let tested = suite.run(tests);
    let mut docs = workspace::cargo();
    let documented = process::run(docs.args(["test", "--doc"]).args(libraries));
    tested.and(documented)
}

fn bpf(tests: &mut Tests) -> Result<()> {
    require_root()?;
    packages::require(&[packages::BUILD_TESTS])?;
    let suite = Suite {
        select: &["--package", "beeline-tests", "--test", "bpf"],
        ..Suite::default()
    };
    suite.run(tests)
}

/// Builds and installs what the end-to-end tests run; returns where it is.
fn netns_environment() -> Result<Vec<(&'static str, PathBuf)>> {
    require_root()?;
    packages::require(&[
        packages::DEMO,
        packages::REFERENCE,
        packages::BENCH,
        packages::TEST,
        packages::RUNTIME,
        packages::ETCD,
        packages::BUILD_TESTS,
        packages::BUILD_AGENT,
    ])?;
    build::host(true)?;
    build::agent(true)?;
    let image = image::for_tests()?;
    Ok(vec![
        ("BEELINE_BIN", workspace::release_bin("beeline")),
        ("BEELINE_AGENT_BIN", workspace::release_bin("beeline-agent")),
        ("BEELINE_IMAGE", image),
    ])
}

fn netns(tests: &mut Tests) -> Result<()> {
    let environment = netns_environment()?;
    let suite = Suite {
        select: &[
            "--package",
            "beeline-tests",
            "--lib",
            "--test",
            "e2e",
            "--test",
            "bench",
            "--test",
            "cri",
        ],
        environment,
        ..Suite::default()
    };
    let tested = suite.run(tests);
    let cleaned = clean();
    tested.and(cleaned)
}

/// Runs the agent's backend with a real etcd, whose members are in network namespaces.
fn etcd(tests: &mut Tests) -> Result<()> {
    require_root()?;
    packages::require(&[packages::DEMO, packages::ETCD, packages::BUILD_TESTS])?;
    let suite = Suite {
        select: &["--package", "beeline-agent"],
        // They wait most of the time.
        arguments: &[ETCD, "--test-threads=4"],
        ..Suite::default()
    };
    let tested = suite.run(tests);
    let cleaned = clean();
    tested.and(cleaned)
}

fn on_kubernetes(tests: &mut Tests, directory: &Path) -> Result<()> {
    packages::require(&[packages::BUILD_TESTS, packages::BUILD_AGENT])?;
    build::host(true)?;
    build::agent(true)?;
    let image = image::for_tests()?;
    kubernetes::clean(directory)?;
    let suite = Suite {
        select: &["--package", "beeline-tests", "--test", "kubernetes"],
        environment: vec![
            ("BEELINE_BIN", workspace::release_bin("beeline")),
            ("BEELINE_IMAGE", image),
            (kubernetes::VARIABLE, directory.to_owned()),
        ],
        ..Suite::default()
    };
    let tested = suite.run(tests);
    let cleaned = kubernetes::clean(directory);
    tested.and(cleaned)
}

fn is_root() -> bool {
    Uid::effective().is_root()
}

fn require_root() -> Result<()> {
    if !is_root() {
        bail!("needs root; run `sudo -E cargo xtask test` or select --unit");
    }
    Ok(())
}

/// Sweeps up namespaces that tests left behind, out of reach of another Ctrl-C.
fn clean() -> Result<()> {
    let demo = workspace::release_bin("beeline-demo");
    if !demo.exists() {
        say("no target/release/beeline-demo, so left-over namespaces stay");
        return Ok(());
    }
    process::run(Command::new(demo).arg("--cleanup").process_group(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(args: &Args) -> [bool; 4] {
        [args.unit, args.bpf, args.netns, args.kubernetes]
    }

    #[test]
    fn no_selection_means_all_tiers() {
        assert_eq!(tiers(&Args::default().selected()), [true; 4]);
        let unit = Args {
            unit: true,
            ..Args::default()
        };
        assert_eq!(tiers(&unit.selected()), [true, false, false, false]);
        let kubernetes = Args {
            kubernetes: true,
            ..Args::default()
        };
        assert_eq!(tiers(&kubernetes.selected()), [false, false, false, true]);
        let elsewhere = Args {
            kube_dir: Some("/k".into()),
            ..Args::default()
        };
        assert!(elsewhere.is_all(), "a directory selects no tier");
        let fuzz = Args {
            fuzz: Some(1000),
            ..Args::default()
        };
        assert_eq!(tiers(&fuzz.selected()), [false; 4]);
        assert_eq!(fuzz.selected().fuzz, Some(1000));
        let soak = Args {
            soak: true,
            ..Args::default()
        };
        assert_eq!(tiers(&soak.selected()), [false; 4]);
    }
}
