//! Round trips through nft and the kernel. Needs root and nft.

use std::process::Command;

use anyhow::ensure;

use super::*;
use crate::net::testing::isolated;

fn networks(text: &[&str]) -> Vec<IpNetwork> {
    text.iter()
        .map(|cidr| cidr.parse().expect("test cidr"))
        .collect()
}

/// What `nft` says with runs of spaces made one.
fn nft(args: &[&str]) -> Result<String> {
    let output = Command::new("nft").args(args).output()?;
    ensure!(
        output.status.success(),
        "nft {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" "))
}

#[test]
fn the_table_masquerades_pods_but_not_within_the_cluster() {
    isolated(|| {
        let masquerade = Masquerade { network: "pods" };
        masquerade.apply(
            &networks(&["10.244.1.0/24", "fd00:1::/64"]),
            &networks(&["10.244.0.0/16", "fd00::/16"]),
        )?;
        let table = nft(&["list", "table", "inet", "beeline-pods"])?;
        for expected in [
            "set pods4 { type ipv4_addr flags interval elements = { 10.244.1.0/24 } }",
            "set pods6 { type ipv6_addr flags interval elements = { fd00:1::/64 } }",
            "set cluster4 { type ipv4_addr flags interval elements = { 10.244.0.0/16 } }",
            "set cluster6 { type ipv6_addr flags interval elements = { fd00::/16 } }",
            "type nat hook postrouting priority srcnat; policy accept;",
            "ip saddr @pods4 ip daddr != @cluster4 ip daddr != 224.0.0.0/4 masquerade comment \"beeline:",
            "ip6 saddr @pods6 ip6 daddr != @cluster6 ip6 daddr != ff00::/8 masquerade comment \"beeline:",
        ] {
            ensure!(table.contains(expected), "no {expected:?} in {table}");
        }
        Ok(())
    });
}

#[test]
fn applying_again_replaces_the_cidrs_and_keeps_single_pods() {
    isolated(|| {
        let masquerade = Masquerade { network: "pods" };
        let (old, new) = (
            networks(&["10.244.1.0/24"]),
            networks(&["10.244.0.0/16", "10.244.1.0/24"]),
        );
        masquerade.apply(&old, &old)?;
        for ip in ["10.9.9.9/24", "fd09::9/64"] {
            masquerade.add_pod(ip.parse()?)?;
            masquerade.add_pod(ip.parse()?)?;
        }
        masquerade.apply(&new, &[])?;
        let once = nft(&["list", "table", "inet", "beeline-pods"])?;
        masquerade.apply(&new, &[])?;
        assert_eq!(nft(&["list", "table", "inet", "beeline-pods"])?, once);
        ensure!(
            once.contains(
                "set pods4 { type ipv4_addr flags interval elements = { 10.244.0.0/16 } }"
            ),
            "{once}"
        );
        ensure!(
            once.contains("set cluster4 { type ipv4_addr flags interval }"),
            "{once}"
        );
        ensure!(
            once.contains("set addresses4 { type ipv4_addr elements = { 10.9.9.9 } }"),
            "{once}"
        );
        ensure!(
            once.contains("set addresses6 { type ipv6_addr elements = { fd09::9 } }"),
            "{once}"
        );
        for subnets in [
            "set subnets4 { type ipv4_addr . ipv4_addr flags interval elements = { 10.9.9.9 . 10.9.9.0/24 } }",
            "set subnets6 { type ipv6_addr . ipv6_addr flags interval elements = { fd09::9 . fd09::/64 } }",
            "ip daddr != 224.0.0.0/4 ip saddr . ip daddr != @subnets4 masquerade",
        ] {
            ensure!(once.contains(subnets), "no {subnets:?} in {once}");
        }
        assert_eq!(once.matches("masquerade").count(), 4);
        Ok(())
    });
}

#[test]
fn a_single_pod_can_be_removed_twice() {
    isolated(|| {
        let masquerade = Masquerade { network: "pods" };
        masquerade.remove_pod("10.9.9.9/24".parse()?)?;
        masquerade.apply(&networks(&["10.244.1.0/24"]), &[])?;
        masquerade.add_pod("10.9.9.9/24".parse()?)?;
        masquerade.remove_pod("10.9.9.9/24".parse()?)?;
        masquerade.remove_pod("10.9.9.9/24".parse()?)?;
        let table = nft(&["list", "table", "inet", "beeline-pods"])?;
        ensure!(!table.contains("10.9.9"), "{table}");
        Ok(())
    });
}

#[test]
fn a_single_pod_can_be_removed_from_a_table_that_an_older_version_made() {
    isolated(|| {
        nft(&["add table inet beeline-pods; \
             add set inet beeline-pods addresses4 { type ipv4_addr; elements = { 10.9.9.9 }; }"])?;
        Masquerade { network: "pods" }.remove_pod("10.9.9.9/24".parse()?)?;
        let table = nft(&["list", "table", "inet", "beeline-pods"])?;
        ensure!(!table.contains("10.9.9"), "{table}");
        Ok(())
    });
}

#[test]
fn any_network_name_that_cni_allows_names_a_table() {
    isolated(|| {
        let long = "n".repeat(200);
        for network in ["k8s-pod_net.1", "0", "a.b-c_d", "table", &long] {
            let masquerade = Masquerade { network };
            ensure!(!masquerade.exists()?);
            masquerade.apply(&networks(&["10.244.1.0/24"]), &[])?;
            ensure!(masquerade.exists()?);
            nft(&["-j", "list", "table", "inet", &format!("beeline-{network}")])?;
        }
        let others = nft(&["list", "tables"])?.matches("beeline-").count();
        assert_eq!(others, 5);
        Ok(())
    });
}

#[test]
fn what_is_applied_is_known_without_nft() {
    isolated(|| {
        let masquerade = Masquerade { network: "pods" };
        let (pods, cluster) = (networks(&["10.244.1.0/24"]), networks(&["10.244.0.0/16"]));
        ensure!(!masquerade.is_applied(&pods, &cluster)?);
        masquerade.apply(&pods, &cluster)?;
        ensure!(masquerade.is_applied(&pods, &cluster)?);
        ensure!(!masquerade.is_applied(&pods, &[])?);
        masquerade.apply(&pods, &[])?;
        ensure!(masquerade.is_applied(&pods, &[])? && !masquerade.is_applied(&pods, &cluster)?);
        nft(&["flush", "ruleset"])?;
        ensure!(!masquerade.is_applied(&pods, &[])?);
        Ok(())
    });
}

#[test]
fn a_table_can_be_deleted_twice_and_leaves_other_networks_alone() {
    isolated(|| {
        let (one, other) = (
            Masquerade { network: "one" },
            Masquerade { network: "other" },
        );
        for masquerade in [one, other] {
            masquerade.apply(&networks(&["10.244.1.0/24"]), &[])?;
        }
        one.delete()?;
        one.delete()?;
        ensure!(!one.exists()? && other.exists()?);
        Ok(())
    });
}

#[test]
fn a_pod_without_a_table_is_an_error_that_quotes_nft() {
    isolated(|| {
        let error = Masquerade { network: "none" }
            .add_pod("10.9.9.9/24".parse()?)
            .unwrap_err();
        let text = format!("{error:#}");
        ensure!(
            text.starts_with(
                "nftables table \"beeline-none\": add 10.9.9.9/24: nft: exit status: 1: "
            ),
            "{text}"
        );
        ensure!(text.contains("No such file or directory"), "{text}");
        Ok(())
    });
}

const CHECK: MacCheck<'_> = MacCheck {
    container_id: "c",
    ifname: "eth0",
};
const MAC: &str = "02:00:00:00:00:0a";

