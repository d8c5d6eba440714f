use super::{
    super::{finding::test_commands, pods::tests::record},
    *,
};

fn off() -> Record {
    Record {
        off: true,
        degraded: Some("turned off".to_owned()),
        ..record()
    }
}

fn judged(record: &Record, configured: Option<(&Plan, &Path)>) -> Vec<Finding> {
    judge(record, configured, &[], &test_commands())
}

#[test]
fn a_node_that_is_as_configured_is_one_line() {
    let record = record();
    let found = judged(&record, Some((&record.plan, Path::new("/x"))));
    assert_eq!(found[0].severity, Severity::Ok);
    assert_eq!(found.len(), 1);
}

#[test]
fn a_configuration_that_changed_or_went_is_a_note() {
    let record = record();
    let mut changed = record.plan.clone();
    changed.masquerade = true;
    let found = judged(&record, Some((&changed, Path::new("/x"))));
    assert_eq!(found[0].severity, Severity::Note);
    assert_eq!(found[0].fix.as_deref(), Some("beeline load"));
    assert_eq!(judged(&record, None)[0].severity, Severity::Note);
}

#[test]
fn a_plain_bridge_matters_as_much_as_the_mode_says_and_anti_spoofing_more() {
    let mut record = off();
    for (mode, severity) in [
        (Mode::Auto, Severity::Warning),
        (Mode::Ebpf, Severity::Failure),
    ] {
        record.plan.datapath.mode = mode;
        let plan = record.plan.clone();
        let found = judged(&record, Some((&plan, Path::new("/x"))));
        assert_eq!(found[0].severity, severity);
        assert_eq!(found[0].fix.as_deref(), Some("beeline load"));
    }
    record.plan.datapath.anti_spoof = true;
    let plan = record.plan.clone();
    let found = judged(&record, Some((&plan, Path::new("/x"))));
    assert_eq!(found[1].severity, Severity::Failure);
}

#[test]
fn peers_that_are_not_reached_are_told_with_the_key() {
    let record = record();
    let at = Some((&record.plan, Path::new("/x")));
    for (problem, key) in [
        ("uplink \"eth9\": no such interface", "datapath.uplinks; "),
        (
            "peer 10.9.0.0/24: node 1.1.1.1: no route",
            "datapath.peers, ",
        ),
    ] {
        let problems = [problem.to_owned()];
        let found = judge(&record, at, &problems, &test_commands());
        assert_eq!(found[0].object, problem);
        assert!(
            found[0]
                .fix
                .as_ref()
                .is_some_and(|fix| fix.starts_with(key))
        );
    }
}

fn firewall(record: &Record, defeated: &[&str]) -> Finding {
    let facts = Netfilter {
        defeated: Some(defeated.iter().map(|rule| (*rule).to_owned()).collect()),
        nft: true,
        ..Netfilter::default()
    };
    let found = judge_netfilter(record, &facts, &test_commands());
    found.into_iter().next().unwrap()
}

#[test]
fn firewalls_are_told_as_they_stand_to_the_fast_path() {
    let fast = record();
    assert_eq!(firewall(&fast, &[]).severity, Severity::Ok);
    let later = firewall(&fast, &["drop"]);
    assert_eq!(
        (later.severity, &*later.object),
        (Severity::Warning, "drop")
    );
    let kept = Record {
        degraded: Some("a firewall".to_owned()),
        firewall: vec!["drop".to_owned()],
        ..record()
    };
    assert!(firewall(&kept, &["drop"]).message.starts_with("keeps"));
    assert!(firewall(&kept, &[]).message.ends_with("is gone"));
    let mut knowing = record();
    knowing.plan.datapath.mode = Mode::Ebpf;
    assert_eq!(firewall(&knowing, &["drop"]).severity, Severity::Note);
}

#[test]
fn a_cluster_that_the_table_has_otherwise_is_told_with_the_elements() {
    let judged = |missing: &[&str]| {
        let facts = Netfilter {
            nft: true,
            masquerades: Some(Ok(true)),
            cluster: Some(Difference {
                missing: missing.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            }),
            ..Netfilter::default()
        };
        let found = judge_netfilter(&record(), &facts, &test_commands());
        assert_eq!(found.len(), 1, "{found:#?}");
        (found[0].severity, found[0].fix.clone().unwrap())
    };
    let (severity, fix) = judged(&["10.244.2.0/24", "fd00:2::/64"]);
    assert_eq!(severity, Severity::Failure);
    assert_eq!(
        fix,
        "nft add element inet beeline-pods cluster4 '{ 10.244.2.0/24 }'; \
         nft add element inet beeline-pods cluster6 '{ fd00:2::/64 }'"
    );
    let more = (Severity::Warning, "beeline load".to_owned());
    assert_eq!(judged(&[]), more);
}

#[test]
fn peers_of_a_cluster_that_are_not_reached_are_told_with_the_agents_configuration() {
    let record = record();
    let at = Some((&record.plan, Path::new("/x")));
    for (backend, part) in [("kubernetes", "ConfigMap beeline"), ("etcd", "template")] {
        let commands = Commands {
            backend: Some(backend.to_owned()),
            ..test_commands()
        };
        let problems = ["peer 10.9.0.0/24: node 1.1.1.1: no route".to_owned()];
        let found = judge(&record, at, &problems, &commands);
        let fix = found[0].fix.as_deref().unwrap();
        assert!(fix.contains(part), "{fix}");
    }
}

#[test]
fn masquerading_needs_its_table_and_nft() {
    let judged = |nft, masquerades| {
        let facts = Netfilter {
            defeated: None,
            nft,
            masquerades,
            cluster: None,
        };
        let found = judge_netfilter(&record(), &facts, &test_commands());
        found.first().map(|finding| finding.severity)
    };
    assert_eq!(judged(true, Some(Ok(true))), Some(Severity::Ok));
    assert_eq!(judged(true, Some(Ok(false))), Some(Severity::Failure));
    assert_eq!(judged(false, Some(Ok(true))), Some(Severity::Failure));
    assert_eq!(judged(false, None), None);
}
