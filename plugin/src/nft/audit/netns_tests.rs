//! Audits of rule sets as they are found on nodes. Needs root, nft and iptables.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{bail, ensure};

use super::{
    rulesets::{DOCKER, HYPERVISOR, KUBE_PROXY, KUBE_PROXY_NFT, NETAVARK, REFERENCE_PLUGINS},
    *,
};
use crate::{net::testing::isolated, nft::Masquerade};

const OWN: &str = "10.244.1.0/24";

fn cidrs(text: &[&str]) -> Vec<IpNetwork> {
    text.iter()
        .map(|cidr| cidr.parse().expect("test cidr"))
        .collect()
}

fn run(program: &str, args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {error}: {input}");
    Ok(())
}

fn nft(script: &str) -> Result<()> {
    run("nft", &["-f", "-"], script)
}

fn iptables(script: &str) -> Result<()> {
    run("iptables-nft-restore", &["--noflush"], script)
}

/// What is found on a node with one peer.
fn found() -> Result<Vec<String>> {
    found_with(&[OWN, "fd00:1::/64"], &["10.244.2.0/24", "fd00:2::/64"])
}

fn found_with(pod_cidrs: &[&str], peers: &[&str]) -> Result<Vec<String>> {
    let scope = Scope {
        bridge: "cni0",
        uplinks: &["eth0".to_owned(), "bee.1".to_owned()],
        pod_cidrs: &cidrs(pod_cidrs),
        peers: &cidrs(peers),
    };
    let findings = audit(&scope)?;
    Ok(findings.iter().map(Finding::to_string).collect())
}

/// Each script in a namespace of its own is no danger to pods.
fn harmless(load: fn(&str) -> Result<()>, scripts: &[&str]) {
    for script in scripts {
        isolated(|| {
            load(script)?;
            let found = found()?;
            ensure!(found.is_empty(), "{script}: {found:#?}");
            Ok(())
        });
    }
}

/// Each script in a namespace of its own is found, by this one text; `…` is what nft's versions do not agree on.
fn harmful(load: fn(&str) -> Result<()>, scripts: &[(&str, &str)]) {
    for (script, expected) in scripts {
        isolated(|| {
            load(script)?;
            let found = found()?;
            let [text] = &found[..] else {
                bail!("{script}: {found:#?}");
            };
            let (start, end) = expected.split_once('…').unwrap_or((expected, ""));
            let fits = text.starts_with(start) && text.ends_with(end);
            ensure!(
                fits && (text == expected || !end.is_empty()),
                "{script}: {text}"
            );
            Ok(())
        });
    }
}

/// An nft table with one chain.
fn chain(family: &str, hook: &str, rules: &str) -> String {
    format!(
        "table {family} t {{\nchain c {{\ntype filter hook {hook} priority 0;\n{rules}\n}}\n}}\n"
    )
}

fn forward(rules: &str) -> Result<()> {
    nft(&chain("inet", "forward", rules))
}

fn filter(rules: &str) -> Result<()> {
    iptables(&format!("*filter\n{rules}\nCOMMIT\n"))
}

fn nat(rules: &str) -> Result<()> {
    iptables(&format!("*nat\n{rules}\nCOMMIT\n"))
}

#[test]
fn a_node_without_rules_or_with_what_pods_live_beside_has_nothing_to_find() {
    harmless(
        iptables,
        &["", KUBE_PROXY, REFERENCE_PLUGINS, DOCKER, HYPERVISOR],
    );
    harmless(nft, &[KUBE_PROXY_NFT, NETAVARK]);
    isolated(|| {
        for script in [KUBE_PROXY, REFERENCE_PLUGINS, DOCKER, HYPERVISOR] {
            iptables(script)?;
        }
        run(
            "ip6tables-nft-restore",
            &[],
            "*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n",
        )?;
        let pods = cidrs(&[OWN]);
        Masquerade { network: "pods" }.apply(&pods, &pods)?;
        let found = found()?;
        ensure!(found.is_empty(), "{found:#?}");
        Ok(())
    });
}

