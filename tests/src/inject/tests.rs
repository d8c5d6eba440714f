//! With small programs in place of the plugin.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;

fn run(command: &mut Command, injection: &Injection) -> Injected<Output> {
    output(command.env("LC_ALL", "C"), b"", injection).unwrap()
}

fn mkdirs(directory: &Path) -> Command {
    let mut command = Command::new("mkdir");
    command.args(["one", "two", "three"]).current_dir(directory);
    command
}

fn made(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_step_that_fails_is_not_done_and_the_others_are() {
    let directory = tempfile::tempdir().unwrap();
    let injection = Injection::at(Fault::Fail, 2).only("mkdir");
    let injected = run(&mut mkdirs(directory.path()), &injection);
    assert_eq!(injected.step.as_deref(), Some("step 2: mkdir two"));
    assert_eq!(injected.outcome.status.code(), Some(1));
    let error = String::from_utf8(injected.outcome.stderr).unwrap();
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(made(directory.path()), ["one", "three"]);
}

#[test]
fn a_program_that_is_killed_at_a_step_does_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let injection = Injection::at(Fault::Kill, 3);
    let injected = run(&mut mkdirs(directory.path()), &injection);
    assert_eq!(injected.step.as_deref(), Some("step 3: mkdir three"));
    assert_eq!(injected.outcome.status.signal(), Some(9));
    assert_eq!(made(directory.path()), ["one", "two"]);
}

#[test]
fn beyond_the_last_step_nothing_goes_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let injection = Injection::at(Fault::Kill, 1000);
    let injected = run(&mut mkdirs(directory.path()), &injection);
    assert_eq!((injected.step, injected.steps), (None, 3));
    assert!(injected.outcome.status.success());
    assert_eq!(made(directory.path()).len(), 3);
}

#[test]
fn reading_a_file_changes_nothing_and_making_one_does() {
    let directory = tempfile::tempdir().unwrap();
    let read = run(
        Command::new("cat").arg("/proc/version"),
        &Injection::at(Fault::Kill, 1).only("open"),
    );
    assert_eq!(read.step, None);
    let path = directory.path().join("file");
    let made = run(
        Command::new("touch").arg(&path),
        &Injection::at(Fault::Fail, 1).only("open"),
    );
    let step = made.step.expect("a step");
    assert!(step.contains(path.to_str().unwrap()), "{step}");
    assert!(!path.exists());
}

#[test]
fn a_program_that_never_ends_is_killed_and_that_is_an_error() {
    let mut command = Command::new("sleep");
    let injection = Injection::at(Fault::Kill, 1000);
    let start = Instant::now();
    let late = trace::output(
        command.arg("600"),
        b"",
        &injection,
        Duration::from_millis(100),
    );
    let error = late.unwrap_err().to_string();
    assert!(error.contains("still at work"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(300));
}

#[test]
fn children_go_on_when_the_program_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let script = "(read _; touch late) <fifo & echo > fifo; touch here; wait";
    let fifo = Command::new("mkfifo")
        .arg("fifo")
        .current_dir(directory.path())
        .status()
        .unwrap();
    assert!(fifo.success());
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(directory.path());
    // The shell makes the background's process otherwise.
    let injection = Injection::at(Fault::Kill, 1).only("vfork");
    let injected = run(&mut command, &injection);
    assert!(injected.step.is_some(), "{} steps", injected.steps);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !directory.path().join("late").exists() {
        assert!(Instant::now() < deadline, "the child has ended too");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!directory.path().join("here").exists());
}

#[test]
fn a_netlink_request_can_be_refused_by_the_kernel_itself() {
    let mut command = Command::new("ip");
    command.args(["route", "get", "127.0.0.1"]);
    let injection = Injection::at(Fault::Refuse, 1).only("RTM_GETROUTE");
    let injected = run(&mut command, &injection);
    let step = injected.step.expect("a step");
    assert!(step.contains("RTM_GETROUTE"), "{step}");
    let error = String::from_utf8(injected.outcome.stderr).unwrap();
    assert!(error.contains("Operation not supported"), "{error}");
    assert!(!injected.outcome.status.success());
}
