//! `beeline monitor`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use beeline_tests::datapath::attached_as_pinned;
use beeline_tests::exec;
use beeline_tests::node::{BRIDGE, Node};
use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::traffic::{connect, listen, tcp_echo};
use beeline_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::fixture::fast_nodes;

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A monitor that runs on a node; killed on drop.
struct Monitor {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

/// What a monitor left.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

fn beeline(node: &Node, verb: &str) -> Command {
    let mut command = node.netns().command(node.plugin().path());
    command.arg(verb).arg("--state-dir").arg(node.state_dir());
    command
}

impl Monitor {
    /// Starts one, and waits until it is there.
    #[track_caller]
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let mut child = beeline(node, "monitor")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let mut stderr = BufReader::new(child.stderr.take().expect("standard error"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line");
        assert!(line.starts_with("monitoring"), "{line}");
        Self { child, stderr }
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(self) -> Ended {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, Signal::SIGINT).expect("interrupt");
        self.wait()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    fn wait(mut self) -> Ended {
        let deadline = wait::deadline(TIMEOUT);
        while self.child.try_wait().expect("wait").is_none() {
            assert!(Instant::now() < deadline, "the monitor goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(mut out) = self.child.stdout.take() {
            out.read_to_string(&mut stdout).expect("standard output");
        }
        self.stderr.read_to_string(&mut stderr).expect("errors");
        Ended {
            status: self.child.wait().expect("wait"),
            stdout,
            stderr,
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The packets, of a monitor that ended well and printed JSON.
    #[track_caller]
    fn packets(&self) -> Vec<Value> {
        assert!(self.status.success(), "{}", self.stderr);
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

fn host_veth(pod: &Pod) -> String {
    let interfaces = pod.result()["interfaces"].as_array().expect("interfaces");
    let name = interfaces
        .iter()
        .filter(|interface| interface["sandbox"].is_null())
        .filter_map(|interface| interface["name"].as_str())
        .find(|name| *name != BRIDGE);
    name.expect("a host veth").to_owned()
}

/// Whether the programs that are attached are the pinned ones; at least one is attached.
fn is_put_back(node: &Node) -> bool {
    let pinned = attached_as_pinned(node).expect("a datapath");
    !pinned.is_empty() && pinned.into_iter().all(|pinned| pinned)
}

/// Whether none of the programs that are attached is the pinned one.
fn is_covered(node: &Node) -> bool {
    let pinned = attached_as_pinned(node).expect("a datapath");
    !pinned.into_iter().any(|pinned| pinned)
}

/// Finds what became of an echo request or reply at a program.
#[track_caller]
fn find<'a>(packets: &'a [Value], hook: &str, info: &str, to: IpAddr) -> &'a Value {
    let to = to.to_string();
    let found = packets.iter().find(|packet| {
        packet["hook"] == hook && packet["info"] == info && packet["destination"] == to.as_str()
    });
    found.unwrap_or_else(|| panic!("no {info} to {to} at {hook}: {packets:#?}"))
}

#[test]
fn a_monitor_shows_what_becomes_of_each_packet_and_where() {
    let (_topology, [a, b]) = fast_nodes(Families::V4);
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    let monitor = Monitor::start(&a, &["--output", "json"]);
    client.ping(near.ip(), 1).assert_received();
    client.ping(far.ip(), 1).assert_received();
    let packets = monitor.interrupt().packets();

    let near_request = find(&packets, "from_pod", "echo request", near.ip());
    assert_eq!(near_request["verdict"], "to_pod");
    assert_eq!(near_request["source"], client.ip().to_string().as_str());
    assert_eq!(near_request["interface"], host_veth(&client));
    assert_eq!(near_request["target"], host_veth(&near));
    // Ethernet, IP and ICMP headers, and what the ping carries.
    assert_eq!(near_request["bytes"], 14 + 20 + 8 + 56);
    let far_request = find(&packets, "from_pod", "echo request", far.ip());
    assert_eq!(far_request["verdict"], "to_peer");
    assert_eq!(far_request["target"], "eth0");
    let reply = find(&packets, "from_uplink", "echo reply", client.ip());
    assert_eq!(reply["verdict"], "to_pod");
    assert_eq!(reply["interface"], "eth0");
    assert_eq!(reply["target"], host_veth(&client));
}

#[test]
fn a_line_for_people_has_the_same_and_filters_leave_out_the_rest() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    let (client, near, other) = (
        node.add_pod("client"),
        node.add_pod("near"),
        node.add_pod("other"),
    );
    let monitor = Monitor::start(&node, &["--fast", "--pod", near.name()]);
    client.ping(near.ip(), 1).assert_received();
    client.ping(other.ip(), 1).assert_received();
    let ended = monitor.interrupt();
    assert!(ended.status.success(), "{}", ended.stderr);
    let (from, to) = (host_veth(&client), host_veth(&near));
    let expected = format!(
        " from_pod     to_pod            {} > {} ICMP echo request 98 bytes  {from} > {to}",
        client.ip(),
        near.ip()
    );
    assert!(ended.stdout.contains(&expected), "{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 2, "{}", ended.stdout);
    assert!(
        ended.stderr.contains("2 packets, 0 lost"),
        "{}",
        ended.stderr
    );
}

#[test]
fn drops_shows_what_a_pod_forges_and_nothing_else() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    node.config()
        .with(|plugin| plugin["datapath"]["antiSpoof"] = true.into())
        .install()
        .expect("install");
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let forged: Ipv4Addr = [10, 99, 0, 1].into();
    let address = format!("address add {forged}/32 dev eth0");
    exec::ip_batch(client.namespace(), &[address]).expect("address");
    client.ping(server.ip(), 1).assert_received();

    let monitor = Monitor::start(&node, &["--drops", "--output", "json"]);
    client.ping(server.ip(), 1).assert_received();
    let socket = client.namespace().within(|| UdpSocket::bind((forged, 0)));
    let socket = socket.expect("socket");
    socket.send_to(b"forged", (server.ip(), 9)).expect("send");
    let packets = monitor.interrupt().packets();
    let [packet] = &packets[..] else {
        panic!("not one packet: {packets:#?}");
    };
    assert_eq!(packet["verdict"], "drop_spoofed");
    assert_eq!(packet["source"], forged.to_string().as_str());
    assert_eq!(packet["destination_port"], 9);
    assert_eq!(packet["interface"], host_veth(&client));
}

/// What tcpdump reads in a file.
fn tcpdump(node: &Node, file: &Path, filter: &str) -> String {
    let mut tcpdump = node.netns().command("tcpdump");
    // Not as another user, who must not read the node's files.
    tcpdump.args(["-Z", "root", "-nnv", "-r"]).arg(file);
    exec::stdout(tcpdump.arg(filter)).expect("tcpdump")
}

#[test]
fn a_capture_holds_the_packets_as_the_pod_sent_them() {
    let (_topology, [a, b]) = fast_nodes(Families::V4);
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    let file = a.directory().join("capture.pcapng");
    let path = file.to_str().expect("a path");
    let monitor = Monitor::start(&a, &["--fast", "--pcap", path]);
    client.ping(far.ip(), 5).assert_received();
    let payload: Vec<u8> = (0..200_000).map(|i| (i % 251) as u8).collect();
    tcp_echo(client.namespace(), far.namespace(), far.ip(), &payload).expect("TCP");
    let ended = monitor.interrupt();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");

    let pings = tcpdump(&a, &file, "icmp");
    assert_eq!(pings.matches("echo request").count(), 5, "{pings}");
    assert_eq!(pings.matches("echo reply").count(), 5, "{pings}");
    // As it came from the pod: not yet routed, and with a checksum that tcpdump finds right.
    assert_eq!(pings.matches("ttl 64").count(), 5, "{pings}");
    assert!(!pings.contains("bad cksum"), "{pings}");
    let all = tcpdump(&a, &file, "tcp or icmp");
    let captured = all.lines().filter(|line| line.contains("ttl ")).count();
    let counted = format!("{captured} packets, 0 lost");
    assert!(
        ended.stderr.contains(&counted),
        "{counted}: {}",
        ended.stderr
    );
    assert!(!all.contains("truncated"), "{all}");
}

#[test]
fn a_monitor_breaks_no_connection_sees_new_pods_and_leaves_nothing() {
    let (_topology, [a, b]) = fast_nodes(Families::V4);
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    let listener = listen(far.namespace(), far.ip()).expect("listen");
    let to = (far.ip(), listener.local_addr().expect("port").port());
    let mut stream = connect(client.namespace(), to.into()).expect("connect");
    let (mut accepted, _) = listener.accept().expect("accept");
    let mut exchange = || {
        let mut byte = [0];
        stream.write_all(b"x").expect("write");
        accepted.read_exact(&mut byte).expect("read");
        accepted.write_all(&byte).expect("write");
        stream.read_exact(&mut byte).expect("read");
    };
    exchange();
    let before = Snapshot::of(&a);
    let monitor = Monitor::start(&a, &["--output", "json", "--duration", "300"]);
    assert!(is_covered(&a));
    exchange();
    let new = a.add_pod("new");
    let deadline = wait::deadline(TIMEOUT);
    // Programs of new pods are swapped from time to time.
    while !is_covered(&a) {
        assert!(Instant::now() < deadline, "the new pod is not seen");
        std::thread::sleep(Duration::from_millis(50));
    }
    new.ping(far.ip(), 1).assert_received();
    let packets = monitor.interrupt().packets();
    find(&packets, "from_pod", "echo request", far.ip());
    assert!(is_put_back(&a));
    exchange();
    new.delete().expect("DEL");
    before.assert_unchanged(&a);
}

#[test]
fn what_a_killed_monitor_left_carries_packets_and_is_put_right_by_the_next_and_by_load() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let kill_one = || {
        drop(Monitor::start(&node, &[]));
        assert!(is_covered(&node));
        client.ping(server.ip(), 2).assert_received();
        let status = exec::stdout(&mut beeline(&node, "status")).expect("status");
        assert!(status.contains("left by a monitor"), "{status}");
    };
    kill_one();
    let ended = Monitor::start(&node, &["--count", "0"]).wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(is_put_back(&node));

    kill_one();
    let mut load = beeline(&node, "load");
    exec::stdout(load.arg("--conf-dir").arg(node.conf_dir())).expect("load");
    assert!(is_put_back(&node));
    client.ping(server.ip(), 2).assert_received();
}

#[test]
fn a_second_monitor_is_refused_and_the_first_goes_on_when_programs_are_loaded_anew() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let monitor = Monitor::start(&node, &["--output", "json"]);
    let second = beeline(&node, "monitor").output().expect("run");
    let refusal = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(refusal.contains("monitored already"), "{refusal}");
    let status = exec::stdout(&mut beeline(&node, "status")).expect("status");
    assert!(status.contains("being monitored"), "{status}");

    let mut load = beeline(&node, "load");
    exec::stdout(load.arg("--conf-dir").arg(node.conf_dir())).expect("load");
    assert!(is_put_back(&node));
    let deadline = wait::deadline(TIMEOUT);
    while !is_covered(&node) {
        assert!(Instant::now() < deadline, "the new programs tell nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
    client.ping(server.ip(), 1).assert_received();
    let packets = monitor.interrupt().packets();
    find(&packets, "from_pod", "echo request", server.ip());
    assert!(is_put_back(&node));
}

#[test]
fn a_monitor_ends_when_its_reader_does_or_when_it_has_shown_enough() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let mut monitor = Monitor::start(&node, &[]);
    drop(monitor.child.stdout.take());
    assert!(monitor.wait().status.success());
    assert!(is_put_back(&node));

    let monitor = Monitor::start(&node, &["--count", "3", "--output", "json"]);
    client.ping(server.ip(), 4).assert_received();
    assert_eq!(monitor.wait().packets().len(), 3);
    let ended = Monitor::start(&node, &["--duration", "0.2"]).wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(is_put_back(&node));
}

#[test]
fn classic_filters_are_monitored_and_put_back_too() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    node.config()
        .with(|plugin| plugin["datapath"]["attach"] = "clsact".into())
        .install()
        .expect("install");
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let before = Snapshot::of(&node);
    let monitor = Monitor::start(&node, &["--output", "json"]);
    assert!(is_covered(&node));
    client.ping(server.ip(), 1).assert_received();
    let packets = monitor.interrupt().packets();
    let request = find(&packets, "from_pod", "echo request", server.ip());
    assert_eq!(request["verdict"], "to_pod");
    assert!(is_put_back(&node));
    client.ping(server.ip(), 1).assert_received();
    before.assert_unchanged(&node);
}

#[test]
fn a_network_without_a_fast_path_is_said_to_have_none() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    let run = || beeline(&node, "monitor").output().expect("run");
    let before = run();
    assert!(!before.status.success());
    node.config().mode("bridge").install().expect("install");
    let _pod = node.add_pod("pod");
    let refused = run();
    let refusal = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refusal.contains("no network with a fast path"), "{refusal}");
}
