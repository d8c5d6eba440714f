//! `beeline doctor`: nothing to say of a node that is well; of one that is not, what is wrong and what puts it right.

mod cluster;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use aya::programs::TcAttachType;
use beeline::datapath::Datapath;
use beeline_tests::config::NETWORK;
use beeline_tests::foreign::{Act, Foreign};
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::topology::Topology;
use beeline_tests::{cli, exec};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixture::{configure, fast_node, fast_nodes};
use crate::overlay;

/// One finding, as the command prints it.
#[derive(Clone, Debug, Deserialize)]
struct Finding {
    network: Option<String>,
    check: String,
    severity: String,
    object: String,
    message: String,
    fix: Option<String>,
}

/// What the command found.
#[derive(Debug)]
struct Report {
    well: bool,
    findings: Vec<Finding>,
}

impl Report {
    #[track_caller]
    fn with(node: &Node, bin_dir: &Path) -> Self {
        let (well, text) = cli::doctor(node, bin_dir, "json").expect("doctor");
        let mut report: Value = serde_json::from_str(&text).expect("JSON");
        let findings = serde_json::from_value(report["findings"].take()).expect("findings");
        Self { well, findings }
    }

    #[track_caller]
    fn of(node: &Node) -> Self {
        Self::with(node, &own_directory(node))
    }

    /// What needs doing.
    fn troubles(&self) -> Vec<&Finding> {
        let needs = |finding: &&Finding| ["warning", "failure"].contains(&&*finding.severity);
        self.findings.iter().filter(needs).collect()
    }

    #[track_caller]
    fn assert_content(&self) {
        let troubles = self.troubles();
        assert!(troubles.is_empty(), "{troubles:#?}");
        assert!(self.well);
    }

    /// The finding of a check about an object; panics unless there is one that is not well and has a fix.
    #[track_caller]
    fn find(&self, check: &str, object: &str) -> &Finding {
        let mut found = self.findings.iter().filter(|finding| {
            finding.check == check && finding.severity != "ok" && finding.object.contains(object)
        });
        let one = found.next();
        let one = one.unwrap_or_else(|| panic!("no {check} {object:?} in {:#?}", self.findings));
        assert!(one.fix.is_some(), "{one:#?}");
        let worst = self.findings.iter().any(|f| f.severity == "failure");
        assert_eq!(self.well, !worst);
        one
    }
}

/// The directory of the plugin itself, which stands for the runtime's.
fn own_directory(node: &Node) -> PathBuf {
    let own = node.plugin().path().parent();
    own.expect("a directory").to_owned()
}

/// Two nodes with a pod each, of which the first is looked at.
struct Pair {
    a: Arc<Node>,
    b: Arc<Node>,
    pod: Pod,
    far: Pod,
    _topology: Topology,
}

impl Pair {
    #[track_caller]
    fn new() -> Self {
        let (topology, [a, b]) = fast_nodes(Families::V4);
        Self::with_pods(topology, a, b)
    }

    /// Two nodes that are configured.
    #[track_caller]
    fn with_pods(topology: Topology, a: Arc<Node>, b: Arc<Node>) -> Self {
        let (pod, far) = (a.add_pod("pod"), b.add_pod("far"));
        pod.ping(far.ip(), 2).assert_received();
        Self {
            a,
            b,
            pod,
            far,
            _topology: topology,
        }
    }

    /// The fault is found, and running its fix makes the node well again; returns what was found.
    #[track_caller]
    fn assert_cured(&self, check: &str, object: &str) -> Finding {
        let finding = Report::of(&self.a).find(check, object).clone();
        let fix = finding.fix.as_deref().expect("a fix");
        cli::shell(&self.a, fix).unwrap_or_else(|error| panic!("{fix}: {error:#}"));
        Report::of(&self.a).assert_content();
        self.pod.ping(self.far.ip(), 2).assert_received();
        finding
    }