#[test]
fn a_policy_is_found_unless_all_that_pods_send_is_accepted_before() {
    isolated(|| {
        iptables(DOCKER)?;
        filter(":FORWARD DROP [0:0]")?;
        let expected = ["nftables ip filter FORWARD: policy drop can drop pods' packets"];
        assert_eq!(found()?, expected);
        filter(
            ":FLANNEL-FWD - [0:0]\n-A FORWARD -j FLANNEL-FWD\n-A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT\n\
             -A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT",
        )?;
        assert_eq!(found()?, [""; 0]);
        Ok(())
    });
    harmless(
        filter,
        &[
            ":FORWARD DROP [0:0]\n-A FORWARD -i cni0 -j ACCEPT\n-A FORWARD -o cni0 -j ACCEPT",
            ":INPUT DROP [0:0]\n:OUTPUT DROP [0:0]",
        ],
    );
    harmful(
        filter,
        &[
            (
                ":FORWARD DROP [0:0]\n-A FORWARD -i cni0 -j ACCEPT\n-A FORWARD -o cni0 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
                "nftables ip filter FORWARD: policy drop can drop pods' packets",
            ),
            (
                ":FORWARD DROP [0:0]\n:A - [0:0]\n-A FORWARD -g A\n-A FORWARD -j ACCEPT\n-A A -p tcp -j ACCEPT",
                "nftables ip filter FORWARD: policy drop can drop pods' packets",
            ),
        ],
    );
}

#[test]
fn a_rule_of_iptables_that_may_meet_a_pod_is_found() {
    let rule = "nftables ip filter FORWARD: rule";
    harmful(
        filter,
        &[
            (
                "-A FORWARD -s 10.244.1.5 -j DROP",
                &format!("{rule} \"ip saddr 10.244.1.5 counter drop\" can drop pods' packets"),
            ),
            (
                "-A FORWARD -p tcp -m multiport --dports 80,443 -j REJECT",
                &format!("{rule} \"…reject\" can drop pods' packets"),
            ),
            (
                "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"ct state invalid\" -j DROP",
                &format!("{rule} \"ct state new…drop\" can drop pods' packets"),
            ),
            (
                ":MINE - [0:0]\n-A FORWARD -j MINE\n-A MINE -s 10.244.1.9 -j RETURN\n-A MINE -o cni0 -j DROP",
                "nftables ip filter MINE: rule \"oifname \\\"cni0\\\" counter drop\" can drop pods' packets",
            ),
            (
                // kube-router's, which enforces network policies.
                ":KUBE-ROUTER-FORWARD - [0:0]\n:KUBE-POD-FW-A - [0:0]\n-A FORWARD -j KUBE-ROUTER-FORWARD\n\
                 -A KUBE-ROUTER-FORWARD -d 10.244.1.5 -j KUBE-POD-FW-A\n-A KUBE-POD-FW-A -m mark ! --mark 0x10000/0x10000 -j REJECT",
                "nftables ip filter KUBE-POD-FW-A: rule \"…reject\" can drop pods' packets",
            ),
        ],
    );
}

#[test]
fn rules_that_concern_others_or_only_look_are_not_found() {
    harmless(
        filter,
        &[
            "-A FORWARD -s 192.168.5.0/24 -j DROP\n-A FORWARD -d 192.168.5.0/24 -j REJECT",
            "-A FORWARD -s 10.244.2.0/24 -d 10.244.3.0/24 -j DROP",
            "-A FORWARD -m iprange --src-range 192.168.5.1-192.168.5.9 -j DROP",
            "-A FORWARD -i docker+ -j DROP\n-A FORWARD ! -i cni0 ! -o cni0 -j DROP",
            "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
            "-A FORWARD -m addrtype --dst-type LOCAL -j DROP",
            "-A FORWARD -j LOG\n-A FORWARD -j NFLOG\n-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
            "-A FORWARD -j ACCEPT\n-A FORWARD -j DROP",
        ],
    );
    harmless(
        forward,
        &[
            "iifname != { \"cni0\", \"eth0\", \"bee.1\" } drop",
            "meta iifname . meta oifname { \"docker0\" . \"eth0\" } drop",
            "ip saddr vmap { 192.168.0.0/16 : drop, 10.9.0.1 : drop }\nip6 saddr 2001:db8::/32 drop",
            "ct state vmap { invalid : drop, established : accept, related : accept }",
            "counter\nlog prefix \"x\"\nmeta mark set 1\nct mark set 1\nmeta pkttype broadcast drop",
            "ip saddr 10.244.1.0/24 return\nip saddr 10.244.2.0/24 accept\nip6 saddr fd00::/16 accept\ndrop",
        ],
    );
    let ingress = chain("netdev", "ingress device lo", "drop");
    let macspoofchk = "table bridge nat {\nchain cni-br-iface-a-eth0-mac {\nether saddr 02:00:00:00:00:01 return\ndrop\n}\n\
        chain cni-br-iface-a-eth0 {\njump cni-br-iface-a-eth0-mac\n}\n\
        chain PREROUTING {\ntype filter hook prerouting priority -300;\niifname veth1 jump cni-br-iface-a-eth0\n}\n}\n";
    let unrelated = chain(
        "bridge",
        "forward",
        "iifname \"tap*\" drop\nether type arp drop",
    );
    let input = chain("inet", "input", "drop");
    harmless(nft, &[&ingress, &unrelated, &input, macspoofchk]);
}

