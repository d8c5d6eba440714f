//! Where beeline differs on purpose: from the reference plugin (BL in the specification), or from version 1.1.1 of it,
//! which is older than the specification.

use beeline_tests::picture::Difference;

use super::cases::Case;

/// A difference that is meant.
pub(super) struct Exemption {
    /// What differs, and why.
    pub(super) name: &'static str,
    /// Which differences that are.
    covers: fn(&Case, &Difference) -> bool,
    /// A case that shows it; if it does not, there is nothing to exempt any more.
    pub(super) seen_in: &'static str,
}

pub(super) const EXEMPTIONS: &[Exemption] = &[
    Exemption {
        name: "BL: a failed ADD leaves nothing; the reference leaves bridge, veth and files",
        covers: |case, difference| {
            let is_left =
                difference.name.starts_with("ADD: ") || difference.name.starts_with("DEL: ");
            case.fails && is_left && difference.second.is_none()
        },
        seen_in: "a_route_through_nowhere",
    },
    Exemption {
        name: "BL: CHECK succeeds for layer 2, for which the reference's always fails",
        covers: |case, difference| {
            case.name == "a_network_of_layer_2"
                && difference.name == "CHECK succeeds"
                && became(difference, "false", "true")
        },
        seen_in: "a_network_of_layer_2",
    },
    Exemption {
        name: "1.1.1: CHECK does not find a route that IPAM names without a gateway",
        covers: |case, difference| {
            case.name == "routes"
                && difference.name == "CHECK succeeds"
                && became(difference, "false", "true")
        },
        seen_in: "routes",
    },
    Exemption {
        name: "1.1.1: what IPAM says of name resolution is lost",
        covers: |case, difference| {
            case.name == "name_resolution_of_ipam"
                && difference.name.starts_with("ADD result.dns.")
                && difference.first.is_none()
        },
        seen_in: "name_resolution_of_ipam",
    },
    Exemption {
        name: "BL: one nftables table a network masquerades; the reference has iptables chains for each pod",
        covers: |case, difference| {
            case.name == "masquerade" && difference.name.ends_with(": rules")
        },
        seen_in: "masquerade",
    },
    Exemption {
        name: "1.1.1: files of addresses can be read by everybody",
        covers: |_, difference| {
            of(difference, "file /pods/")
                && changed(difference, |first| first.replacen("644", "600", 1))
        },
        seen_in: "addresses_without_a_gateway",
    },
    Exemption {
        name: "1.1.1: veths have no transmit queue length, instead of the kernel's default",
        covers: |_, difference| {
            has(difference, " link ")
                && difference.name.ends_with(".txqlen")
                && became(difference, "", "1000")
        },
        seen_in: "a_network_of_layer_2",
    },
    Exemption {
        name: "BL: the bridge's port has no IPv6 address of its own, and so sends pods no ND or MLD packets",
        covers: |_, difference| {
            let address = [
                " <port> <link-local>",
                "local <link-local> <port>",
                "fe80::/64 <port>",
                "anycast fe80:: <port>",
            ];
            let is_address = address.iter().any(|of_port| has(difference, of_port))
                && difference.second.is_none();
            is_address
                || difference
                    .name
                    .ends_with("sysctl <port> ipv6.addr_gen_mode")
                    && became(difference, "0", "1")
        },
        seen_in: "a_network_of_layer_2",
    },
    Exemption {
        name: "BL: a new bridge's addresses can be used at once: nobody can have others of a random MAC",
        covers: |_, difference| {
            has(difference, "node address v-net-0")
                && difference.name.ends_with(".nodad")
                && became(difference, "", "true")
        },
        seen_in: "two_families",
    },
    Exemption {
        name: "without enabledad the pod's addresses are marked as such that no duplicates are looked for of",
        covers: |_, difference| {
            has(difference, "pod address eth0 fd00:")
                && difference.name.ends_with(".nodad")
                && became(difference, "", "true")
        },
        seen_in: "two_families",
    },
    Exemption {
        name: "1.1.1: an interface that goes down loses its IPv6 addresses",
        covers: |_, difference| {
            difference
                .name
                .ends_with("sysctl eth0 ipv6.keep_addr_on_down")
                && became(difference, "0", "1")
        },
        seen_in: "two_families",
    },
    Exemption {
        name: "BL: an address is announced, as a former owner of it may be known; the reference does so for IPv4 only",
        covers: |_, difference| {
            difference.name.ends_with("sysctl eth0 ipv6.ndisc_notify")
                && became(difference, "0", "1")
        },
        seen_in: "two_families",
    },
];

/// The exemption that covers a difference.
pub(super) fn of_case(case: &Case, difference: &Difference) -> Option<&'static Exemption> {
    let mut all = EXEMPTIONS.iter();
    all.find(|exemption| (exemption.covers)(case, difference))
}

/// Whether it is about this, after whatever verb.
fn of(difference: &Difference, what: &str) -> bool {
    let after = difference.name.split_once(": ");
    after.is_some_and(|(_, name)| name.starts_with(what))
}

fn has(difference: &Difference, part: &str) -> bool {
    difference.name.contains(part)
}

/// Whether the reference has one value, or none if that is empty, and beeline the other.
fn became(difference: &Difference, first: &str, second: &str) -> bool {
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    (value(&difference.first), value(&difference.second)) == (first.to_owned(), second.to_owned())
}

fn changed(difference: &Difference, change: impl Fn(&str) -> String) -> bool {
    let first = difference.first.as_deref().map(change);
    first.is_some() && first == difference.second
}
