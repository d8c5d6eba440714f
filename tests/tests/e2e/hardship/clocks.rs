//! Clocks that are set while pods come and go: nothing waits for a time of day.

use std::fs::{File, FileTimes};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use beeline_tests::cli;
use beeline_tests::pod::Pod;
use beeline_tests::wait::{seconds, wait_for};

use super::*;
use crate::fixture::fast_node;
use crate::refusals::sandbox;

/// Twenty years.
const LONG: Duration = Duration::from_secs(20 * 365 * 86_400);

/// Dates what is in a directory, and itself, as a clock would that was set.
fn date(path: &Path, time: SystemTime) {
    let file = File::open(path).expect("open");
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        date(&entry.path(), time);
    }
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
        .expect("date");
}

#[test]
fn pods_join_the_fast_path_and_go_whatever_time_their_files_have() {
    let (_topology, node) = fast_node();
    let before_all = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    for (name, time) in [("past", before_all), ("future", SystemTime::now() + LONG)] {
        let first = node.add_pod("first");
        let pod = node.add_new_pod(name);
        date(&node.state_dir(), time);
        date(&node.data_dir(), time);
        beeline_tests::datapath::settle(&node, pod.name(), "eth0").expect(name);
        assert_eq!(cli::path(&node, &pod).expect("status").0, "fast", "{name}");
        // The index of addresses is as old, and right or made anew.
        let second = node.add_pod("second");
        pod.ping(second.ip(), 1).assert_received();
        let all = [first, pod, second];
        for pod in &all {
            pod.check().expect("executed").expect_success();
        }
        date(&node.data_dir(), time);
        date(&node.state_dir(), time);
        shaping_is_seen(&node, &all[1]);
        for pod in all {
            pod.delete().expect("DEL");
        }
        assert_eq!(node.reserved(), [] as [std::net::IpAddr; 0], "{name}");
    }
}

/// Whether there is still somebody who watches what plugins that come after beeline put on a pod's host veth.
fn shaping_is_seen(node: &Node, pod: &Pod) {
    // Twice as long as a watch takes to see that it is not needed.
    thread::sleep(Duration::from_secs(1));
    let veth = pod.result()["interfaces"][1]["name"]
        .as_str()
        .expect("a name");
    let shape = format!("tc qdisc add dev {veth} root tbf rate 1gbit burst 32kb latency 50ms");
    cli::shell(node, &shape).expect("tc");
    let slow = || {
        let (path, _) = cli::path(node, pod)?;
        anyhow::ensure!(path == "slow", "{path}");
        Ok(())
    };
    wait_for("a shaped pod is slow", seconds(20), slow).expect("status");
}

#[test]
fn a_node_that_has_been_up_for_years_is_like_any_other() {
    let (_topology, node) = fast_node();
    let (namespace, attachment) = sandbox(&node);
    let offset = LONG.as_secs().to_string();
    let hard = Hardship::by(
        &node,
        &[
            "unshare",
            "--time",
            "--monotonic",
            &offset,
            "--boottime",
            &offset,
            "--",
        ],
    );
    let config = node.config().stdin();
    let added = hard.call("ADD", &attachment, &config);
    assert_eq!(added.stderr, "");
    added.expect_success();
    let status = cli::status(&node).expect("status");
    assert_eq!(status["pods"][0]["path"], "fast", "{status}");
    hard.call("DEL", &attachment, &config).expect_success();
    assert_only_loopback(&namespace);
}