#[test]
fn rules_of_nft_are_found_in_every_family() {
    let drops = "can drop pods' packets";
    harmful(
        forward,
        &[
            (
                "ip saddr 10.244.1.5 drop",
                &format!("nftables inet t c: rule \"ip saddr 10.244.1.5 drop\" {drops}"),
            ),
            (
                "ip6 daddr fd00:2::5 reject",
                &format!(
                    "nftables inet t c: rule \"ip6 daddr fd00:2::5 reject with icmpv6 port-unreachable\" {drops}"
                ),
            ),
            (
                "ip daddr vmap { 10.9.0.1 : accept, 10.244.2.7 : drop }",
                &format!(
                    "nftables inet t c: rule \"ip daddr vmap {{ 10.9.0.1 : accept, 10.244.2.7 : drop }}\" {drops}"
                ),
            ),
            (
                "limit rate over 10/second drop",
                &format!("nftables inet t c: rule \"limit rate over 10/second…drop\" {drops}"),
            ),
            (
                "ip ttl set 3",
                "nftables inet t c: rule \"ip ttl set 3\" can change pods' packets",
            ),
        ],
    );
    let bridge = chain("bridge", "forward", "ip saddr 10.244.1.5 drop");
    let port = chain("bridge", "prerouting", "iifname \"veth0123456789a\" drop");
    let veth = "add table ip other\n";
    harmful(
        nft,
        &[
            (
                &bridge,
                &format!("nftables bridge t c: rule \"ip saddr 10.244.1.5 drop\" {drops}"),
            ),
            (
                &port,
                &format!(
                    "nftables bridge t c: rule \"iifname \\\"veth0123456789a\\\" drop\" {drops}"
                ),
            ),
            (
                &format!(
                    "{veth}{}",
                    chain("ip", "postrouting", "oifname \"eth0\" drop")
                ),
                &format!("nftables ip t c: rule \"oifname \\\"eth0\\\" drop\" {drops}"),
            ),
        ],
    );
}

#[test]
fn sets_are_read_unless_packets_change_them() {
    let table = |set: &str, rule: &str| {
        format!(
            "table inet t {{\nset s {{\ntype ipv4_addr; flags {set}\n}}\nchain c {{\ntype filter hook forward priority 0;\n{rule}\n}}\n}}\n"
        )
    };
    let rule = "ip saddr @s drop";
    let others = table("interval; elements = { 10.9.0.0/16, 192.168.1.1 }", rule);
    harmless(nft, &[&others]);
    let text = "nftables inet t c: rule \"ip saddr @s drop\" can drop pods' packets";
    let pods = table("interval; elements = { 10.9.0.0/16, 10.244.1.4/30 }", rule);
    let (expiring, dynamic) = (table("timeout;", rule), table("dynamic;", rule));
    harmful(nft, &[(&pods, text), (&expiring, text), (&dynamic, text)]);
}

#[test]
fn a_device_of_the_network_may_have_a_chain_of_its_own() {
    isolated(|| {
        run(
            "ip",
            &[
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                "veth00000000001",
            ],
            "",
        )?;
        nft(&chain(
            "netdev",
            "ingress device eth0",
            "ip saddr 10.244.2.5 drop",
        ))?;
        let expected =
            "nftables netdev t c: rule \"ip saddr 10.244.2.5 drop\" can drop pods' packets";
        assert_eq!(found()?, [expected]);
        nft("flush ruleset")?;
        nft(&chain(
            "netdev",
            "ingress device veth00000000001",
            "ip saddr 10.244.1.5 drop",
        ))?;
        assert_eq!(found()?.len(), 1);
        Ok(())
    });
}

