//! The choice among a machine's compilers.

use std::ffi::OsStr;

use super::*;

const OLDEST: Version = Version {
    major: 1,
    minor: 95,
};

fn rustc(name: &str, minor: u32, core: Core) -> Rustc {
    Rustc {
        path: name.into(),
        version: Version { major: 1, minor },
        llvm: 22,
        core,
    }
}

fn chosen(machine: Machine) -> Vec<(PathBuf, Origin)> {
    let choices = machine.choices(OLDEST).unwrap();
    let choices = choices.into_iter();
    choices
        .map(|choice| (choice.rustc.path, choice.origin))
        .collect()
}

#[test]
fn a_compiler_of_the_environment_is_the_only_choice() {
    let machine = Machine {
        environment: Some(rustc("mine", 95, Core::Source)),
        nightlies: vec![rustc("nightly", 97, Core::Source)],
        system: Some(rustc("system", 96, Core::Prebuilt)),
    };
    assert_eq!(chosen(machine), [("mine".into(), Origin::Environment)]);
}

#[test]
fn an_unusable_compiler_of_the_environment_is_an_error() {
    for (minor, core, message) in [
        (90, Core::Prebuilt, "is older than 1.95"),
        (96, Core::Absent, "rust-src"),
    ] {
        let environment = Some(rustc("mine", minor, core));
        let system = Some(rustc("system", 96, Core::Prebuilt));
        let machine = Machine {
            environment,
            system,
            ..Machine::default()
        };
        let error = machine.choices(OLDEST).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_nightly_without_rust_src_or_too_old_is_passed_over() {
    let machine = Machine {
        nightlies: vec![
            rustc("bare", 97, Core::Absent),
            rustc("old", 90, Core::Source),
            rustc("good", 96, Core::Source),
        ],
        system: Some(rustc("system", 96, Core::Prebuilt)),
        ..Machine::default()
    };
    assert_eq!(
        chosen(machine),
        [
            ("good".into(), Origin::Nightly),
            ("system".into(), Origin::System)
        ]
    );
}

#[test]
fn the_distributions_needs_its_prebuilt_core() {
    let machine = |minor, core| Machine {
        system: Some(rustc("system", minor, core)),
        ..Machine::default()
    };
    assert_eq!(
        chosen(machine(96, Core::Prebuilt)),
        [("system".into(), Origin::System)]
    );
    assert_eq!(chosen(machine(85, Core::Prebuilt)), []);
    assert_eq!(chosen(machine(96, Core::Source)), []);
    assert_eq!(chosen(Machine::default()), []);
}

#[test]
fn rustcs_own_account_is_read() {
    let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
    assert_eq!(
        parse_version(text),
        Some((
            Version {
                major: 1,
                minor: 96
            },
            22
        ))
    );
    assert_eq!(parse_version("release: 1.96.0\n"), None);
}

#[test]
fn core_is_looked_for_in_the_sysroot() {
    let sysroot = tempfile::tempdir().unwrap();
    assert_eq!(Core::within(sysroot.path()), Core::Absent);
    let library = sysroot.path().join("lib/rustlib/src/rust/library/core");
    fs::create_dir_all(&library).unwrap();
    fs::write(library.join("Cargo.toml"), "").unwrap();
    assert_eq!(Core::within(sysroot.path()), Core::Source);
    fs::create_dir_all(sysroot.path().join("lib/rustlib/bpfel-unknown-none/lib")).unwrap();
    assert_eq!(Core::within(sysroot.path()), Core::Prebuilt);
}

#[test]
fn the_plain_nightly_comes_before_dated_ones() {
    let toolchains = tempfile::tempdir().unwrap();
    for name in [
        "nightly-2026-01-02-x86_64",
        "stable-x86_64",
        "nightly-x86_64",
    ] {
        fs::create_dir(toolchains.path().join(name)).unwrap();
    }
    let found = nightlies(toolchains.path());
    let names: Vec<_> = found
        .iter()
        .map(|path| path.iter().rev().nth(2).unwrap())
        .collect();
    assert_eq!(
        names,
        [
            OsStr::new("nightly-x86_64"),
            OsStr::new("nightly-2026-01-02-x86_64")
        ]
    );
}
