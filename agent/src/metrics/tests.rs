//! What a scrape says, without a node.

use anyhow::anyhow;
use beeline::cni::{Command, NetConf};
use serde_json::json;

use super::{exposition::Exposition, *};

/// Metrics in which something of everything has happened that needs no node.
pub(super) fn eventful() -> Metrics {
    let metrics = Metrics::new();
    metrics.set_backend_up(true);
    metrics.set_cluster(3, 1);
    metrics.reconciled(Duration::from_millis(20), &Ok::<_, anyhow::Error>(()));
    metrics.reconciled(Duration::from_millis(700), &Err::<(), _>(anyhow!("no")));
    metrics.repaired("route", 2);
    metrics.collected(2, 3);
    metrics.called(&told("pods", "ADD", false));
    metrics.ignored(Ignored::Version);
    metrics
}

fn told(network: &str, command: &str, failed: bool) -> Told {
    Told {
        network: network.to_owned(),
        command: command.to_owned(),
        micros: 12_000,
        failed,
    }
}

fn scrape(metrics: &Metrics) -> Exposition {
    Exposition::parse(&metrics.encode().unwrap())
}

#[test]
fn every_family_is_described_and_has_a_prefix() {
    let exposition = scrape(&eventful());
    assert!(exposition.families().len() > 20);
    for (name, family) in exposition.families() {
        assert!(
            family.help.len() > 10 && family.help.ends_with('.'),
            "{name}: {family:?}"
        );
        assert!(!family.help.ends_with(".."), "{name}: {family:?}");
        let known = name.starts_with("beeline_") || name.starts_with("process_");
        assert!(known, "{name}");
    }
}

#[test]
fn what_the_agent_does_is_counted() {
    let exposition = scrape(&eventful());
    for (series, value) in [
        ("beeline_backend_up", 1.0),
        ("beeline_cluster_nodes", 3.0),
        ("beeline_cluster_problems", 1.0),
        (r#"beeline_reconciles_total{result="ok"}"#, 1.0),
        (r#"beeline_reconciles_total{result="error"}"#, 1.0),
        (r#"beeline_reconcile_seconds_bucket{le="0.025"}"#, 1.0),
        (r#"beeline_reconcile_seconds_bucket{le="+Inf"}"#, 2.0),
        ("beeline_reconcile_seconds_sum", 0.72),
        (r#"beeline_repairs_total{kind="route"}"#, 2.0),
        (r#"beeline_collected_total{kind="attachment"}"#, 2.0),
        (r#"beeline_collected_total{kind="address"}"#, 3.0),
        (r#"beeline_cni_ignored_total{reason="version"}"#, 1.0),
        (r#"beeline_cni_ignored_total{reason="malformed"}"#, 0.0),
    ] {
        assert_eq!(exposition.value(series), value, "{series}");
    }
    let call = r#"beeline_cni_seconds_count{network="pods",command="ADD",result="ok"}"#;
    assert_eq!(exposition.value(call), 1.0);
    assert!(now() - exposition.value("beeline_last_sync_timestamp_seconds") < 60.0);
}

#[test]
fn an_agent_that_has_done_nothing_tells_so() {
    let exposition = scrape(&Metrics::new());
    assert_eq!(exposition.value("beeline_last_sync_timestamp_seconds"), 0.0);
    assert_eq!(
        exposition.value(r#"beeline_reconciles_total{result="error"}"#),
        0.0
    );
    assert!(exposition.value("process_resident_memory_bytes") > 0.0);
    assert!(exposition.value("process_cpu_seconds_total") >= 0.0);
}

#[test]
fn a_failure_is_no_sync() {
    let metrics = Metrics::new();
    metrics.reconciled(Duration::ZERO, &Err::<(), _>(anyhow!("no")));
    let synced = scrape(&metrics).value("beeline_last_sync_timestamp_seconds");
    assert_eq!(synced, 0.0);
}

#[test]
fn networks_without_end_make_series_of_which_there_is_an_end() {
    let metrics = Metrics::new();
    for number in 0..1_000 {
        metrics.called(&told(&format!("net{number}"), "ADD", false));
    }
    let exposition = scrape(&metrics);
    let series = |network: &str| {
        format!(r#"beeline_cni_seconds_count{{network="{network}",command="ADD",result="ok"}}"#)
    };
    assert_eq!(exposition.value(&series("net31")), 1.0);
    assert!(!exposition.has(&series("net32")));
    assert_eq!(exposition.value(&series("other")), 968.0);
}

#[test]
fn a_network_of_which_nothing_is_there_yet_is_down_and_empty() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let conf = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "beeline",
        "ipam": {
            "type": "host-local", "subnet": "10.244.1.0/24", "dataDir": folder.path(),
        },
        "datapath": { "stateDir": "/run/beeline-never-there", "bpffsDir": folder.path() },
    });
    let conf = NetConf::parse(conf.to_string().into(), Command::Add).unwrap();
    metrics.set_network(Network::of(&conf));
    let exposition = scrape(&metrics);
    let range = r#"{network="pods",range="10.244.1.1-10.244.1.254"}"#;
    assert_eq!(
        exposition.value(r#"beeline_datapath_up{network="pods"}"#),
        0.0
    );
    for path in ["fast", "slow"] {
        let series = format!(r#"beeline_pods{{network="pods",path="{path}"}}"#);
        assert_eq!(exposition.value(&series), 0.0);
    }
    assert_eq!(
        exposition.value(&format!("beeline_ipam_addresses{range}")),
        0.0
    );
    assert_eq!(
        exposition.value(&format!("beeline_ipam_capacity{range}")),
        253.0
    );
}

#[test]
fn where_the_fast_path_is_not_wanted_it_is_not_missed() {
    let metrics = Metrics::new();
    let conf = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "beeline",
        "datapath": { "mode": "bridge", "stateDir": "/run/beeline-never-there" },
    });
    let conf = NetConf::parse(conf.to_string().into(), Command::Add).unwrap();
    metrics.set_network(Network::of(&conf));
    assert!(!scrape(&metrics).has(r#"beeline_datapath_up{network="pods"}"#));
}