    #[track_caller]
    fn shell(&self, line: &str) {
        cli::shell(&self.a, line).unwrap_or_else(|error| panic!("{line}: {error:#}"));
    }

    fn ifindex(&self) -> u32 {
        let status = cli::status(&self.a).expect("status");
        let index = status["pods"][0]["ifindex"].as_u64();
        index.expect("an index").try_into().expect("an index")
    }

    fn datapath(&self) -> Datapath {
        Datapath::open(&self.a.bpffs_dir(), NETWORK).expect("pinned")
    }
}

#[test]
fn a_node_that_is_well_has_no_warning_and_is_not_changed_by_the_look() {
    let pair = Pair::new();
    let before = Snapshot::of(&pair.a);
    for node in [&pair.a, &pair.b] {
        Report::of(node).assert_content();
    }
    before.assert_unchanged(&pair.a);
    let (well, text) = cli::doctor(&pair.a, &own_directory(&pair.a), "text").expect("doctor");
    assert!(well, "{text}");
    assert!(text.contains("0 failures, 0 warnings"), "{text}");
    for check in [
        "kernel",
        "bpffs",
        "sysctls",
        "rp_filter",
        "conflists",
        "binaries",
        "mtu",
        "routes",
        "neighbours",
        "pods",
        "programs",
        "peers",
        "firewall",
        "masquerade",
        "addresses",
    ] {
        let said = text
            .lines()
            .any(|line| line.contains(&format!(" {check} ")));
        assert!(said, "{check} is not in {text}");
    }
}

#[test]
fn nodes_of_both_families_are_well() {
    let (_topology, [a, b]) = fast_nodes(Families::Dual);
    let _pods = (a.add_pod("pod"), b.add_pod("far"));
    Report::of(&a).assert_content();
}

#[test]
fn a_node_without_a_pod_yet_is_told_so_and_fails_in_nothing() {
    let (_topology, node) = fast_node();
    let report = Report::of(&node);
    let found = report.find("network", "bridge");
    assert_eq!(found.severity, "note");
    assert_eq!(found.network.as_deref(), Some(NETWORK));
    report.assert_content();
}

#[test]
fn a_route_that_is_missing_or_leads_elsewhere_is_made_by_the_command() {
    let pair = Pair::new();
    pair.shell("ip route del 10.244.2.0/24");
    let found = pair.assert_cured("routes", "10.244.2.0/24");
    assert_eq!(found.severity, "failure");
    pair.shell("ip route replace 10.244.2.0/24 via 192.168.1.99 dev eth0 proto 190");
    pair.assert_cured("routes", "10.244.2.0/24");
}

#[test]
fn routes_that_shadow_a_peer_and_those_to_no_peer_are_deleted_by_the_commands() {
    let pair = Pair::new();
    pair.shell("ip route add 10.244.2.128/25 via 192.168.1.99");
    pair.assert_cured("routes", "10.244.2.128/25");
    pair.shell("ip route add 10.9.0.0/24 via 192.168.1.12 proto 190");
    pair.assert_cured("routes", "10.9.0.0/24");
}

#[test]
fn a_silent_neighbour_is_named_and_flushed_by_the_command() {
    let pair = Pair::new();
    let node = pair.b.address();
    pair.shell(&format!("ip neigh replace {node} dev eth0 nud failed"));
    let found = pair.assert_cured("neighbours", &node.to_string());
    assert!(found.object.contains("eth0 (FAILED)"), "{found:#?}");
}

#[test]
fn pods_that_the_map_lacks_or_has_for_nobody_are_put_right() {
    let pair = Pair::new();
    let (ips, ifindex) = (pair.pod.ips().to_vec(), pair.ifindex());
    let pods = pair.datapath().pods().expect("pods");
    pair.datapath().remove_pod(ifindex, &ips).expect("remove");
    pair.assert_cured("pods", &pair.pod.ip().to_string());

    let (_, mut entry) = pods[0];
    entry.ifindex = 1 << 20;
    let ghost = "10.244.1.99".parse().expect("an address");
    pair.datapath().set_pod(&[ghost], entry).expect("set");
    pair.assert_cured("pods", "10.244.1.99");
}

