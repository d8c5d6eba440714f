//! ADD is killed at any point, as a runtime does that has waited too long: a DEL then leaves nothing of it.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use beeline_tests::config::Config;
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::wait;
use serde_json::json;

use crate::fixture::{one_node, two_nodes};
use crate::refusals::sandbox;

/// Kills on a node that is set up, and on new nodes, which take longer to make.
const KILLS: u32 = 40;
const KILLS_OF_SET_UP: u32 = 8;

/// Starts an ADD and kills it after some time; says whether it was still at work.
fn killed(node: &Node, attachment: &Attachment, config: &Config<'_>, after: Duration) -> bool {
    let mut command = node.netns().command(node.plugin().path());
    let mut child = command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", &attachment.container_id)
        .env("CNI_IFNAME", &attachment.ifname)
        .env("CNI_NETNS", &attachment.netns)
        .env("CNI_PATH", node.plugin().search_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    let mut stdin = child.stdin.take().expect("standard input");
    let text = config.stdin().to_string();
    stdin.write_all(text.as_bytes()).expect("configuration");
    drop(stdin);
    thread::sleep(after);
    let at_work = child.try_wait().expect("wait").is_none();
    child.kill().expect("kill");
    child.wait().expect("wait");
    at_work
}

/// How long an ADD takes that nobody kills, when the machine has nothing else to do.
fn duration(node: &Arc<Node>) -> Duration {
    let times = (0..5).map(|_| {
        let pod = node.add_pod("measured");
        let time = pod.add_time();
        pod.delete().expect("DEL");
        time
    });
    times.min().expect("some")
}

fn assert_clean(node: &Node, before: &Snapshot, when: Duration) {
    // What the killed process had started, such as nft, may be at work still.
    let deadline = wait::deadline(Duration::from_secs(2));
    let left = || before.diff(&Snapshot::of(node));
    while !left().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let left = left();
    assert!(left.is_empty(), "killed after {when:?}, left:\n{left}");
}

#[test]
fn a_del_after_an_add_that_was_killed_leaves_nothing() {
    let (_topology, [node, other]) = two_nodes();
    let config = node.config().with(|plugin| {
        plugin["macspoofchk"] = json!(true);
        plugin["hairpinMode"] = json!(true);
    });
    config.install().expect("install");
    let (first, far) = (node.add_pod("first"), other.add_pod("far"));
    let whole = duration(&node);
    let (namespace, attachment) = sandbox(&node);
    let before = Snapshot::of(&node);
    let mut at_work = 0;
    for number in 0..KILLS {
        let after = whole * number / KILLS;
        at_work += u32::from(killed(&node, &attachment, &config, after));
        let deleted = node.runtime().del(&attachment, None).expect("executed");
        deleted.expect_success();
        assert_clean(&node, &before, after);
        let links = exec::stdout(namespace.command("ip").args(["-o", "link"])).expect("ip");
        assert_eq!(links.lines().count(), 1, "{after:?}: {links}");
    }
    assert!(at_work > KILLS / 2, "{at_work} were killed at work");
    let added = node.runtime().add(&attachment).expect("executed");
    added.expect_success();
    first.ping(far.ip(), 1).assert_received();
}

#[test]
fn a_node_whose_set_up_was_killed_is_set_up_by_the_next_add() {
    let whole = {
        let (_topology, node) = one_node();
        node.add_pod("measured").add_time()
    };
    for number in 0..KILLS_OF_SET_UP {
        let (_topology, [node, other]) = two_nodes();
        let (_namespace, attachment) = sandbox(&node);
        let after = whole * number / KILLS_OF_SET_UP;
        killed(&node, &attachment, &node.config(), after);
        let deleted = node.runtime().del(&attachment, None).expect("executed");
        deleted.expect_success();
        assert_eq!(node.reserved(), Vec::<std::net::IpAddr>::new(), "{after:?}");
        let links = exec::stdout(
            node.netns()
                .command("ip")
                .args(["link", "show", "type", "veth"]),
        );
        let links = links.expect("ip");
        // The uplink is one too.
        assert_eq!(links.matches("link/ether").count(), 1, "{after:?}: {links}");
        let (one, two, far) = (
            node.add_pod("one"),
            node.add_pod("two"),
            other.add_pod("far"),
        );
        one.ping(two.ip(), 2).assert_received();
        one.ping(far.ip(), 2).assert_received();
        one.check().expect("executed").expect_success();
    }
}
