//! Nodes whose peers an agent keeps.

use beeline::node::Lock;
use beeline::node::cluster::Cluster;
use beeline_tests::cluster;
use beeline_tests::config::Config;

use super::*;

/// Two nodes of a cluster with a pod each. Their agents have set them up, and run no more.
fn pair() -> Pair {
    let (topology, [a, b]) = fast_nodes(Families::V4);
    for node in [&a, &b] {
        join(
            node,
            &cluster::config(node),
            &cluster::seen_by(node, "etcd"),
        );
    }
    Pair::with_pods(topology, a, b)
}

#[track_caller]
fn join(node: &Node, config: &Config<'_>, cluster: &Cluster) {
    let record = cluster::join(node, config, cluster).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(record.degraded, None);
}

/// The same, where the agent of the first runs.
fn kept_pair() -> (Pair, Lock) {
    let pair = pair();
    let agent = cluster::agent(&pair.a).expect("lock");
    (pair, agent)
}

/// Whether nothing is wrong but that no agent runs.
#[track_caller]
fn assert_lacks_only_an_agent(node: &Node) {
    let report = Report::of(node);
    let troubles = report.troubles();
    assert_eq!(troubles.len(), 1, "{troubles:#?}");
    let one = report.find("cluster", "agent of node");
    assert_eq!(one.severity, "warning");
    let fix = one.fix.as_deref().expect("a fix");
    assert!(fix.contains("beeline-agent"), "{fix}");
}