#[test]
fn programs_that_were_detached_are_named_by_interface_and_attached_again() {
    let pair = Pair::new();
    for pin in ["from_pod", "to_pod"] {
        let pins = pair.datapath().pins().join("links");
        fs::remove_file(pins.join(format!("{pin}-{}", pair.ifindex()))).expect("unpin");
        let found = pair.assert_cured("programs", pin);
        assert!(found.object.contains(" on veth"), "{found:#?}");
    }
    fs::remove_dir_all(pair.datapath().pins()).expect("unpin");
    let found = pair.assert_cured("programs", NETWORK);
    assert_eq!(found.severity, "failure");
}

#[test]
fn programs_of_a_killed_monitor_and_of_another_build_are_told() {
    let pair = Pair::new();
    let mut monitor = pair.a.netns().command(pair.a.plugin().path());
    monitor
        .arg("monitor")
        .arg("--state-dir")
        .arg(pair.a.state_dir());
    let mut monitor = monitor
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("start");
    let mut line = String::new();
    let stderr = monitor.stderr.take().expect("standard error");
    BufReader::new(stderr).read_line(&mut line).expect("a line");
    assert!(line.starts_with("monitoring"), "{line}");
    let report = Report::of(&pair.a);
    monitor.kill().expect("kill");
    monitor.wait().expect("wait");
    assert_eq!(report.find("programs", NETWORK).severity, "note");
    let found = pair.assert_cured("programs", NETWORK);
    assert!(found.message.contains("was killed"), "{found:#?}");

    let pins = pair.datapath().pins().to_owned();
    let pin = pins
        .join(format!("programs-{}", beeline_common::ABI_VERSION))
        .join("to_uplink");
    fs::remove_file(&pin).expect("unpin");
    let ingress = TcAttachType::Ingress;
    let _foreign = Foreign::classic(pair.a.netns(), "lo", ingress, 0, Act::Next, &pin);
    let report = Report::of(&pair.a);
    let mut others = report.findings.iter().map(|finding| &finding.message);
    assert!(others.any(|said| said.contains("to_uplink were loaded by another build")));
    pair.assert_cured("programs", NETWORK);
}

#[test]
fn state_that_cannot_be_read_is_a_failure_among_others() {
    let pair = Pair::new();
    let maps = format!("maps-{}", beeline_common::ABI_VERSION);
    fs::remove_file(pair.datapath().pins().join(maps).join("PEERS")).expect("unpin");
    let found = pair.assert_cured("network", "state");
    assert!(found.message.contains("PEERS"), "{found:#?}");
}

#[test]
fn peers_that_the_map_has_otherwise_are_put_right() {
    let pair = Pair::new();
    pair.datapath().set_peers(&[]).expect("set");
    pair.assert_cured("peers", "10.244.2.0/24");
}

#[test]
fn a_strict_reverse_path_filter_is_named_with_its_interface() {
    let pair = Pair::new();
    for (scope, object) in [("eth0", "uplink eth0"), ("v-net-0", "bridge v-net-0")] {
        let key = format!("net/ipv4/conf/{scope}/rp_filter");
        pair.a.netns().write_sysctl(&key, "1").expect("sysctl");
        pair.assert_cured("rp_filter", object);
    }
    let key = "net/ipv4/conf/all/rp_filter";
    pair.a.netns().write_sysctl(key, "1").expect("sysctl");
    // Those that were made loose before stay so.
    let found = pair.assert_cured("rp_filter", "host veths veth");
    assert!(found.message.contains("conf.all"), "{found:#?}");
}

