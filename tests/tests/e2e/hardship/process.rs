//! What a process is given: descriptors, threads, standard streams, a mask for modes, programs, sysctls, locks.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use beeline_tests::cli;
use beeline_tests::skip::skip;
use beeline_tests::sweep;
use beeline_tests::wait::{seconds, wait_for};

use super::*;
use crate::fixture::{fast_node, one_node};
use crate::refusals::sandbox;

/// Descriptors that an ADD on a node that is set up makes do with.
const ENOUGH: u32 = 20;

#[test]
fn too_few_descriptors_at_any_step_leave_a_node_as_it_was() {
    let (_topology, node) = fast_node();
    let config = node.config().mode("ebpf");
    config.install().expect("install");
    let (first, config) = (node.add_pod("first"), config.stdin());
    let (mut failed, mut added) = (0, 0);
    for limit in 5..=ENOUGH {
        let sandbox = sandbox(&node);
        let before = Snapshot::of(&node);
        let hard = Hardship::by(&node, &["prlimit", &format!("--nofile={limit}")]);
        let outcome = hard.call("ADD", &sandbox.1, &config);
        match outcome.is_success() {
            true => added += 1,
            false => {
                failed += 1;
                let message = outcome.expect_error(&[999]);
                assert!(
                    message.contains("Too many open files"),
                    "{limit}: {message}"
                );
                assert_only_loopback(&sandbox.0);
                let diff = before.diff(&Snapshot::of(&node));
                assert!(diff.is_empty(), "{limit}: the node changed:\n{diff}");
            }
        }
        let _ = hard.call("DEL", &sandbox.1, &config);
        let deleted = node
            .runtime()
            .call("DEL", &sandbox.1, config.to_string().as_bytes());
        deleted.expect("executed").expect_success();
        let diff = before.diff(&Snapshot::of(&node));
        assert!(diff.is_empty(), "{limit}: left after DEL:\n{diff}");
    }
    assert!(
        failed > 2 && added > 0,
        "{failed} failed, {added} were added"
    );
    first.ping(node.add_pod("next").ip(), 1).assert_received();
}

#[test]
fn too_few_descriptors_for_the_maps_are_the_plain_bridge_until_a_load() {
    let (_topology, node) = fast_node();
    let (_namespace, attachment) = sandbox(&node);
    let hard = Hardship::by(&node, &["prlimit", "--nofile=18"]);
    let added = hard.call("ADD", &attachment, &node.config().stdin());
    assert!(added.stderr.contains("Too many open files"), "{added}");
    added.expect_success();
    cli::load(&node, &[]).expect("load");
    let status = cli::status(&node).expect("status");
    assert_eq!(status["pods"][0]["path"], "fast", "{status}");
}

/// A control group that lets nobody in it start a thread or a child.
struct Alone(std::path::PathBuf);

impl Alone {
    fn new(node: &Node) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let group = roots.map(|root| Path::new(root).join(node.name()));
        let made = group.into_iter().find(|group| {
            let limit = group.join("pids.max");
            fs::create_dir(group).is_ok() && (limit.exists() || fs::remove_dir(group).is_err())
        })?;
        fs::write(made.join("pids.max"), "1").expect("pids.max");
        Some(Self(made))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let _ = beeline_tests::cgroup::remove(&name);
    }
}

#[test]
fn a_plugin_that_can_start_no_thread_says_so() {
    let (_topology, node) = fast_node();
    let Some(group) = Alone::new(&node) else {
        return skip("no control group limits processes here");
    };
    let _first = node.add_pod("first");
    let enter = format!("echo $$ > {}", group.0.join("cgroup.procs").display());
    let hard = Hardship::after(&node, &enter);
    let sandbox = sandbox(&node);
    let message = hard.refuses(&sandbox, &node.config().stdin(), &[999]);
    assert!(message.contains("start thread"), "{message}");
    let _after = node.add_pod("after");
}

/// Calls the plugin with nobody at the other end of its standard output.
fn without_a_reader(node: &Node, verb: &str, attachment: &Attachment) -> bool {
    let mut command: Command = node.netns().command(node.plugin().path());
    let mut child = command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &attachment.container_id)
        .env("CNI_IFNAME", &attachment.ifname)
        .env("CNI_NETNS", &attachment.netns)
        .env("CNI_PATH", node.plugin().search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("standard input");
    let text = node.config().stdin().to_string();
    std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("configuration");
    drop(stdin);
    child.wait().expect("wait").success()
}

#[test]
fn an_add_whose_result_nobody_reads_is_taken_back() {
    let (_topology, node) = fast_node();
    let first = node.add_pod("first");
    let (namespace, attachment) = sandbox(&node);
    let before = Snapshot::of(&node);
    assert!(!without_a_reader(&node, "ADD", &attachment));
    before.assert_unchanged(&node);
    assert_only_loopback(&namespace);
    // An ADD that fails takes nothing of the pod's back that is there already.
    assert!(!without_a_reader(&node, "ADD", first.attachment()));
    first.check().expect("executed").expect_success();
    assert!(without_a_reader(&node, "DEL", &attachment));
}

#[test]
fn a_plugin_without_standard_input_says_so_and_one_without_standard_error_works() {
    let (_topology, node) = one_node();
    let config = node.config().stdin();
    let hard = Hardship::after(&node, "exec <&-");
    hard.refuses(&sandbox(&node), &config, &[6]);
    let hard = Hardship::after(&node, "exec 2>&-");
    let (_namespace, attachment) = sandbox(&node);
    hard.call("ADD", &attachment, &config).expect_success();
    hard.call("DEL", &attachment, &config).expect_success();
}

