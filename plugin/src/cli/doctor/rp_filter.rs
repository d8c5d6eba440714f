//! Reverse path filtering: whether the kernel drops what comes by another link than the way back.

use super::{
    finding::{Finding, Severity, names, or_ok},
    sysctls::dotted,
};
use crate::net::{link::Link, sysctl};

const CHECK: &str = "rp_filter";

/// A link, as this check sees it.
#[derive(Debug)]
pub(super) struct Filtered {
    /// What it is to the network: `uplink`, `bridge`, `overlay`; none for a pod's host veth.
    pub(super) role: Option<&'static str>,
    pub(super) name: String,
    /// Its own setting.
    pub(super) value: i32,
}

impl Filtered {
    /// What is known of a link; none if the kernel does not say how it treats IPv4.
    pub(super) fn of(role: Option<&'static str>, link: &Link) -> Option<Self> {
        Some(Self {
            role,
            name: link.name.clone(),
            value: link.ipv4?.rp_filter,
        })
    }
}

/// The setting for all links.
pub(super) fn of_all() -> i32 {
    let value = sysctl::get("net/ipv4/conf/all/rp_filter").ok();
    value.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Judges reverse path filtering: of a link's setting and that for all, the kernel takes the larger.
pub(super) fn judge(all: i32, links: &[Filtered]) -> Vec<Finding> {
    let is_strict = |link: &&Filtered| all.max(link.value) == 1;
    let set = |name: &str| dotted(&format!("net/ipv4/conf/{name}/rp_filter"));
    let why = if all == 1 {
        " by net.ipv4.conf.all.rp_filter"
    } else {
        ""
    };
    let mut found = Vec::new();
    let (named, veths): (Vec<_>, Vec<_>) = links
        .iter()
        .filter(is_strict)
        .partition(|link| link.role.is_some());
    for link in named {
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            format!("{} {}", link.role.unwrap_or_default(), link.name),
            format!(
                "is strict (1){why}: drops packets whose way back is another link; systemd since 245 sets it on new links"
            ),
            format!("sysctl -w {}=2", set(&link.name)),
        ));
    }
    if !veths.is_empty() {
        let veth_names: Vec<String> = veths.iter().map(|link| link.name.clone()).collect();
        let keys = veth_names.iter().take(10).map(|name| set(name) + "=2");
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            format!("host veths {}", names(&veth_names)),
            format!("are strict (1){why}; systemd since 245 sets it on new links"),
            format!(
                "sysctl -w net.ipv4.conf.default.rp_filter=2 {}",
                keys.collect::<Vec<_>>().join(" ")
            ),
        ));
    }
    let ok = format!("strict on none of {} links", links.len());
    or_ok(found, Finding::ok(CHECK, "reverse path filter", ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_both_rp_filters_counts() {
        let link = |role, name: &str, value| Filtered {
            role,
            name: name.to_owned(),
            value,
        };
        let links = |value| {
            vec![
                link(Some("uplink"), "eth0", value),
                link(None, "veth1", value),
                link(None, "veth2", value),
            ]
        };
        for (all, value, strict) in [
            (0, 0, false),
            (1, 0, true),
            (0, 1, true),
            (1, 2, false),
            (2, 1, false),
        ] {
            let found = judge(all, &links(value));
            assert_eq!(found.len() == 2, strict, "{all} {value}: {found:?}");
            assert_eq!(found[0].severity == Severity::Warning, strict);
        }
        let found = judge(0, &links(1));
        assert_eq!(found[0].object, "uplink eth0");
        let fix = found[0].fix.as_deref();
        assert_eq!(fix, Some("sysctl -w net.ipv4.conf.eth0.rp_filter=2"));
        assert_eq!(found[1].object, "host veths veth1, veth2");
    }
}