#[test]
fn a_cluster_that_is_well_lacks_nothing_but_an_agent_that_runs() {
    let pair = pair();
    let before = Snapshot::of(&pair.a);
    for node in [&pair.a, &pair.b] {
        assert_lacks_only_an_agent(node);
    }
    let _agent = cluster::agent(&pair.a).expect("lock");
    Report::of(&pair.a).assert_content();
    let (_, text) = cli::doctor(&pair.a, &own_directory(&pair.a), "text").expect("doctor");
    for part in [
        "cluster     agent of node node-192.168.1.11: runs, by etcd",
        "cluster     nodes: 1 peer with 1 pod CIDR",
        "routes      peers: each of 1 peer has its route",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    before.assert_unchanged(&pair.a);
}

#[test]
fn what_has_drifted_is_put_right_by_the_commands_or_left_to_the_agent() {
    let (pair, _agent) = kept_pair();
    pair.shell("ip route del 10.244.2.0/24");
    let found = pair.assert_cured("routes", "10.244.2.0/24");
    assert_eq!(found.severity, "failure");
    assert_left_to_agent(&found);
    pair.shell("ip route add 10.9.0.0/24 via 192.168.1.12 proto 190");
    assert_left_to_agent(&pair.assert_cured("routes", "10.9.0.0/24"));
    pair.datapath().set_peers(&[]).expect("set");
    assert_left_to_agent(&pair.assert_cured("peers", "10.244.2.0/24"));
    pair.shell("nft delete table inet beeline-pods");
    assert_left_to_agent(&pair.assert_cured("masquerade", "beeline-pods"));
    pair.shell("nft delete element inet beeline-pods cluster4 '{ 10.244.2.0/24 }'");
    let found = pair.assert_cured("masquerade", "peers 10.244.2.0/24");
    assert_eq!(found.severity, "failure");
    pair.shell("nft add element inet beeline-pods cluster4 '{ 10.9.0.0/24 }'");
    assert_eq!(pair.assert_cured("masquerade", "").severity, "warning");
}

#[track_caller]
fn assert_left_to_agent(finding: &Finding) {
    let fix = finding.fix.as_deref().expect("a fix");
    assert!(fix.contains("# or wait: the agent"), "{finding:#?}");
}

#[test]
fn without_an_agent_a_load_repairs_everything() {
    let pair = pair();
    for fault in [
        "ip route del 10.244.2.0/24",
        "ip route add 10.9.0.0/24 via 192.168.1.12 proto 190",
        "nft delete element inet beeline-pods cluster4 '{ 10.244.2.0/24 }'",
    ] {
        pair.shell(fault);
    }
    pair.datapath().set_peers(&[]).expect("set");
    let report = Report::of(&pair.a);
    for (check, object) in [
        ("routes", "peers 10.244.2.0/24"),
        ("routes", "routes 10.9.0.0/24"),
        ("masquerade", "peers 10.244.2.0/24"),
        ("peers", "10.244.2.0/24"),
    ] {
        let fix = report.find(check, object).fix.as_deref();
        assert!(!fix.expect("a fix").contains("wait"), "{fix:?}");
    }
    cli::load(&pair.a, &[]).expect("load");
    assert_lacks_only_an_agent(&pair.a);
    pair.pod.ping(pair.far.ip(), 2).assert_received();

    cli::unload(&pair.a).expect("unload");
    Report::of(&pair.a).find("network", "bridge v-net-0");
    cli::load(&pair.a, &[]).expect("load");
    assert_lacks_only_an_agent(&pair.a);
}

#[test]
fn the_plain_bridge_is_put_right_without_a_load() {
    let (_topology, [a, _b]) = fast_nodes(Families::V4);
    let config = cluster::config(&a).mode("bridge");
    join(&a, &config, &cluster::seen_by(&a, "kubernetes"));
    let _pod = a.add_pod("pod");
    let _agent = cluster::agent(&a).expect("lock");
    Report::of(&a).assert_content();
    for (fault, check) in [
        ("ip route del 10.244.2.0/24", "routes"),
        (
            "nft delete element inet beeline-pods cluster4 '{ 10.244.2.0/24 }'",
            "masquerade",
        ),
    ] {
        cli::shell(&a, fault).expect("fault");
        let report = Report::of(&a);
        let fix = report.find(check, "10.244.2.0/24").fix.as_deref();
        cli::shell(&a, fix.expect("a fix")).expect("fix");
        Report::of(&a).assert_content();
    }
}

#[test]
fn a_configuration_that_names_peers_or_other_pod_cidrs_is_told() {
    let (pair, agent) = kept_pair();
    pair.a.config().install().expect("install");
    let report = Report::of(&pair.a);
    let found = report.find("cluster", "10-beeline.conflist");
    assert!(found.message.contains("datapath.peers"), "{found:#?}");
    // As an ADD does that takes it up.
    cli::load(&pair.a, &[]).expect("load");
    let report = Report::of(&pair.a);
    assert_eq!(report.troubles().len(), 1, "{:#?}", report.troubles());
    let status = cli::status_text(&pair.a).expect("status");
    assert!(status.contains("problem: datapath.peers: "), "{status}");
    drop(agent);
    let report = Report::of(&pair.a);
    let found = report.find("cluster", "10-beeline.conflist");
    let fix = found.fix.as_deref().expect("a fix");
    let (_, rm) = fix.split_once("without an agent: ").expect("a command");
    let (rm, _) = rm.split_once(';').expect("the end of the command");
    pair.shell(rm);
    Report::of(&pair.a).assert_content();

    let cluster = cluster::seen_by(&pair.a, "etcd");
    join(&pair.a, &cluster::config(&pair.a), &cluster);
    let _agent = cluster::agent(&pair.a).expect("lock");
    let other = cluster::config(&pair.a).with(|plugin| {
        plugin["ipam"]["subnet"] = json!("10.244.7.0/24");
    });
    other.install().expect("install");
    let report = Report::of(&pair.a);
    let found = report.find("cluster", "10-beeline.conflist");
    for cidr in ["10.244.7.0/24", "10.244.1.0/24"] {
        assert!(found.message.contains(cidr), "{found:#?}");
    }
    cluster::config(&pair.a).install().expect("install");
    Report::of(&pair.a).assert_content();
}

#[test]
fn what_the_agent_could_not_do_is_told() {
    let (_topology, [a, _b]) = fast_nodes(Families::V4);
    let cluster = Cluster {
        problems: vec![
            "node c: has no pod CIDR".to_owned(),
            "node d: pod CIDR 10.244.2.0/24: overlaps 10.244.2.0/24 of node b".to_owned(),
        ],
        ..cluster::seen_by(&a, "kubernetes")
    };
    join(&a, &cluster::config(&a), &cluster);
    let _agent = cluster::agent(&a).expect("lock");
    let report = Report::of(&a);
    let fix = report.find("cluster", "nodes c").fix.as_deref();
    assert!(fix.is_some_and(|fix| fix.contains("--allocate-node-cidrs")));
    let fix = report.find("cluster", "nodes d: ").fix.as_deref();
    assert!(fix.is_some_and(|fix| fix.contains("kubectl delete node d")));
    assert_eq!(report.troubles().len(), 2, "{:#?}", report.troubles());

    let alone = Cluster {
        peers: Vec::new(),
        problems: Vec::new(),
        ..cluster
    };
    join(&a, &cluster::config(&a), &alone);
    let report = Report::of(&a);
    report.assert_content();
    assert_eq!(report.find("cluster", "nodes").severity, "note");
}

#[test]
fn plugins_that_the_agent_left_out_are_told_if_its_template_can_be_read() {
    let (_topology, [a, _b]) = fast_nodes(Families::V4);
    join(&a, &cluster::config(&a), &cluster::seen_by(&a, "etcd"));
    let _agent = cluster::agent(&a).expect("lock");
    let template = a.directory().join("template.conflist");
    let list = cluster::config(&a).chain(json!({"type": "portmap"}));
    fs::write(&template, list.conflist().to_string()).expect("write");
    let doctor = |template: &Path| {
        let arguments = [a.conf_dir(), own_directory(&a), template.to_owned()];
        let [conf, bin, template] = arguments.map(|path| path.display().to_string());
        let options = [
            "--conf-dir",
            &conf,
            "--bin-dir",
            &bin,
            "--template",
            &template,
        ];
        let output = cli::run(&a, "doctor", &options).expect("doctor");
        String::from_utf8(output.stdout).expect("text")
    };
    let text = doctor(&template);
    let told = "cluster     plugins portmap: are not in ";
    assert!(text.contains(told), "{text}");
    let text = doctor(&a.directory().join("nothing"));
    assert!(!text.contains("portmap"), "{text}");
}