/// The files and directories below a directory, and itself, with their modes.
fn modes(path: &Path) -> Vec<(String, u32)> {
    let own = fs::symlink_metadata(path).expect("stat");
    let mut modes = vec![(
        path.display().to_string(),
        own.permissions().mode() & 0o7777,
    )];
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        modes.extend(modes_of(&entry.path()));
    }
    modes
}

fn modes_of(path: &Path) -> Vec<(String, u32)> {
    match path.is_dir() {
        true => modes(path),
        false => {
            let mode = fs::symlink_metadata(path)
                .expect("stat")
                .permissions()
                .mode();
            vec![(path.display().to_string(), mode & 0o7777)]
        }
    }
}

#[test]
fn files_have_the_same_modes_whatever_mask_the_runtime_has() {
    let (_topology, node) = fast_node();
    for mask in ["0000", "0777", "0022"] {
        let hard = Hardship::after(&node, &format!("umask {mask}"));
        let (_namespace, attachment) = sandbox(&node);
        let config = node.config().stdin();
        hard.call("ADD", &attachment, &config).expect_success();
        for (path, mode) in modes(&node.state_dir().join("pods")) {
            let expected = if Path::new(&path).is_dir() {
                0o700
            } else {
                0o600
            };
            assert_eq!(mode, expected, "{mask}: {path} is {mode:o}");
        }
        let addresses = node.data_dir().join("pods");
        for (path, mode) in modes(&addresses) {
            let expected = match path.rsplit('/').next() {
                Some("pods") => 0o755,
                Some("lock") => 0o750,
                _ => 0o600,
            };
            assert_eq!(mode, expected, "{mask}: {path} is {mode:o}");
        }
        for (path, mode) in modes(&node.bpffs_dir().join("beeline")) {
            assert_eq!(mode & 0o077, 0, "{mask}: {path} is {mode:o}");
        }
        hard.call("DEL", &attachment, &config).expect_success();
        cli::unload(&node).expect("unload");
        sweep::walk(&addresses)
            .iter()
            .for_each(|file| fs::remove_file(file).expect("remove"));
        fs::remove_dir(&addresses).expect("remove");
        fs::remove_dir_all(node.state_dir().join("pods")).expect("remove");
    }
}

#[test]
fn without_nft_a_node_cannot_be_set_up_for_masquerade_and_one_that_is_goes_on() {
    let (_topology, node) = fast_node();
    let (config, sandbox) = (node.config().stdin(), sandbox(&node));
    let hidden = Hardship::among_mounts(
        &node,
        "mount --bind /dev/null \"$(readlink -f /usr/sbin/nft)\"",
    );
    let message = hidden.refuses(&sandbox, &config, &[999]);
    assert!(
        message.contains("nft: not found in PATH; install nftables"),
        "{message}"
    );
    // Without a PATH it is found where distributions have it.
    let lost = Hardship::after(
        &node,
        "PATH= LC_ALL=tr_TR.UTF-8 LANG=tr_TR.UTF-8; export PATH LC_ALL LANG",
    );
    for hard in [lost, hidden] {
        hard.call("ADD", &sandbox.1, &config).expect_success();
        hard.call("DEL", &sandbox.1, &config).expect_success();
    }
}

#[test]
fn read_only_sysctls_refuse_a_pod_by_the_sysctl() {
    let (_topology, node) = fast_node();
    let (config, sandbox) = (node.config().stdin(), sandbox(&node));
    let read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
    let hard = Hardship::among_mounts(&node, read_only);
    for _ in 0..2 {
        let message = hard.refuses(&sandbox, &config, &[999]);
        assert!(message.contains("sysctl net/ipv6/conf/"), "{message}");
        assert!(message.contains("Read-only file system"), "{message}");
        let _now_it_is_set_up = node.add_pod("pod");
    }
}

/// Whether somebody waits for the lock of a file.
fn is_waited_for(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = format!(":{}", fs::metadata(path).expect("stat").ino());
    let locks = fs::read_to_string("/proc/locks").expect("locks");
    let waits =
        |line: &str| line.contains("->") && line.split(' ').any(|word| word.ends_with(&inode));
    locks.lines().any(waits)
}

fn wait_for_a_waiter(path: &Path) {
    let waited_for = || {
        anyhow::ensure!(is_waited_for(path), "nobody");
        Ok(())
    };
    let what = format!("{}: somebody waits", path.display());
    wait_for(&what, seconds(30), waited_for).expect("wait");
}

#[test]
fn an_add_and_a_del_wait_for_a_lock_that_another_program_holds() {
    let (_topology, node) = fast_node();
    let mut pod = node.add_pod("pod");
    for lock in ["networks/pods/lock", "run/pods/lock"] {
        let path = node.directory().join(lock);
        let (_namespace, attachment) = sandbox(&node);
        let held = File::open(&path).expect("open");
        held.lock().expect("lock");
        thread::scope(|scope| {
            let add = scope.spawn(|| node.runtime().add(&attachment).expect("executed"));
            wait_for_a_waiter(&path);
            assert!(!add.is_finished());
            drop(held);
            add.join().expect("ADD").expect_success();
        });
        let held = File::open(&path).expect("open");
        held.lock().expect("lock");
        thread::scope(|scope| {
            let del = scope.spawn(|| node.runtime().del(&attachment, None).expect("executed"));
            wait_for_a_waiter(&path);
            drop(held);
            del.join().expect("DEL").expect_success();
        });
    }
    pod.detach().expect("executed").expect_success();
}
