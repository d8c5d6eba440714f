//! What the plugin tells the node's agent of its calls.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beeline::cni::tell::{SOCKET, Told};
use beeline_tests::config::NETWORK;
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::runtime::Attachment;

use crate::fixture::one_node;

fn socket(node: &Node) -> PathBuf {
    node.state_dir().join(SOCKET)
}

/// An agent that hears what the node's plugin tells.
fn listen(node: &Node) -> UnixDatagram {
    let agent = UnixDatagram::bind(socket(node)).expect("bind");
    let patience = Some(Duration::from_secs(10));
    agent.set_read_timeout(patience).expect("set a timeout");
    agent
}

#[track_caller]
fn hear(agent: &UnixDatagram) -> Told {
    let mut buffer = [0; 1024];
    let length = agent.recv(&mut buffer).expect("a datagram");
    let told = Told::parse(&buffer[..length]).expect("what is told");
    told.expect("of this version")
}

/// What `beeline status` says, which finds networks where the socket is.
#[track_caller]
fn beeline_status(node: &Node) -> String {
    let mut status = node.netns().command(node.plugin().path());
    let state_dir = node.state_dir();
    status.arg("status").arg("--state-dir").arg(state_dir);
    exec::stdout(&mut status).expect("status")
}

#[test]
fn each_call_tells_an_agent_what_it_took_and_whether_it_failed() {
    let (_topology, node) = one_node();
    // The first version that has GC.
    let config = node.config().version("1.1.0");
    config.install().expect("install");
    let agent = listen(&node);
    let mut pod = node.add_pod("pod");
    assert!(beeline_status(&node).contains("network pods "));
    let again = node.runtime().add(pod.attachment()).expect("executed");
    assert!(!again.is_success(), "{again}");
    pod.check().expect("executed").expect_success();
    let deleted = pod.detach().expect("executed");
    let elapsed = deleted.elapsed;
    deleted.expect_success();
    node.runtime().gc(&[]).expect("executed").expect_success();
    let status = node.runtime().status().expect("executed");
    status.expect_success();

    for (command, failed) in [
        ("ADD", false),
        ("ADD", true),
        ("CHECK", false),
        ("DEL", false),
        ("GC", false),
    ] {
        let told = hear(&agent);
        let Told {
            network, micros, ..
        } = &told;
        assert_eq!((&*told.command, told.failed), (command, failed), "{told:?}");
        assert_eq!(network, NETWORK);
        assert!(*micros > 100, "{told:?}");
        if command == "DEL" {
            assert!(Duration::from_micros(*micros) < elapsed, "{told:?}");
        }
    }
    agent.set_nonblocking(true).expect("set non-blocking");
    let more = agent.recv(&mut [0; 1024]).expect_err("nothing of STATUS");
    assert_eq!(more.kind(), ErrorKind::WouldBlock);
}

/// Longer than any call takes that waits for nobody, on the slowest machine.
const FOREVER: Duration = Duration::from_secs(5);

/// Asserts that calls end, and soon: of some that find nothing to do the quickest, as the machine may be busy.
#[track_caller]
fn assert_nobody_is_waited_for(node: &Arc<Node>) {
    let never = Attachment::new("never", "/run/netns/bl-never-there");
    let calls = (0..5).map(|_| {
        let outcome = node.runtime().del(&never, None).expect("executed");
        let elapsed = outcome.elapsed;
        outcome.expect_success();
        elapsed
    });
    let quickest = calls.min().expect("calls");
    assert!(quickest < FOREVER, "{quickest:?}");
    node.add_pod("pod").delete().expect("DEL");
}

#[test]
fn without_a_socket_and_with_one_that_nobody_listens_on_calls_go_on() {
    let (_topology, node) = one_node();
    assert_nobody_is_waited_for(&node);
    drop(listen(&node));
    assert!(socket(&node).exists());
    assert_nobody_is_waited_for(&node);
}

#[test]
fn an_agent_that_does_not_read_any_more_is_not_waited_for() {
    let (_topology, node) = one_node();
    let agent = listen(&node);
    let filler = UnixDatagram::unbound().expect("socket");
    filler.set_nonblocking(true).expect("set non-blocking");
    let full = (0..100_000).find_map(|_| filler.send_to(b"full", socket(&node)).err());
    assert_eq!(full.expect("full").kind(), ErrorKind::WouldBlock);
    assert_nobody_is_waited_for(&node);
    drop(agent);
}
