//! The programs that the plugin runs: which, and what they inherit.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use beeline_tests::node::Node;
use serde_json::json;

use crate::fixture::{fast_node, one_node};
use crate::protocol::Call;
use crate::refusals::sandbox;
use crate::stub::Stub;

/// Answers an ADD.
const ANSWER: &str = r#"echo '{"ips":[{"address":"10.99.0.5/24","gateway":"10.99.0.1"}]}'"#;

fn delegating<'a>(call: Call<'a>, kind: &str) -> Call<'a> {
    call.change(|conf| conf["ipam"] = json!({"type": kind}))
}

#[test]
fn a_type_that_is_a_path_is_not_run() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let stub = Stub::new(&node, ANSWER);
    let path = format!("{}/{}", stub.search_path(), stub.kind());
    let above = format!("../stub/{}", stub.kind());
    let odd = [
        &*path,
        &*above,
        "./stub-ipam",
        ".",
        "..",
        "stub-ipam\0",
        "sh -c",
    ];
    for verb in ["ADD", "DEL"] {
        for kind in odd {
            let call = Call::new(&node, verb, &attachment).set("CNI_PATH", stub.search_path());
            let message = delegating(call, kind).is_refused(&[999]);
            assert!(message.contains("ipam.type"), "{message}");
        }
    }
    assert_eq!(stub.commands(), [] as [&str; 0]);
}

#[test]
fn plugins_are_looked_for_in_absolute_directories_only() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let stub = Stub::new(&node, ANSWER);
    let here = env::current_dir().expect("directory");
    let up = "../".repeat(here.components().count() - 1);
    let relative = format!("{up}{}", stub.search_path().trim_start_matches('/'));
    assert!(
        Path::new(&relative).join(stub.kind()).exists(),
        "it is there"
    );
    let with_path = |path: &str| {
        let call = Call::new(&node, "ADD", &attachment).set("CNI_PATH", path);
        // Its gateway is another than the bridge's would be later.
        delegating(call, stub.kind()).change(|conf| conf["isGateway"] = json!(false))
    };
    for path in [&*relative, &format!(":{relative}::.:")] {
        let message = with_path(path).is_refused(&[999]);
        assert!(message.contains("no such plugin in CNI_PATH"), "{message}");
    }
    assert_eq!(stub.commands(), [] as [&str; 0]);
    let both = format!("{relative}:{}", stub.search_path());
    let call = with_path(&both);
    call.run().expect_success();
    call.set("CNI_COMMAND", "DEL").run().expect_success();
}

#[test]
fn ipam_inherits_the_whole_environment_and_no_descriptor() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let stub = Stub::new(
        &node,
        &format!(
            "(ls -l /proc/$$/fd > {}/stub/fds)\n{ANSWER}",
            node.directory().display()
        ),
    );
    let call = Call::new(&node, "ADD", &attachment).set("CNI_PATH", stub.search_path());
    let call = delegating(call, stub.kind())
        .set("CNI_ARGS", "IgnoreUnknown=1;A=b")
        .set("ANYTHING", "else");
    call.run().expect_success();
    let environment = stub.environment();
    for line in ["CNI_ARGS=IgnoreUnknown=1;A=b", "ANYTHING=else"] {
        assert!(environment.iter().any(|held| held == line), "{line}");
    }
    let descriptors = fs::read_to_string(node.directory().join("stub/fds")).expect("descriptors");
    // The shell has its script open (and, were it not for the brackets, what it redirects), and whatever started these tests may have left them something.
    let script = format!("stub/{}", stub.kind());
    let ours = |number: u32| fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
    let inherited: Vec<_> = descriptors
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .filter(|(left, right)| {
            let number = left.rsplit(' ').next().and_then(|text| text.parse().ok());
            let number: u32 = number.expect("the number of a descriptor");
            number > 2 && !right.ends_with(&script) && ours(number) != Path::new(right)
        })
        .collect();
    assert!(inherited.is_empty(), "{inherited:?}");
    call.set("CNI_COMMAND", "DEL").run().expect_success();
}

/// A program that keeps its environment, and then is nft; returns the file and the directory of the program.
fn spying_nft(node: &Node) -> (PathBuf, PathBuf) {
    let directory = node.directory().join("spy");
    fs::create_dir(&directory).expect("create");
    let kept = node.directory().join("nft-environment");
    let script = format!(
        "#!/bin/sh\n/usr/bin/env >> {}\nexec /usr/sbin/nft \"$@\"\n",
        kept.display()
    );
    let program = directory.join("nft");
    fs::write(&program, script).expect("write");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("chmod");
    (kept, directory)
}

#[test]
fn other_programs_get_none_of_the_runtimes_environment() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let (kept, directory) = spying_nft(&node);
    let call = Call::new(&node, "ADD", &attachment)
        .set("PATH", format!("relative:{}:/bin", directory.display()))
        .set("CNI_ARGS", "IgnoreUnknown=1;TOKEN=secret")
        .set("LD_PRELOAD", "")
        .set("SECRET", "secret");
    call.run().expect_success();
    let environment = fs::read_to_string(&kept).expect("nft was run");
    let known = |line: &&str| {
        let (name, _) = line.split_once('=').unwrap_or((line, ""));
        // The last three are the shell's.
        !["PATH", "LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name)
    };
    let unknown: Vec<_> = environment.lines().filter(known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(environment.contains("LC_ALL=C"), "{environment}");
    call.set("CNI_COMMAND", "DEL").run().expect_success();
}

#[test]
fn the_watch_that_an_add_leaves_inherits_nothing() {
    let (_topology, node) = fast_node();
    let _pod = node.add_pod("pod");
    let store = node.state_dir().join("pods").display().to_string();
    let watches = |process: &Path| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(" watch ") && line.contains(&store)
    };
    let find = || {
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let mut processes = processes.map(|entry| entry.path());
        processes.find(|path| watches(path))
    };
    // It may not be the program yet that it is going to be.
    let mut tries = (0..100).map(|_| {
        thread::sleep(Duration::from_millis(20));
        find()
    });
    let watch = tries.find_map(|found| found);
    let watch = watch.expect("an ADD leaves a watch");
    let environment = fs::read(watch.join("environ")).expect("environment");
    assert!(
        environment.is_empty(),
        "{}",
        String::from_utf8_lossy(&environment)
    );
    assert_eq!(
        fs::read_link(watch.join("cwd")).expect("cwd"),
        Path::new("/")
    );
    for descriptor in 0..3 {
        let target = fs::read_link(watch.join(format!("fd/{descriptor}"))).expect("descriptor");
        assert_eq!(target, Path::new("/dev/null"));
    }
}
