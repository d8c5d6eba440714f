//! Who takes part: in which order, in which colour, and measured against whom.

use plotters::style::RGBColor;

use crate::bench::types::Place;

/// What a user has without beeline.
pub(super) const BRIDGE: &str = "bridge";

/// The same where the network between nodes carries no pods' addresses.
pub(super) const BRIDGE_VXLAN: &str = "bridge-vxlan";

/// In the order of tables and legends: limits, then what others offer, then beeline.
///
/// The colours are Okabe and Ito's, which people with any colour vision can tell apart.
const KNOWN: [(&str, RGBColor); 6] = [
    ("veth", RGBColor(0x76, 0x76, 0x76)),
    ("nodes", RGBColor(0x76, 0x76, 0x76)),
    (BRIDGE, RGBColor(0xE6, 0x9F, 0x00)),
    (BRIDGE_VXLAN, RGBColor(0xD5, 0x5E, 0x00)),
    ("beeline", RGBColor(0x00, 0x72, 0xB2)),
    ("beeline-vxlan", RGBColor(0x56, 0xB4, 0xE9)),
];

/// For whoever joins later.
const SPARE: [RGBColor; 2] = [RGBColor(0x00, 0x9E, 0x73), RGBColor(0xCC, 0x79, 0xA7)];

/// The contender that no other can beat at a place.
pub(super) fn limit(place: Place) -> &'static str {
    match place {
        Place::SameNode => "veth",
        Place::AcrossNodes => "nodes",
    }
}

/// What a contender would replace; `None` unless it is beeline's.
pub(super) fn rival(contender: &str) -> Option<&'static str> {
    match contender {
        "beeline" => Some(BRIDGE),
        "beeline-vxlan" => Some(BRIDGE_VXLAN),
        _ => None,
    }
}

/// A contender's colour, in every chart the same.
pub(super) fn color(name: &str) -> RGBColor {
    let known = KNOWN.iter().find(|(known, _)| *known == name);
    let sum: usize = name.bytes().map(usize::from).sum();
    known.map_or(SPARE[sum % SPARE.len()], |(_, color)| *color)
}

/// Each name once, in the order of tables and legends.
pub(super) fn ordered<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<_> = names.collect();
    let position = |name: &str| KNOWN.iter().position(|(known, _)| *known == name);
    names.sort_by_key(|name| (position(name).unwrap_or(KNOWN.len()), *name));
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_first_and_strangers_last() {
        let names = ["zeta", "beeline", "veth", "bridge", "beeline"];
        let expected = ["veth", "bridge", "beeline", "zeta"];
        assert_eq!(ordered(names.into_iter()), expected);
    }
}