#[test]
fn frames_from_a_port_need_the_pods_mac() {
    isolated(|| {
        CHECK.delete()?;
        CHECK.apply("veth0", MAC)?;
        ensure!(CHECK.exists()? && CHECK.is_applied("veth0", MAC)?);
        let table = nft(&["list", "table", "bridge", "nat"])?;
        for expected in [
            "chain PREROUTING { type filter hook prerouting priority dstnat; policy accept; \
             iifname \"veth0\" jump cni-br-iface-c-eth0 comment \"macspoofchk-c-eth0\" }",
            "chain cni-br-iface-c-eth0 { jump cni-br-iface-c-eth0-mac comment \"macspoofchk-c-eth0\" }",
            "chain cni-br-iface-c-eth0-mac { ether saddr 02:00:00:00:00:0a return comment \"macspoofchk-c-eth0\" \
             drop comment \"macspoofchk-c-eth0\" }",
        ] {
            ensure!(table.contains(expected), "no {expected:?} in {table}");
        }
        Ok(())
    });
}

#[test]
fn a_check_can_be_replaced_and_deleted_twice_and_leaves_others_alone() {
    isolated(|| {
        let other = MacCheck {
            container_id: "c",
            ifname: "eth1",
        };
        other.apply("veth1", MAC)?;
        let before = nft(&["list", "ruleset"])?;
        CHECK.apply("veth9", "02:00:00:00:00:0b")?;
        CHECK.apply("veth0", MAC)?;
        ensure!(CHECK.is_applied("veth0", MAC)?);
        ensure!(!nft(&["list", "ruleset"])?.contains("veth9"));
        CHECK.delete()?;
        CHECK.delete()?;
        ensure!(!CHECK.exists()? && other.is_applied("veth1", MAC)?);
        assert_eq!(nft(&["list", "ruleset"])?, before);
        Ok(())
    });
}

#[test]
fn a_check_that_someone_changed_is_not_applied_any_more() {
    isolated(|| {
        ensure!(!CHECK.is_applied("veth0", MAC)?);
        let chain = ["bridge", "nat", "cni-br-iface-c-eth0-mac"];
        let base = ["bridge", "nat", "PREROUTING"];
        let changes: [&[&[&str]]; 3] = [
            &[&["flush", "chain"], &chain],
            &[&["insert", "rule"], &chain, &["accept"]],
            &[&["flush", "chain"], &base],
        ];
        for change in changes {
            CHECK.apply("veth0", MAC)?;
            ensure!(CHECK.is_applied("veth0", MAC)?);
            nft(&change.concat())?;
            ensure!(!CHECK.is_applied("veth0", MAC)?, "{change:?}");
            ensure!(!CHECK.is_applied("veth1", MAC)?);
        }
        CHECK.delete()
    });
}

#[test]
fn any_id_that_cni_allows_names_a_check() {
    isolated(|| {
        let long = "c".repeat(200);
        for (container_id, ifname) in [
            (&*long, "eth0"),
            ("a.b-c_d", "e\"th*0"),
            ("0", "ééé"),
            ("c", "@x{}"),
        ] {
            let check = MacCheck {
                container_id,
                ifname,
            };
            check.apply("veth0", MAC)?;
            ensure!(check.is_applied("veth0", MAC)?, "{check:?}");
            check.delete()?;
            ensure!(!check.exists()?, "{check:?}");
        }
        Ok(())
    });
}
