//! `vm`: tests on Debian's kernels, each in a machine that QEMU runs.
//!
//! The guest's root is the host's, read-only, with what it changes in memory: all programs are there, and no image is
//! built. A first stage of a few lines mounts it (`init.sh`); virtme-ng does as much, in Python and with an agent inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::libtest::{self, Executable};
use crate::process::{self, say};
use crate::{build, build_ebpf, interrupt, packages, workspace};
use guest::Suite;
use kernel::{KERNELS, Kernel};
use qemu::Machine;
use report::Report;

mod apt;
mod guest;
mod initramfs;
mod kernel;
mod modules;
mod qemu;
mod report;
mod selection;

/// How often to boot a kernel that panics before the tests begin: emulated, a CPU may run what another one is patching.
const BOOTS: usize = 3;

/// Which kernels, and which tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// 5.10 (bullseye), 6.1 (bookworm), 6.12 (trixie) or 7 (sid); all by default
    kernels: Vec<Kernel>,
    /// Run all end-to-end tests of the plugin, not only those that depend on the kernel
    #[arg(long)]
    all: bool,
    /// Run the plugin without optimisation, from target/debug
    #[arg(long)]
    debug: bool,
    /// Ask Debian whether there is a newer build of the kernel
    #[arg(long)]
    refresh: bool,
    /// End a machine after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    limit: u64,
    /// Run the end-to-end tests whose names contain one of these, and no other tests
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs the tests on each kernel, even if an earlier one failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    interrupt::survive()?;
    packages::require(&[
        packages::VM,
        packages::DEMO,
        packages::REFERENCE,
        packages::BENCH,
        packages::TEST,
        packages::BUILD_TESTS,
        packages::BUILD_AGENT,
    ])?;
    let kernels = match &*args.kernels {
        [] => &KERNELS[..],
        some => some,
    };
    build_ebpf::run()?;
    build::host(!args.debug)?;
    if args.all || !args.filters.is_empty() {
        build::agent(!args.debug)?;
    }
    let suites = suites(args)?;
    let mut report = Report::default();
    for kernel in kernels {
        if interrupt::seen() {
            bail!("interrupted");
        }
        report.add(kernel, one(args, kernel, &suites));
    }
    println!("{report}");
    ensure!(!report.has_failures(), "some tests failed");
    Ok(())
}

/// What came back of a machine.
pub(crate) struct Outcome {
    /// As `uname -r` says.
    release: String,
    suites: Vec<guest::Returned>,
    /// What tests tell of how the plugin works there, a line of `<what>\t<how>` each.
    facts: String,
}

fn one(args: &Args, kernel: &Kernel, suites: &[Suite]) -> Result<Outcome> {
    let folder = workspace::target().join("vm").join(kernel.version);
    let root = unpacked(&folder, kernel, args.refresh)?;
    let share = folder.join("share");
    // What an earlier run left.
    let _ = fs::remove_dir_all(&share);
    fs::create_dir_all(share.join(guest::PROGRAMS))?;
    let built = |name: &str| match args.debug {
        true => workspace::target().join("debug").join(name),
        false => workspace::release_bin(name),
    };
    let plugins = ["beeline", "beeline-agent"].map(built);
    let tests = suites.iter().map(|suite| suite.executable.path.clone());
    for program in plugins
        .into_iter()
        .chain(tests)
        .filter(|path| path.exists())
    {
        strip(&program, &share.join(guest::PROGRAMS))?;
    }
    let release = only(&root.join("lib/modules"), "")?;
    let initramfs = folder.join("initramfs");
    let busybox = packages::find("busybox", &[]).context("busybox: not found")?;
    initramfs::write(&initramfs, &release, &busybox, &guest::init(&root, &share)?)?;
    let environment = [
        ("BEELINE_BIN", guest::program("beeline")),
        ("BEELINE_AGENT_BIN", guest::program("beeline-agent")),
        // Emulated, everything takes many times as long.
        ("BEELINE_PATIENCE", "6".into()),
        // As few as still come by every outcome.
        ("BEELINE_FUZZ_PACKETS", "20000".into()),
    ];
    fs::write(
        share.join(guest::SCRIPT),
        guest::script(suites, &environment)?,
    )?;
    // sid's packages have it beside its modules.
    let vmlinuz = only(&root.join("boot"), "vmlinuz-").unwrap_or(release.join("vmlinuz"));
    let machine = Machine {
        kernel: &vmlinuz,
        initramfs: &initramfs,
        share: &share,
        log: &folder.join("console.log"),
    };
    let read = |what: &str| fs::read_to_string(share.join(what)).unwrap_or_default();
    let booted = || !read("release").is_empty();
    for _ in 0..BOOTS {
        say(&format!(
            "{}: booting; its console is in {}",
            kernel.version,
            machine.log.display()
        ));
        let ended = machine.run(Duration::from_secs(args.limit * 60));
        if let Err(error) = &ended {
            say(&format!("{}: {error:#}", kernel.version));
        }
        if booted() || ended.is_err() || interrupt::seen() {
            break;
        }
        say(&format!("{}: did not boot", kernel.version));
    }
    ensure!(booted(), "did not boot: see {}", machine.log.display());
    Ok(Outcome {
        release: read("release").trim().to_owned(),
        suites: guest::results(&share, suites),
        facts: read("facts"),
    })
}