#[test]
fn translation_is_found_only_where_it_surely_meets_pods() {
    harmless(
        nat,
        &[
            "-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE",
            "-A POSTROUTING -m mark --mark 0x8/0x8 -j MASQUERADE",
            "-A PREROUTING -d 10.96.0.0/12 -p tcp --dport 80 -j DNAT --to-destination 10.244.1.5",
            "-A POSTROUTING -s 192.168.122.0/24 -j MASQUERADE",
        ],
    );
    harmful(
        nat,
        &[
            (
                "-A POSTROUTING -s 10.244.1.0/24 -o eth0 -j MASQUERADE",
                "nftables ip nat POSTROUTING: rule \"oifname \\\"eth0\\\" ip saddr 10.244.1.0/24 counter masquerade\" can change pods' packets",
            ),
            (
                "-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080",
                "nftables ip nat PREROUTING: rule \"tcp dport 80 counter …can change pods' packets",
            ),
        ],
    );
}

#[test]
fn rules_of_iptables_before_nf_tables_are_found() {
    let load = |rules: &str| {
        run(
            "iptables-legacy-restore",
            &[],
            &format!("*filter\n{rules}\nCOMMIT\n"),
        )
    };
    harmless(
        load,
        &[
            "-A FORWARD -s 192.168.5.0/24 -j DROP\n-A FORWARD -m conntrack --ctstate INVALID -j DROP",
            ":FORWARD DROP [0:0]\n-A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j ACCEPT",
        ],
    );
    harmful(
        load,
        &[
            (
                "-A FORWARD -s 10.244.1.5 -j DROP",
                "iptables-legacy ip filter FORWARD: rule \"-s 10.244.1.5/32 -j DROP\" can drop pods' packets",
            ),
            (
                ":FORWARD DROP [0:0]\n-A FORWARD -p tcp -j ACCEPT",
                "iptables-legacy ip filter FORWARD: policy drop can drop pods' packets",
            ),
        ],
    );
}

#[test]
fn chains_and_tables_may_have_names_that_are_words_of_nft() {
    isolated(|| {
        let script = r#"{"nftables": [
            {"add": {"table": {"family": "ip", "name": "fwd"}}},
            {"add": {"chain": {"family": "ip", "table": "fwd", "name": "fwd", "type": "filter", "hook": "forward", "prio": 0}}},
            {"add": {"rule": {"family": "ip", "table": "fwd", "chain": "fwd", "expr": [{"drop": null}]}}}
        ]}"#;
        run("nft", &["-j", "-f", "-"], script)?;
        let expected = "nftables ip fwd fwd: rule \"{\\\"drop\\\":null}\" can drop pods' packets";
        assert_eq!(found()?, [expected]);
        Ok(())
    });
}

#[test]
fn the_generation_changes_with_the_rules_only() {
    isolated(|| {
        let first = generation()?;
        assert_eq!(generation()?, first);
        forward("accept")?;
        let second = generation()?;
        ensure!(second != first);
        found()?;
        assert_eq!(generation()?, second, "an audit changes nothing");
        Ok(())
    });
}

#[test]
fn only_what_the_fast_path_takes_is_looked_at() {
    isolated(|| {
        forward("oifname \"eth0\" drop")?;
        assert_eq!(found_with(&[OWN], &["10.244.2.0/24"])?.len(), 1);
        assert_eq!(found_with(&[OWN], &[])?, [""; 0], "no peers");
        nft("flush ruleset")?;
        forward("ip saddr 192.168.5.5 drop")?;
        assert_eq!(found_with(&[OWN], &[])?, [""; 0]);
        assert_eq!(found_with(&[], &[])?.len(), 1, "external IPAM gives any");
        Ok(())
    });
}

#[test]
fn both_families_of_iptables_are_looked_at() {
    for (program, backend) in [
        ("ip6tables-nft-restore", "nftables"),
        ("ip6tables-legacy-restore", "iptables-legacy"),
    ] {
        isolated(|| {
            run(program, &[], "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n")?;
            let expected =
                format!("{backend} ip6 filter FORWARD: policy drop can drop pods' packets");
            assert_eq!(found()?, [expected]);
            Ok(())
        });
    }
}

#[test]
fn a_table_that_cannot_be_read_says_why() {
    let finding = Finding {
        backend: "iptables-legacy",
        family: "ip".into(),
        table: "filter".into(),
        chain: String::new(),
        cause: Cause::Unreadable(
            "iptables-legacy-save: not found in PATH; install iptables".into(),
        ),
    };
    assert_eq!(
        finding.to_string(),
        "iptables-legacy ip filter: cannot be read: iptables-legacy-save: not found in PATH; install iptables"
    );
}
