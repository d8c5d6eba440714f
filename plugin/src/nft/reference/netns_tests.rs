//! The reference plugin's masquerading by all its means, beside that of others. Needs root, nft and iptables.

use std::process::Command;

use anyhow::ensure;

use super::*;
use crate::net::testing::isolated;

const NETWORK: ReferenceMasquerade<'_> = ReferenceMasquerade { network: "pods" };

const OTHER: ReferenceMasquerade<'_> = ReferenceMasquerade { network: "others" };

fn owner(container_id: &str) -> Owner<'_> {
    Owner {
        container_id,
        ifname: "eth0",
    }
}

fn run(command: &str) -> Result<String> {
    let words = shlex::split(command).context("split")?;
    let output = Command::new(&words[0]).args(&words[1..]).output()?;
    ensure!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// What the plugin does for a pod, by one of iptables' programs.
fn by_iptables(program: &str, of: ReferenceMasquerade<'_>, id: &str, ip: &str) -> Result<()> {
    let chain = of.chain(&owner(id));
    let comment = format!(
        r#"-m comment --comment 'name: "{}" id: "{id}"'"#,
        of.network
    );
    for command in [
        format!("-N {chain}"),
        format!("-A {chain} {comment} -j MASQUERADE"),
        format!("-A POSTROUTING -s {ip} {comment} -j {chain}"),
    ] {
        run(&format!("{program} -t nat {command}"))?;
    }
    Ok(())
}

/// The same by nftables, as plugins 1.6 and later can.
fn by_nftables(of: ReferenceMasquerade<'_>, id: &str, ip: &str) -> Result<()> {
    let comment = format!(
        "{}, net: {}, if: eth0, id: {id}",
        of.instance(&owner(id)),
        of.network
    );
    run(&format!("nft add table inet {TABLE}"))?;
    run(&format!("nft add chain inet {TABLE} {CHAIN}"))?;
    run(&format!(
        "nft 'add rule inet {TABLE} {CHAIN} ip saddr {ip} masquerade comment \"{comment}\"'"
    ))?;
    Ok(())
}

/// Which container IDs the rules of all kinds name.
fn left() -> Result<String> {
    let mut left = String::new();
    for (kind, list) in [
        ("nft", "iptables-nft-save -t nat"),
        ("nft6", "ip6tables-nft-save -t nat"),
        ("legacy", "iptables-legacy-save -t nat"),
        ("table", &format!("nft list chain inet {TABLE} {CHAIN}")),
    ] {
        let listed = run(list)?.replace('\\', "");
        for id in ["one", "two", "three"] {
            if listed.contains(&format!("id: \"{id}\"")) || listed.contains(&format!("id: {id}")) {
                write!(left, "{kind} {id}, ")?;
            }
        }
        // A chain without rules is one all the same.
        let chains = listed.lines().filter(|line| line.starts_with(":CNI-"));
        write!(left, "{} chains; ", chains.count())?;
    }
    Ok(left)
}

#[test]
fn what_the_reference_plugin_made_is_found_and_that_of_others_left_alone() {
    isolated(|| {
        for (of, id, ip) in [
            (NETWORK, "one", "10.9.0.1"),
            (NETWORK, "two", "10.9.0.2"),
            (OTHER, "three", "10.9.0.3"),
        ] {
            by_iptables("iptables-nft", of, id, ip)?;
            by_iptables("iptables-legacy", of, id, ip)?;
            by_nftables(of, id, ip)?;
        }
        by_iptables("ip6tables-nft", NETWORK, "one", "fd00::1")?;
        NETWORK.delete(&owner("unknown"))?;
        let all = left()?;
        assert!(
            all.contains("nft one, nft two, nft three, 3 chains"),
            "{all}"
        );

        NETWORK.delete(&owner("one"))?;
        NETWORK.delete(&owner("one"))?;
        assert_eq!(
            left()?,
            "nft two, nft three, 2 chains; 0 chains; legacy two, legacy three, 2 chains; \
             table two, table three, 0 chains; "
        );
        NETWORK.retain(&[owner("two")])?;
        assert!(left()?.contains("nft two"), "a pod that is listed");
        NETWORK.retain(&[])?;
        assert_eq!(
            left()?,
            "nft three, 1 chains; 0 chains; legacy three, 1 chains; table three, 0 chains; "
        );
        OTHER.retain(&[])?;
        Ok(())
    });
}

#[test]
fn where_nothing_is_nothing_is_deleted() {
    isolated(|| {
        NETWORK.delete(&owner("one"))?;
        NETWORK.retain(&[])
    });
}
