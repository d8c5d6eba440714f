//! What others put into netfilter that is known to leave pod-to-pod packets alone, whatever it says.
//!
//! Names are spelled out: other firewalls share the prefixes. `KUBE-ROUTER-*`, `KUBE-POD-FW-*` and `KUBE-NWPLCY-*` are
//! network policies; `CNI-ADMIN` and `CNI-ISOLATION-*` belong to the `firewall` plugin.

/// kube-proxy's and the kubelet's: they concern Services, whose packets take the slow path, and invalid packets.
const KUBE: [&str; 17] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-NODE-PORT",
    "KUBE-POSTROUTING",
    "KUBE-FORWARD",
    "KUBE-FIREWALL",
    "KUBE-PROXY-FIREWALL",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-LOAD-BALANCER",
    "KUBE-MARK-MASQ",
    "KUBE-MARK-DROP",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-PROXY-CANARY",
    "KUBE-KUBELET-CANARY",
    "KUBE-IPTABLES-HINT",
];

/// kube-proxy's for one Service, and portmap's.
const PREFIXES: [&str; 9] = [
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-SEP-",
    "KUBE-EXT-",
    "KUBE-XLB-",
    "KUBE-FW-",
    "CNI-HOSTPORT-",
    "CNI-DN-",
    "CNI-SN-",
];

/// Whether a table is ours, kube-proxy's, or of the reference plugins.
pub(super) fn is_harmless_table(family: &str, table: &str) -> bool {
    match family {
        "inet" => table.starts_with("beeline-") || table == "cni_plugins_masquerade",
        "ip" | "ip6" => matches!(table, "kube-proxy" | "cni_hostport"),
        _ => false,
    }
}

/// Whether a chain that is no base chain is kube-proxy's, or of the reference plugins.
pub(super) fn is_harmless_chain(family: &str, chain: &str) -> bool {
    match family {
        "ip" | "ip6" => {
            KUBE.contains(&chain)
                || PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
                || chain.strip_prefix("CNI-").is_some_and(is_masquerade)
        }
        // macspoofchk drops forged source addresses, which the fast path leaves to the bridge.
        "bridge" => chain.starts_with("cni-br-iface-"),
        _ => false,
    }
}

/// The bridge plugin's chain for one pod ends with a part of a hash.
fn is_masquerade(rest: &str) -> bool {
    rest.len() == 24 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_policies_and_admins_chains_are_not_taken_for_kube_proxys_or_portmaps() {
        for chain in [
            "KUBE-ROUTER-FORWARD",
            "KUBE-POD-FW-ABCDEFGH",
            "KUBE-NWPLCY-DEFAULT",
            "CNI-ADMIN",
            "CNI-FORWARD",
            "CNI-ISOLATION-STAGE-2",
            "DOCKER-USER",
        ] {
            assert!(!is_harmless_chain("ip", chain), "{chain}");
        }
        for chain in [
            "KUBE-FORWARD",
            "KUBE-SVC-NPX46M4PTMTKRN6Y",
            "CNI-HOSTPORT-DNAT",
            "CNI-0123456789abcdef01234567",
        ] {
            assert!(is_harmless_chain("ip6", chain), "{chain}");
            assert!(!is_harmless_chain("inet", chain), "{chain}");
        }
    }
}
