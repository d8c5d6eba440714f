//! Which subnets a node takes, by what is taken already and what it had before.

use ipnetwork::IpNetwork;

use super::range::Range;

/// A subnet that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) subnet: IpNetwork,
    pub(super) holder: Holder,
    /// The revision of its key.
    pub(super) revision: i64,
    pub(super) lease: i64,
}

/// Who has a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// This node.
    Me,
    /// Somebody else, by this name.
    Other(String),
}

/// What a node takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Its subnets, in the order of the ranges; with the revision of the key of those that it has already.
    pub(super) chosen: Vec<(IpNetwork, Option<i64>)>,
    /// What it has and does not want, with the revision of the key.
    pub(super) surplus: Vec<(IpNetwork, i64)>,
    /// What it had before, and who has it now.
    pub(super) lost: Vec<(IpNetwork, String)>,
    /// Of these there is none left for it.
    pub(super) exhausted: Vec<Range>,
}

/// Chooses one subnet of each range: the one that is this node's already, else the one that it had before (`known`), else
/// a free one.
///
/// If a range is exhausted, a node takes nothing new of the others either, as two could then each hold what the other
/// lacks; what it had it keeps, for the pods that have addresses of it.
pub(super) fn plan(ranges: &[Range], taken: &[Taken], known: &[IpNetwork], node: &str) -> Plan {
    let mut plan = Plan::default();
    let mut fresh = Vec::new();
    for range in ranges {
        let mut mine: Vec<_> = taken
            .iter()
            .filter(|taken| taken.holder == Holder::Me && range.has(taken.subnet))
            .collect();
        mine.sort_by_key(|taken| (!known.contains(&taken.subnet), taken.subnet));
        let before = known.iter().filter(|known| range.has(**known));
        plan.lost
            .extend(before.clone().filter_map(|known| holder(taken, *known)));
        if let Some(own) = mine.first() {
            plan.chosen.push((own.subnet, Some(own.revision)));
            continue;
        }
        let all: Vec<_> = taken.iter().map(|taken| taken.subnet).collect();
        let free = |subnet: &&IpNetwork| all.iter().all(|taken| !overlap(*taken, **subnet));
        if let Some(again) = before.clone().find(free) {
            plan.chosen.push((*again, None));
            continue;
        }
        match range.free(&all, node) {
            Some(subnet) => fresh.push(subnet),
            None => plan.exhausted.push(*range),
        }
    }
    if plan.exhausted.is_empty() {
        plan.chosen
            .extend(fresh.into_iter().map(|subnet| (subnet, None)));
        plan.chosen.sort_by_key(|(subnet, _)| subnet.is_ipv6());
    }
    let unwanted = taken.iter().filter(|taken| {
        let wanted = plan
            .chosen
            .iter()
            .any(|(chosen, _)| *chosen == taken.subnet);
        taken.holder == Holder::Me && !wanted
    });
    plan.surplus = unwanted
        .map(|taken| (taken.subnet, taken.revision))
        .collect();
    plan
}

/// The subnet with the name of another node that has it, or a part of it.
fn holder(taken: &[Taken], subnet: IpNetwork) -> Option<(IpNetwork, String)> {
    taken.iter().find_map(|taken| match &taken.holder {
        Holder::Other(name) if overlap(taken.subnet, subnet) => Some((subnet, name.clone())),
        _ => None,
    })
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn ranges() -> Vec<Range> {
        [("10.0.0.0/22", 24), ("fd00::/62", 64)]
            .map(|(cidr, subnet_length)| Range {
                cluster_cidr: net(cidr),
                subnet_length,
            })
            .to_vec()
    }

    fn taken(subnet: &str, by: &str) -> Taken {
        let holder = match by {
            "me" => Holder::Me,
            other => Holder::Other(other.to_owned()),
        };
        Taken {
            subnet: net(subnet),
            holder,
            revision: 7,
            lease: 1,
        }
    }

    fn chosen(plan: &Plan) -> Vec<String> {
        plan.chosen
            .iter()
            .map(|(subnet, _)| subnet.to_string())
            .collect()
    }

    #[test]
    fn a_new_node_takes_one_of_each_family() {
        let plan = plan(&ranges(), &[taken("10.0.0.0/24", "b")], &[], "a");
        assert_eq!(plan.chosen.len(), 2);
        assert!(plan.chosen[0].0.is_ipv4() && plan.chosen[1].0.is_ipv6());
        assert_ne!(plan.chosen[0].0, net("10.0.0.0/24"));
        assert_eq!(
            (plan.lost, plan.exhausted, plan.surplus),
            (vec![], vec![], vec![])
        );
    }

    #[test]
    fn what_is_its_own_goes_before_what_it_had_and_that_before_what_is_free() {
        let has = [taken("10.0.1.0/24", "me"), taken("10.0.3.0/24", "b")];
        let known = [net("10.0.2.0/24"), net("fd00:0:0:3::/64")];
        let plan = plan(&ranges(), &has, &known, "a");
        assert_eq!(chosen(&plan), ["10.0.1.0/24", "fd00:0:0:3::/64"]);
        assert_eq!((plan.chosen[0].1, plan.chosen[1].1), (Some(7), None));
    }

    #[test]
    fn of_two_that_are_its_own_it_keeps_the_one_in_use() {
        let has = [taken("10.0.1.0/24", "me"), taken("10.0.2.0/24", "me")];
        let plan = plan(&ranges(), &has, &[net("10.0.2.0/24")], "a");
        assert_eq!(plan.chosen[0].0, net("10.0.2.0/24"));
        assert_eq!(plan.surplus, [(net("10.0.1.0/24"), 7)]);
    }

    #[test]
    fn what_another_has_by_now_is_lost_and_replaced() {
        let known = [net("10.0.2.0/24"), net("10.9.0.0/24")];
        let plan = plan(&ranges(), &[taken("10.0.2.0/24", "thief")], &known, "a");
        assert_eq!(plan.lost, [(net("10.0.2.0/24"), "thief".to_owned())]);
        assert!(plan.chosen[0].0.is_ipv4() && plan.chosen[0].0 != net("10.0.2.0/24"));
    }

    #[test]
    fn without_any_left_it_takes_nothing_new_and_keeps_what_it_had() {
        let full: Vec<_> = (0..4)
            .map(|i| taken(&format!("10.0.{i}.0/24"), "b"))
            .collect();
        let new = plan(&ranges(), &full, &[], "a");
        assert_eq!(new.chosen, []);
        assert_eq!(new.exhausted, ranges()[..1]);
        let old = plan(&ranges(), &full, &[net("fd00:0:0:1::/64")], "a");
        assert_eq!(chosen(&old), ["fd00:0:0:1::/64"]);
        assert_eq!(old.exhausted, ranges()[..1]);
    }
}
