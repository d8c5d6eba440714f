//! What the node was set up for, what did not work then, and what stands in the way of the fast path now.

use std::path::Path;

use super::finding::{Commands, Finding, Severity, commands as several, names, or_ok};
use crate::{
    datapath::config::Mode,
    nft::{self, Difference},
    node::{Plan, Record},
};

const CHECK: &str = "network";
const FIREWALL: &str = "firewall";
const MASQUERADE: &str = "masquerade";

/// What the kernel and the node's programs say of netfilter.
#[derive(Debug, Default)]
pub(super) struct Netfilter {
    /// What the fast path would defeat now; none if it was not looked for.
    pub(super) defeated: Option<Vec<String>>,
    /// Whether `nft` is installed.
    pub(super) nft: bool,
    /// Whether the network's masquerading is as it should be, or why that cannot be told; none without `ipMasq`.
    pub(super) masquerades: Option<Result<bool, String>>,
    /// How the cluster's CIDRs in it differ from those that there are.
    pub(super) cluster: Option<Difference>,
}

/// How much it matters to a network that it has no fast path.
pub(super) fn severity(mode: Mode) -> Severity {
    match mode {
        Mode::Ebpf => Severity::Failure,
        Mode::Auto => Severity::Warning,
        Mode::Bridge => Severity::Note,
    }
}

/// Judges how the node was set up; `configured` is what its configuration says now, and where.
pub(super) fn judge(
    record: &Record,
    configured: Option<(&Plan, &Path)>,
    problems: &[String],
    commands: &Commands,
) -> Vec<Finding> {
    let plan = &record.plan;
    let mode = plan.datapath.mode;
    let object = format!("bridge {}", plan.bridge.name);
    let load = &commands.load;
    let say = |severity, message: String, fix: &str| {
        Finding::new(CHECK, severity, &*object, message, fix)
    };
    let mut found = Vec::new();
    match configured {
        Some((now, path)) if now != plan => {
            let message = format!(
                "{} has changed since the node was set up; the next ADD sets it up anew",
                path.display()
            );
            found.push(say(Severity::Note, message, load));
        }
        Some(_) => {}
        None => {
            let message = "is set up, but no configuration has this network any more".to_owned();
            let fix = format!("its conflist, or {}", commands.unload);
            found.push(say(Severity::Note, message, &fix));
        }
    }
    if let Some(reason) = record
        .degraded
        .as_ref()
        .filter(|_| record.firewall.is_empty())
    {
        let message = format!("all pods are on the plain bridge: {reason}");
        found.push(match plan.bars_fast_path() {
            Some(_) => say(
                Severity::Note,
                message,
                "datapath.mode: \"bridge\" says so too",
            ),
            None => say(severity(mode), message, load),
        });
    }
    if let Some(unmet) = record.unmet() {
        found.push(say(Severity::Failure, unmet.to_owned(), load));
    }
    if !problems.is_empty() {
        let uplinks = problems.iter().any(|problem| problem.starts_with("uplink"));
        let keys = if uplinks {
            "datapath.uplinks"
        } else {
            commands.peers_key()
        };
        found.push(Finding::new(
            CHECK,
            Severity::Failure,
            names(problems),
            "these are not reached",
            format!("{keys}; then {load}"),
        ));
    }
    let ok = format!("is set up as configured, mode {}", name(mode));
    or_ok(found, Finding::ok(CHECK, object.clone(), ok))
}

const fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "auto",
        Mode::Ebpf => "ebpf",
        Mode::Bridge => "bridge",
    }
}

