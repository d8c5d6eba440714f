//! Whether what pods send fits the way to the peers.

use super::finding::{Commands, Finding, Severity, names, or_ok};

const CHECK: &str = "mtu";

/// Sizes in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// What the configuration gives pods' links.
    pub(super) configured: Option<u32>,
    /// What the narrowest way to a peer takes, overheads of the overlay taken off; none without peers.
    pub(super) path: Option<u32>,
    /// What new pods are given because of the ways to the peers, as the node was set up.
    pub(super) given: Option<u32>,
    /// What they would be given if it were set up now.
    pub(super) to_give: Option<u32>,
    /// The bridge's name and MTU.
    pub(super) bridge: Option<(String, u32)>,
    /// The overlay's device, its MTU, and what it should be.
    pub(super) overlay: Option<(String, u32, u32)>,
    /// Host veths, whose MTU is that of the pods' ends.
    pub(super) veths: Vec<(String, u32)>,
}

/// Judges them.
pub(super) fn judge(facts: &Facts, commands: &Commands) -> Vec<Finding> {
    let mut found = Vec::new();
    let load = &commands.load;
    if let Some((name, mtu, wanted)) = &facts.overlay
        && mtu != wanted
    {
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            format!("overlay {name}"),
            format!("has {mtu}, the uplinks leave it {wanted}"),
            load,
        ));
    }
    if facts.given != facts.to_give {
        let kernels = |mtu: Option<u32>| match mtu {
            Some(mtu) => mtu.to_string(),
            None => "the kernel's own".to_owned(),
        };
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            "new pods",
            format!(
                "get {}, the ways to the peers leave {}",
                kernels(facts.given),
                kernels(facts.to_give)
            ),
            load,
        ));
    }
    if let (Some(configured), Some(path)) = (facts.configured, facts.path)
        && configured > path
    {
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            "configuration",
            format!("gives pods {configured}, the way to a peer takes {path}"),
            format!("mtu: {path}"),
        ));
    }
    found.extend(too_large(facts));
    let path = facts.path.map_or_else(
        || "no peers to send to".to_owned(),
        |path| format!("the ways to the peers take {path}, no pod sends more"),
    );
    or_ok(found, Finding::ok(CHECK, "pods", path))
}

fn too_large(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let larger = |limit: u32| {
        let larger = facts.veths.iter().filter(|(_, mtu)| *mtu > limit);
        let larger: Vec<String> = larger
            .map(|(name, mtu)| format!("{name} ({mtu})"))
            .collect();
        Some(larger).filter(|larger| !larger.is_empty())
    };
    if let Some(path) = facts.path
        && let Some(larger) = larger(path)
    {
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            format!("pods behind {}", names(&larger)),
            format!(
                "can send more than the {path} that the way to a peer takes: it goes by the stack, which fragments or refuses it"
            ),
            "make these pods anew: a pod's MTU is set when it is added",
        ));
    }
    if let Some((bridge, mtu)) = &facts.bridge
        && let Some(larger) = larger(*mtu)
    {
        let most = facts.veths.iter().map(|(_, mtu)| *mtu).max();
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            format!("bridge {bridge}"),
            format!("has {mtu}, less than the pods behind {}", names(&larger)),
            format!("ip link set dev {bridge} mtu {}", most.unwrap_or(*mtu)),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::finding::test_commands, *};

    fn well() -> Facts {
        Facts {
            path: Some(1500),
            bridge: Some(("br0".to_owned(), 1500)),
            veths: vec![("veth1".to_owned(), 1500)],
            ..Facts::default()
        }
    }

    fn judged(facts: &Facts) -> Vec<(Severity, String)> {
        let found = judge(facts, &test_commands());
        found.into_iter().map(|f| (f.severity, f.object)).collect()
    }

    #[test]
    fn pods_that_fit_are_one_line() {
        assert_eq!(judged(&well()), [(Severity::Ok, "pods".to_owned())]);
        let alone = Facts {
            path: None,
            ..well()
        };
        assert_eq!(judged(&alone)[0].0, Severity::Ok);
    }

    #[test]
    fn a_way_that_has_become_narrower_is_told_for_new_pods_and_old() {
        let facts = Facts {
            path: Some(1400),
            to_give: Some(1400),
            configured: Some(1500),
            overlay: Some(("bl-1".to_owned(), 1450, 1400)),
            ..well()
        };
        let warned = |object: &str| (Severity::Warning, object.to_owned());
        assert_eq!(
            judged(&facts),
            [
                warned("overlay bl-1"),
                warned("new pods"),
                warned("configuration"),
                warned("pods behind veth1 (1500)")
            ]
        );
    }

    #[test]
    fn a_bridge_with_less_than_its_pods_is_told_with_the_command() {
        let facts = Facts {
            bridge: Some(("br0".to_owned(), 1400)),
            ..well()
        };
        let found = judge(&facts, &test_commands());
        let fix = found[0].fix.as_deref();
        assert_eq!(fix, Some("ip link set dev br0 mtu 1500"));
    }
}
