//! The keys about VLANs: `vlan`, `vlanTrunk` and `preserveDefaultVlan`.

use std::ops::RangeInclusive;

use anyhow::{Error, Result, bail, ensure};
use serde::Deserialize;

use super::{keys::Keys, names::check_ifname};
use crate::{
    datapath::config::{Mode, Unsupported},
    net::link::{NoVlanFiltering, PortVlans},
    node::VlanPlan,
};

/// The VLANs that can be used; 0 and 4095 are reserved.
const USABLE: RangeInclusive<i64> = 1..=4094;

/// The VLAN that a trunk's frames without a tag are of, unless `vlan` says another.
const NATIVE: u16 = 1;

/// One entry of `vlanTrunk`.
#[derive(Deserialize)]
pub(super) struct Trunk {
    #[serde(rename = "minid")]
    min_id: Option<i64>,
    #[serde(rename = "maxid")]
    max_id: Option<i64>,
    id: Option<i64>,
}

/// What the keys ask of the bridge; none if they are not there.
pub(super) fn plan(keys: &Keys, with_ipam: bool) -> Option<VlanPlan> {
    let id = usable(keys.vlan);
    let trunk = keys.vlan_trunk.as_deref();
    let tagged = tagged(trunk.unwrap_or_default());
    // A trunk of nothing makes a new bridge filter, all the same.
    (id.is_some() || trunk.is_some()).then(|| VlanPlan {
        id,
        port: PortVlans {
            native: id.or((!tagged.is_empty()).then_some(NATIVE)),
            tagged,
            keep_default: keys.preserve_default_vlan,
        },
        gateway: id.is_some() && with_ipam && (keys.is_gateway || keys.is_default_gateway),
    })
}

/// Refuses what is no VLAN, in the reference's words.
pub(super) fn validate(keys: &Keys, planned: Option<&VlanPlan>, mode: Mode) -> Result<()> {
    let vlan = keys.vlan;
    ensure!(
        vlan == 0 || USABLE.contains(&vlan),
        "vlan: invalid VLAN ID {vlan} (must be between 0 and 4094)"
    );
    for trunk in keys.vlan_trunk.iter().flatten() {
        trunk
            .validate()
            .map_err(|error| error.context("vlanTrunk"))?;
    }
    let Some(planned) = planned else {
        return Ok(());
    };
    if let Some(name) = planned.gateway_interface(&keys.bridge) {
        check_ifname("vlan: the gateway", &name)?;
    }
    ensure!(
        mode != Mode::Ebpf,
        "datapath.mode \"ebpf\": not with {}, which the bridge keeps apart",
        key(planned).0
    );
    Ok(())
}

/// Names the key if the kernel has not got what it asks for.
pub(super) fn explain(planned: Option<&VlanPlan>, error: Error) -> Error {
    match planned {
        Some(planned) if error.is::<NoVlanFiltering>() => {
            let (key, value) = key(planned);
            error.context(Unsupported::new(key, value))
        }
        _ => error,
    }
}

/// The key that asks for VLANs, and its value.
fn key(planned: &VlanPlan) -> (&'static str, String) {
    match planned.id {
        Some(id) => ("vlan", id.to_string()),
        None => ("vlanTrunk", format!("({})", planned.port)),
    }
}

fn usable(id: i64) -> Option<u16> {
    USABLE.contains(&id).then_some(id)?.try_into().ok()
}

impl Trunk {
    fn validate(&self) -> Result<()> {
        match (self.min_id, self.max_id) {
            (Some(min), Some(max)) => {
                ensure!(USABLE.contains(&min), "incorrect trunk minID parameter");
                ensure!(USABLE.contains(&max), "incorrect trunk maxID parameter");
                ensure!(min <= max, "minID is greater than maxID in trunk parameter");
            }
            (None, Some(_)) => {
                bail!("minID and maxID should be configured simultaneously, minID is missing")
            }
            (Some(_), None) => {
                bail!("minID and maxID should be configured simultaneously, maxID is missing")
            }
            (None, None) => {}
        }
        let usable = self.id.is_none_or(|id| USABLE.contains(&id));
        ensure!(usable, "incorrect trunk id parameter");
        Ok(())
    }

    /// The VLANs that it names; what is no VLAN names none.
    fn ids(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        let range = |min, max| Some(usable(min?)?..=usable(max?)?);
        let (many, one) = (range(self.min_id, self.max_id), range(self.id, self.id));
        many.into_iter().chain(one)
    }
}