/// Judges netfilter: firewalls that the fast path would pass by, and masquerading.
pub(super) fn judge_netfilter(
    record: &Record,
    facts: &Netfilter,
    commands: &Commands,
) -> Vec<Finding> {
    let mut found = masquerade(record, facts, commands);
    let Some(defeated) = &facts.defeated else {
        return found;
    };
    let load = &commands.load;
    let fast = record.is_fast();
    let knowingly = record.plan.datapath.mode == Mode::Ebpf;
    let say = |severity, message: &str, fix: &str| {
        Finding::new(FIREWALL, severity, names(defeated), message, fix)
    };
    let allow = format!("remove what it names, or datapath.mode: \"ebpf\"; then {load}");
    found.push(match (defeated.is_empty(), record.firewall.is_empty()) {
        (true, true) => Finding::ok(
            FIREWALL,
            "netfilter",
            "has nothing that the fast path would defeat",
        ),
        (true, false) if !fast => Finding::new(
            FIREWALL,
            Severity::Warning,
            names(&record.firewall),
            "kept the pods on the plain bridge, and is gone",
            &**load,
        ),
        (true, false) => Finding::ok(
            FIREWALL,
            "netfilter",
            "has nothing any more that the fast path defeats",
        ),
        (false, _) if knowingly && fast => say(
            Severity::Note,
            "is passed by, as datapath.mode \"ebpf\" says",
            "datapath.mode: \"auto\" honours it",
        ),
        (false, true) if fast => say(
            Severity::Warning,
            "came after the fast path, which passes it by until the next pod comes",
            &allow,
        ),
        (false, _) => say(
            Severity::Warning,
            "keeps all pods on the plain bridge",
            &allow,
        ),
    });
    found
}

fn masquerade(record: &Record, facts: &Netfilter, commands: &Commands) -> Vec<Finding> {
    let table = format!("nftables table inet beeline-{}", record.plan.network);
    let install = format!("install the package nftables, then {}", commands.load);
    let say = |severity, message: String, fix: &str| {
        Finding::new(MASQUERADE, severity, &*table, message, fix)
    };
    let mut found = Vec::new();
    if !facts.nft && (facts.masquerades.is_some() || facts.defeated.is_some()) {
        let severity = match facts.masquerades {
            Some(_) => Severity::Failure,
            None => Severity::Warning,
        };
        let message = "is not there: ipMasq and the look for firewalls need it";
        found.push(Finding::new(
            MASQUERADE, severity, "nft", message, &*install,
        ));
    }
    let bare_load = match record.plan.datapath.mode == Mode::Bridge || record.off {
        true => "add a pod: the next ADD writes it",
        false => &commands.load,
    };
    let load = commands.drifted(bare_load);
    match &facts.masquerades {
        Some(Ok(true)) if let Some(differs) = &facts.cluster => {
            found.push(unlike_cluster(&record.plan.network, differs, bare_load));
        }
        Some(Ok(true)) if found.is_empty() => {
            found.push(Finding::ok(MASQUERADE, table.clone(), "is as it should be"));
        }
        Some(Ok(false)) => found.push(say(
            Severity::Failure,
            "is missing, or of other networks: pods do not reach the outside".to_owned(),
            &load,
        )),
        Some(Err(error)) => found.push(say(Severity::Warning, error.clone(), &install)),
        Some(Ok(true)) | None => {}
    }
    found
}

/// Masquerading that treats other CIDRs as the cluster's than there are. Only what goes over the table tells.
fn unlike_cluster(network: &str, differs: &Difference, load: &str) -> Finding {
    let table = format!("nftables table inet beeline-{network}");
    let missing = &differs.missing;
    if missing.is_empty() {
        let message = "masquerades less than it should: some CIDRs in its sets cluster4 and cluster6 are no peers'";
        return Finding::new(MASQUERADE, Severity::Warning, table, message, load);
    }
    let cidrs: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let add = missing.iter().map(|cidr| {
        let set = nft::cluster_set(cidr.is_ipv4());
        format!("nft add element inet beeline-{network} {set} '{{ {cidr} }}'")
    });
    Finding::new(
        MASQUERADE,
        Severity::Failure,
        format!("peers {}", names(&cidrs)),
        format!("are not in the sets of {table}: these see pods of this node under its address"),
        match missing.len() {
            0..=10 => several(add),
            _ => load.to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
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
}