#[test]
fn forwarding_that_is_off_is_turned_on_by_the_command() {
    let pair = Pair::new();
    for key in ["net/ipv4/ip_forward", "net/ipv4/conf/eth0/forwarding"] {
        pair.a.netns().write_sysctl(key, "0").expect("sysctl");
        let report = Report::of(&pair.a);
        let found = report.find("sysctls", &key.replace('/', "."));
        pair.shell(found.fix.as_deref().expect("a fix"));
        Report::of(&pair.a).assert_content();
    }
}

#[test]
fn a_list_that_sorts_before_ours_is_moved_away_by_the_command() {
    let pair = Pair::new();
    let rival = json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}]});
    let path = pair.a.conf_dir().join("05-flannel.conflist");
    fs::write(&path, rival.to_string()).expect("write");
    let found = pair.assert_cured("conflists", "05-flannel.conflist");
    assert_eq!(found.severity, "failure");

    let second = json!({
        "cniVersion": "1.0.0", "name": "other",
        "plugins": [{"type": "bridge", "bridge": "v-net-0"}],
    });
    let path = pair.a.conf_dir().join("20-other.conflist");
    fs::write(&path, second.to_string()).expect("write");
    let report = Report::of(&pair.a);
    assert_eq!(report.find("conflists", "20-other").severity, "warning");
    fs::write(&path, "{").expect("write");
    Report::of(&pair.a).find("conflists", "20-other");
}

#[test]
fn programs_that_the_runtime_would_miss_are_named() {
    let (_topology, node) = fast_node();
    let directory = node.directory().join("bin");
    fs::create_dir(&directory).expect("a directory");
    let config = node.config().chain(json!({"type": "tuning"}));
    config.install().expect("install");
    let report = Report::with(&node, &directory);
    assert_eq!(report.find("binaries", "bin/tuning").severity, "failure");
    let own = report.find("binaries", "bin/beeline");
    cli::shell(&node, own.fix.as_deref().expect("a fix")).expect("install");
    let report = Report::with(&node, &directory);
    assert_eq!(report.troubles().len(), 1, "{:#?}", report.troubles());
    let tuning = directory.join("tuning");
    std::os::unix::fs::symlink("/usr/lib/cni/tuning", tuning).expect("link");
    Report::with(&node, &directory).assert_content();
    fs::write(directory.join("beeline"), "another").expect("write");
    let report = Report::with(&node, &directory);
    assert_eq!(report.find("binaries", "bin/beeline").severity, "warning");
}

#[test]
fn records_and_addresses_of_nobody_are_removed_by_the_commands() {
    let pair = Pair::new();
    let records = pair.a.state_dir().join(NETWORK).join("attachments");
    let own = records.join(format!("{}:eth0", pair.pod.name()));
    let mut record: Value =
        serde_json::from_slice(&fs::read(own).expect("read")).expect("a record");
    record["container_id"] = json!("ghost");
    record["host_veth"] = json!("vethgone");
    record["fast_path"] = json!(false);
    fs::write(records.join("ghost:eth0"), record.to_string()).expect("write");
    pair.assert_cured("pods", "ghost eth0 (vethgone)");

    let address = pair.a.data_dir().join(NETWORK).join("10.244.1.77");
    fs::write(&address, "spectre\r\neth0").expect("write");
    let found = pair.assert_cured("addresses", "10.244.1.77 (spectre)");
    assert_eq!(found.severity, "note");
    assert!(!address.exists());
}

#[test]
fn a_range_that_is_full_is_a_failure() {
    let (_topology, node) = fast_node();
    configure(&node, |plugin| {
        plugin["ipam"]["rangeStart"] = json!("10.244.1.5");
        plugin["ipam"]["rangeEnd"] = json!("10.244.1.5");
    });
    let _pod = node.add_pod("pod");
    let report = Report::of(&node);
    let found = report.find("addresses", "10.244.1.5-10.244.1.5");
    assert_eq!(found.severity, "failure");
}