/// The VLANs of a trunk, ascending, those that touch in one range.
fn tagged(trunk: &[Trunk]) -> Vec<RangeInclusive<u16>> {
    let mut ids: Vec<_> = trunk.iter().flat_map(Trunk::ids).collect();
    ids.sort_by_key(|range| *range.start());
    let mut tagged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in ids {
        match tagged.last_mut() {
            Some(last) if *range.start() <= *last.end() + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => tagged.push(range),
        }
    }
    tagged
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cni::{Command, NetConf};

    fn parse(keys: Value) -> super::super::Result<NetConf> {
        let mut document = json!({"cniVersion": "1.0.0", "name": "net", "isGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}});
        for (key, value) in keys.as_object().unwrap() {
            document[key] = value.clone();
        }
        NetConf::parse(document.to_string().into(), Command::Add)
    }

    fn planned(keys: Value) -> Option<VlanPlan> {
        parse(keys).unwrap().vlans
    }

    fn port(keys: Value) -> PortVlans {
        planned(keys).unwrap().port
    }

    #[track_caller]
    fn refused(keys: Value, expected: &str) {
        let error = parse(keys).unwrap_err();
        assert_eq!(error.code().number(), 7, "{error}");
        let object = error.to_json(crate::cni::Version::LATEST);
        assert!(object.to_string().contains(expected), "{object}");
    }

    #[test]
    fn without_the_keys_there_are_no_vlans() {
        for keys in [json!({}), json!({"vlan": 0}), json!({"vlanTrunk": null})] {
            assert_eq!(planned(keys), None);
        }
    }

    #[test]
    fn a_vlan_is_the_only_one_of_its_port_and_has_a_gateway_of_its_own() {
        let vlans = planned(json!({"vlan": 100})).unwrap();
        let only = PortVlans {
            native: Some(100),
            ..PortVlans::default()
        };
        assert_eq!(vlans.port, only);
        assert_eq!(vlans.gateway_interface("cni0"), Some("cni0.100".to_owned()));
        for without in [
            json!({"vlan": 100, "isGateway": false}),
            json!({"vlan": 100, "ipam": {}}),
            json!({"vlanTrunk": [{"id": 100}]}),
        ] {
            assert_eq!(planned(without).unwrap().gateway_interface("cni0"), None);
        }
    }

    #[test]
    fn a_trunk_is_ranges_and_single_vlans_with_vlan_1_untagged_unless_there_is_a_vlan() {
        let trunk = json!([{"id": 7}, {"minID": 10, "maxID": 20}, {"MinId": 21, "MAXID": 30, "ID": 5},
            {"minID": 6, "maxID": 6}, {"minID": 4094, "maxID": 4094}, {"id": 12}, {}]);
        let vlans = port(json!({"vlanTrunk": trunk}));
        assert_eq!(vlans.native, Some(1));
        assert_eq!(vlans.tagged, [5..=7, 10..=30, 4094..=4094]);
        let both = port(json!({"vlanTrunk": [{"id": 5}], "vlan": 9}));
        assert_eq!((both.native, both.tagged), (Some(9), vec![5..=5]));
    }

    #[test]
    fn a_trunk_of_nothing_makes_the_bridge_filter_and_changes_no_port() {
        assert_eq!(port(json!({"vlanTrunk": []})), PortVlans::default());
        assert_eq!(port(json!({"vlanTrunk": [{}]})), PortVlans::default());
    }

    #[test]
    fn the_default_vlan_stays_if_that_is_wanted() {
        assert!(!port(json!({"vlan": 5})).keep_default);
        assert!(port(json!({"vlan": 5, "preserveDefaultVlan": true})).keep_default);
    }

    #[test]
    fn what_is_no_vlan_is_refused_in_the_references_words() {
        for id in [-1, 4095] {
            let words = format!("vlan: invalid VLAN ID {id} (must be between 0 and 4094)");
            refused(json!({"vlan": id}), &words);
        }
        let lone = |missing: &str| {
            format!("minID and maxID should be configured simultaneously, {missing} is missing")
        };
        for (trunk, words) in [
            (json!({"minID": 5}), &*lone("maxID")),
            (json!({"maxID": 5}), &*lone("minID")),
            (
                json!({"minID": 0, "maxID": 5}),
                "incorrect trunk minID parameter",
            ),
            (
                json!({"minID": -1, "maxID": 5}),
                "incorrect trunk minID parameter",
            ),
            (
                json!({"minID": 4095, "maxID": 5}),
                "incorrect trunk minID parameter",
            ),
            (
                json!({"minID": 5, "maxID": 0}),
                "incorrect trunk maxID parameter",
            ),
            (
                json!({"minID": 5, "maxID": 4095}),
                "incorrect trunk maxID parameter",
            ),
            (
                json!({"minID": 6, "maxID": 5}),
                "minID is greater than maxID in trunk parameter",
            ),
            (json!({"id": 0}), "incorrect trunk id parameter"),
            (json!({"id": 4095}), "incorrect trunk id parameter"),
            (json!({"id": -1}), "incorrect trunk id parameter"),
        ] {
            refused(json!({"vlanTrunk": [trunk]}), words);
        }
        refused(json!({"vlanTrunk": [{"id": 5}, {"id": 0}]}), "vlanTrunk");
    }

    #[test]
    fn a_gateway_whose_name_does_not_fit_and_mode_ebpf_are_refused() {
        let long = "a_dozen_byte";
        refused(json!({"vlan": 100, "bridge": long}), "a_dozen_byte.100");
        assert!(parse(json!({"vlan": 10, "bridge": long})).is_ok());
        for keys in [json!({"vlan": 5}), json!({"vlanTrunk": [{"id": 5}]})] {
            let mut keys = keys;
            keys["datapath"] = json!({"mode": "ebpf"});
            refused(keys, "datapath.mode");
        }
    }

    #[test]
    fn a_kernel_that_cannot_filter_is_told_by_the_key() {
        let plan = planned(json!({"vlan": 100}));
        let lacking = || Error::new(NoVlanFiltering);
        let error = super::super::Error::from(explain(plan.as_ref(), lacking()));
        assert_eq!(error.code().number(), 2);
        assert_eq!(error.to_string(), "vlan 100: not supported");
        let plan = planned(json!({"vlanTrunk": [{"id": 5}]}));
        let text = explain(plan.as_ref(), lacking()).to_string();
        assert!(
            text.starts_with("vlanTrunk (VLAN 1 untagged, VLAN 5 tagged):"),
            "{text}"
        );
        let other = explain(plan.as_ref(), Error::msg("other"));
        assert_eq!(other.to_string(), "other");
    }
}