/// Gets and unpacks a kernel, unless it is there; returns where.
fn unpacked(folder: &Path, kernel: &Kernel, refresh: bool) -> Result<PathBuf> {
    let root = folder.join("root");
    if refresh || !root.exists() {
        apt::require(kernel, &root)?;
        let apt = apt::Apt::new(&folder.join("apt"), kernel)?;
        let parts = apt.parts(kernel)?;
        let _ = fs::remove_dir_all(&root);
        let new = folder.join("root.new");
        let _ = fs::remove_dir_all(&new);
        apt.unpack(&parts, &folder.join("packages"), &new)?;
        fs::rename(&new, &root)?;
    }
    // Newer packages have /usr only.
    let lib = root.join("lib");
    if !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib).context("lib: link")?;
    }
    let modules = only(&root.join("lib/modules"), "")?;
    if !modules.join("modules.dep").exists() {
        let release = modules.file_name().unwrap_or_default();
        let depmod =
            packages::find("depmod", &["/usr/sbin", "/sbin"]).context("depmod: not found")?;
        process::run(
            Command::new(depmod)
                .arg("--basedir")
                .arg(&root)
                .arg(release),
        )?;
    }
    Ok(root)
}

/// Copies a program without its debug information, which is nine tenths of it.
fn strip(program: &Path, into: &Path) -> Result<()> {
    let copy = into.join(program.file_name().unwrap_or_default());
    process::run(Command::new("strip").arg("-o").arg(copy).arg(program))
}

/// The only entry of a folder whose name begins so.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(prefix)
    });
    let found: Vec<_> = names.collect();
    match &*found {
        [one] => Ok(one.clone()),
        _ => bail!(
            "{}/{prefix}*: {} of them, not one",
            folder.display(),
            found.len()
        ),
    }
}

fn suites(args: &Args) -> Result<Vec<Suite>> {
    let tests = libtest::build(&[
        "--package",
        "beeline-tests",
        "--test",
        "bpf",
        "--test",
        "e2e",
    ])?;
    let plugin = libtest::build(&["--package", "beeline", "--lib"])?;
    let suite =
        |name, executables: &[Executable], target: &str, arguments: Vec<String>| -> Result<Suite> {
            let executable = executables.iter().find(|one| one.target == target);
            let executable = executable.with_context(|| format!("{target}: not built"))?;
            let executable = executable.clone();
            Ok(Suite {
                name,
                executable,
                arguments,
            })
        };
    if !args.filters.is_empty() {
        let arguments = selection::arguments(&args.filters);
        return Ok(vec![suite("e2e", &tests, "e2e", arguments)?]);
    }
    let e2e = if args.all {
        selection::all()
    } else {
        selection::of_kernels()
    };
    Ok(vec![
        suite("bpf", &tests, "bpf", Vec::new())?,
        suite("plugin", &plugin, "beeline", selection::plugin())?,
        suite("e2e", &tests, "e2e", e2e)?,
    ])
}