#[test]
fn a_node_whose_fast_path_was_turned_off_is_told_how_to_turn_it_on() {
    let pair = Pair::new();
    cli::unload(&pair.a).expect("unload");
    let found = pair.assert_cured("network", "bridge v-net-0");
    assert!(found.message.contains("turned off"), "{found:#?}");
}

#[test]
fn a_narrower_uplink_is_told_for_new_pods_and_old() {
    let Pair {
        a,
        b: _b,
        pod,
        far: _far,
        _topology,
    } = Pair::new();
    cli::shell(&a, "ip link set eth0 mtu 1400").expect("ip");
    let report = Report::of(&a);
    report.find("mtu", "pods behind veth");
    report.find("peers", "10.244.2.0/24");
    let fix = report.find("mtu", "new pods").fix.clone();
    cli::shell(&a, &fix.expect("a fix")).expect("load");
    let report = Report::of(&a);
    assert_eq!(report.troubles().len(), 1, "{:#?}", report.troubles());
    pod.delete().expect("DEL");
    let _pod = a.add_pod("anew");
    Report::of(&a).assert_content();
}

#[test]
fn a_firewall_and_missing_masquerading_are_named() {
    let pair = Pair::new();
    pair.shell("nft delete table inet beeline-pods");
    pair.assert_cured("masquerade", "beeline-pods");
    pair.shell("iptables -A FORWARD -s 10.244.1.2 -j DROP");
    let report = Report::of(&pair.a);
    let found = report.find("firewall", "10.244.1.2");
    assert_eq!(found.severity, "warning");
}

#[test]
fn the_overlays_neighbours_and_device_are_looked_at() {
    let (_topology, [a, b]) = overlay::nodes(Families::V4);
    let _pods = (a.add_pod("pod"), b.add_pod("far"));
    Report::of(&a).assert_content();
    let show = exec::stdout(
        a.netns()
            .command("ip")
            .args(["-o", "link", "show", "type", "vxlan"]),
    );
    let show = show.expect("ip");
    let name = show.split(": ").nth(1).expect("a name").to_owned();
    for fault in [
        format!("ip neigh del {} dev {name}", b.address()),
        format!("ip link delete {name}"),
    ] {
        cli::shell(&a, &fault).expect("fault");
        let report = Report::of(&a);
        let found = report.find("overlay", &name);
        assert_eq!(found.severity, "failure");
        cli::shell(&a, found.fix.as_deref().expect("a fix")).expect("fix");
        Report::of(&a).assert_content();
    }
}

#[test]
fn thousands_of_peers_take_a_moment_and_few_lines() {
    let (_topology, [a, b]) = fast_nodes(Families::V4);
    let peers = (0..4_000_u32).map(|n| {
        let [_, _, c, d] = n.to_be_bytes();
        json!({"cidr": format!("10.{}.{d}.0/24", 100 + c), "node": b.address()})
    });
    let peers: Vec<Value> = peers.collect();
    configure(&a, |plugin| plugin["datapath"]["peers"] = json!(peers));
    let _pod = a.add_pod("pod");
    let start = Instant::now();
    Report::of(&a).assert_content();
    let took = start.elapsed();
    assert!(took.as_secs() < 5, "{took:?}");
    let lost: Vec<String> = (0..200)
        .map(|n| format!("route del 10.100.{n}.0/24"))
        .collect();
    exec::ip_batch(a.netns(), &lost).expect("ip");
    let (well, text) = cli::doctor(&a, &own_directory(&a), "text").expect("doctor");
    assert!(!well, "{text}");
    assert!(text.contains("and 190 more"), "{text}");
    assert!(text.contains("the other 3800 have theirs"), "{text}");
    assert!(text.lines().count() < 60, "{text}");
}

#[test]
fn a_network_that_nobody_knows_is_refused() {
    let (_topology, node) = fast_node();
    let output = cli::run(&node, "doctor", &["--network", "nowhere"]).expect("executed");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("network nowhere"), "{error}");
}
