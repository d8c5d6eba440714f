use super::{
    super::{finding::test_commands, pods::tests::record},
    *,
};
use crate::node::cluster::ClusterPeer;

/// A cluster with one other node, which has two pod CIDRs.
fn cluster() -> Cluster {
    let peer = |cidr: &str| ClusterPeer {
        name: "b".to_owned(),
        cidr: cidr.parse().unwrap(),
        node: "192.168.1.12".parse().unwrap(),
    };
    Cluster {
        backend: "kubernetes".to_owned(),
        node: "a".to_owned(),
        peers: vec![peer("10.244.2.0/24"), peer("fd00:2::/64")],
        problems: Vec::new(),
    }
}

fn facts<'a>(record: &'a Record, configured: &'a Plan) -> Facts<'a> {
    Facts {
        record,
        file: "/run/beeline/pods/cluster.json".into(),
        cluster: Some(cluster()),
        agent: true,
        configured: Some((configured, Path::new("/etc/cni/net.d/10-beeline.conflist"))),
        left_out: Vec::new(),
        bin_dir: Path::new("/opt/cni/bin"),
    }
}

/// The commands as they are where such an agent runs, or does not.
fn judged(facts: &Facts<'_>) -> Vec<Finding> {
    let commands = Commands {
        agent: facts.agent,
        ..test_commands()
    };
    judge(facts, &commands)
}

/// What is not well.
#[track_caller]
fn only_trouble(facts: &Facts<'_>) -> Finding {
    let mut found = judged(facts);
    found.retain(|finding| finding.severity != Severity::Ok);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn fix(finding: &Finding) -> &str {
    finding.fix.as_deref().unwrap()
}

#[test]
fn a_cluster_whose_agent_runs_and_whose_nodes_are_peers_is_well() {
    let record = record();
    let found = judged(&facts(&record, &record.plan));
    let mut severities = found.iter().map(|finding| finding.severity);
    assert!(
        severities.all(|severity| severity == Severity::Ok),
        "{found:#?}"
    );
    assert!(found[0].message.contains("kubernetes"), "{found:#?}");
    let nodes = "1 peer with 2 pod CIDRs, none of which overlap";
    assert_eq!(found[1].message, nodes);
}

#[test]
fn an_agent_that_does_not_run_is_a_warning_with_the_backends_own_fix() {
    let record = record();
    for (backend, part) in [
        ("kubernetes", "kubectl -n kube-system"),
        ("etcd", "systemctl"),
    ] {
        let mut facts = facts(&record, &record.plan);
        facts.agent = false;
        facts.cluster.as_mut().unwrap().backend = backend.to_owned();
        let found = only_trouble(&facts);
        assert_eq!(found.severity, Severity::Warning);
        assert!(fix(&found).starts_with(part), "{found:#?}");
    }
}

#[test]
fn a_cluster_of_one_node_is_a_note_unless_others_have_problems() {
    let record = record();
    let mut facts = facts(&record, &record.plan);
    let cluster = facts.cluster.as_mut().unwrap();
    cluster.peers.clear();
    assert_eq!(only_trouble(&facts).severity, Severity::Note);
    let cluster = facts.cluster.as_mut().unwrap();
    cluster.problems = vec!["node b: has no pod CIDR".to_owned()];
    let found = only_trouble(&facts);
    let named = (found.severity, &*found.object);
    assert_eq!(named, (Severity::Warning, "nodes b"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_warning() {
    let record = record();
    let mut facts = facts(&record, &record.plan);
    facts.cluster = None;
    let found = only_trouble(&facts);
    assert!(found.object.ends_with("cluster.json"), "{found:#?}");
}

#[test]
fn peers_in_the_configuration_are_told_with_what_makes_either_side_count() {
    let record = record();
    let mut configured = record.plan.clone();
    configured.datapath.peers = vec![crate::datapath::config::PeerConf {
        cidr: "10.244.2.0/24".parse().unwrap(),
        node: "192.168.1.12".parse().unwrap(),
    }];
    let mut facts = facts(&record, &configured);
    let found = only_trouble(&facts);
    assert!(fix(&found).starts_with("remove datapath.peers from /etc/cni"));
    facts.agent = false;
    let mut found = judged(&facts);
    found.retain(|finding| finding.message.contains("datapath.peers"));
    let rm = "without an agent: rm '/run/beeline/pods/cluster.json'; else remove ";
    assert!(fix(&found[0]).starts_with(rm), "{found:#?}");

    let mut set_up = record.clone();
    set_up.plan.datapath.peers = configured.datapath.peers.clone();
    let found = only_trouble(&self::facts(&set_up, &record.plan));
    assert_eq!(found.object, "bridge br0");
}

#[test]
fn pod_cidrs_in_another_order_are_the_same_and_others_are_named() {
    let mut record = record();
    record.plan.pod_cidrs.push("fd00:1::/64".parse().unwrap());
    let mut configured = record.plan.clone();
    configured.pod_cidrs.reverse();
    let found = judged(&facts(&record, &configured));
    assert!(
        found.iter().all(|f| f.severity == Severity::Ok),
        "{found:#?}"
    );
    configured.pod_cidrs = vec!["10.244.9.0/24".parse().unwrap()];
    let mut facts = facts(&record, &configured);
    let found = only_trouble(&facts);
    for part in ["10.244.9.0/24", "10.244.1.0/24, fd00:1::/64"] {
        assert!(found.message.contains(part), "{found:#?}");
    }
    assert!(fix(&found).starts_with("beeline load  # or wait"));
    facts.agent = false;
    let found = judged(&facts);
    let last = fix(found.last().unwrap());
    assert!(last.starts_with("start the agent"), "{last}");
}

#[test]
fn plugins_that_the_agent_left_out_are_named_with_their_directory() {
    let record = record();
    let mut facts = facts(&record, &record.plan);
    facts.left_out = vec!["portmap".to_owned(), "bandwidth".to_owned()];
    let found = only_trouble(&facts);
    assert_eq!(found.object, "plugins portmap, bandwidth");
    assert!(
        fix(&found).contains("into /opt/cni/bin  # or wait"),
        "{found:#?}"
    );
}
