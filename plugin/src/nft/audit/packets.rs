//! The kinds of pod-to-pod packets that would pass a hook, if no fast path took them.

use super::{Scope, addresses::Addresses, holds::Holds};

/// beeline and the reference plugin name the host's end of each pod so.
const HOST_VETHS: &str = "veth";

/// An interface of the network.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Interface {
    /// The bridge, an uplink or the overlay device.
    Named(String),
    /// The host's end of any pod.
    HostVeth,
}

impl Interface {
    /// Whether an nft pattern, a name that may end in `*`, is this interface's.
    pub(super) fn is(&self, pattern: &str) -> Holds {
        let prefix = pattern.strip_suffix('*');
        match (self, prefix) {
            (Self::Named(name), None) => Holds::from(name == pattern),
            (Self::Named(name), Some(prefix)) => Holds::from(name.starts_with(prefix)),
            (Self::HostVeth, Some(prefix)) if HOST_VETHS.starts_with(prefix) => Holds::Always,
            (Self::HostVeth, _) if pattern.starts_with(HOST_VETHS) => Holds::Perhaps,
            (Self::HostVeth, _) => Holds::Never,
        }
    }
}

/// Packets that come and go the same way.
#[derive(Clone, Debug)]
pub(super) struct Packets {
    pub(super) v4: bool,
    /// Where they come in; `None` if that is not told there, or can be any.
    pub(super) iif: Option<Interface>,
    pub(super) oif: Option<Interface>,
    pub(super) from: Addresses,
    pub(super) to: Addresses,
}

/// A hook of a base chain.
pub(super) struct Hook<'a> {
    pub(super) family: &'a str,
    pub(super) name: &'a str,
    /// The devices of a chain that has some, as patterns; `None` if they are not known.
    pub(super) devices: Option<&'a [String]>,
}

/// The kinds of packets at a hook; none if no pod's packet passes there.
pub(super) fn at(hook: &Hook<'_>, scope: &Scope<'_>) -> Vec<Packets> {
    let families: &[bool] = match hook.family {
        "ip" => &[true],
        "ip6" => &[false],
        "inet" | "bridge" | "netdev" => &[true, false],
        _ => &[],
    };
    let mut all = Vec::new();
    for &v4 in families {
        let ends = Ends::new(scope, v4);
        let ways = match (hook.family, hook.name) {
            (_, "ingress" | "egress") => on_devices(hook, &ends, scope),
            ("bridge", _) => bridged(hook.name, &ends, scope),
            _ => routed(hook.name, &ends, scope),
        };
        all.extend(ways.into_iter().map(|way| way.packets(v4)));
    }
    all.retain(|packets: &Packets| !packets.from.is_empty() && !packets.to.is_empty());
    all
}

/// The addresses that pods here, and elsewhere, have.
struct Ends {
    here: Addresses,
    elsewhere: Addresses,
    both: Addresses,
}

impl Ends {
    fn new(scope: &Scope<'_>, v4: bool) -> Self {
        // Without CIDRs of its own, a network's pods have the addresses that external IPAM gives them: any.
        let here = match scope.pod_cidrs {
            [] => Addresses::everything(v4),
            cidrs => Addresses::of_cidrs(v4, cidrs),
        };
        let elsewhere = Addresses::of_cidrs(v4, scope.peers);
        let both = here.and(&elsewhere);
        Self {
            here,
            elsewhere,
            both,
        }
    }
}

/// A way of packets through a hook.
struct Way<'a> {
    iif: Option<Interface>,
    oif: Option<Interface>,
    from: &'a Addresses,
    to: &'a Addresses,
}

impl Way<'_> {
    fn packets(self, v4: bool) -> Packets {
        Packets {
            v4,
            iif: self.iif,
            oif: self.oif,
            from: self.from.clone(),
            to: self.to.clone(),
        }
    }
}

fn uplinks(scope: &Scope<'_>) -> impl Iterator<Item = Option<Interface>> {
    scope
        .uplinks
        .iter()
        .map(|name| Some(Interface::Named(name.clone())))
}

/// Through a hook of IP. With br_netfilter, what stays on the bridge passes there too.
fn routed<'a>(hook: &str, ends: &'a Ends, scope: &Scope<'_>) -> Vec<Way<'a>> {
    let bridge = || Some(Interface::Named(scope.bridge.to_owned()));
    match hook {
        // Only what is meant for the node, or comes from it.
        "input" | "output" => Vec::new(),
        _ => ways(hook, bridge, ends, scope),
    }
}

/// Through a hook of the bridge, whose ports may include an uplink.
fn bridged<'a>(hook: &str, ends: &'a Ends, scope: &Scope<'_>) -> Vec<Way<'a>> {
    let port = || Some(Interface::HostVeth);
    let mut all = ways(hook, port, ends, scope);
    if hook == "postrouting" {
        // What was routed comes from no port.
        all.extend(ways("output", port, ends, scope));
    }
    all
}

fn ways<'a>(
    hook: &str,
    pod: impl Fn() -> Option<Interface>,
    ends: &'a Ends,
    scope: &Scope<'_>,
) -> Vec<Way<'a>> {
    let way = |iif, oif, from, to| Way { iif, oif, from, to };
    let Ends {
        here,
        elsewhere,
        both,
    } = ends;
    match hook {
        "prerouting" | "input" => {
            let coming = uplinks(scope).map(|uplink| way(uplink, None, elsewhere, here));
            coming.chain([way(pod(), None, here, both)]).collect()
        }
        "output" => {
            let going = uplinks(scope).map(|uplink| way(None, uplink, here, elsewhere));
            going.chain([way(None, pod(), both, here)]).collect()
        }
        "forward" | "postrouting" => uplinks(scope)
            .flat_map(|uplink| {
                [
                    way(pod(), uplink.clone(), here, elsewhere),
                    way(uplink, pod(), elsewhere, here),
                ]
            })
            .chain([way(pod(), pod(), here, here)])
            .collect(),
        _ => Vec::new(),
    }
}

/// Through a device that is the network's, in or out.
fn on_devices<'a>(hook: &Hook<'_>, ends: &'a Ends, scope: &Scope<'_>) -> Vec<Way<'a>> {
    let incoming = hook.name == "ingress";
    let Some(patterns) = hook.devices else {
        return vec![Way {
            iif: None,
            oif: None,
            from: &ends.both,
            to: &ends.both,
        }];
    };
    let is_ours = |device: &Interface| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| device.is(pattern) != Holds::Never)
    };
    let way = |device: Interface, from, to| Way {
        iif: incoming.then(|| device.clone()),
        oif: (!incoming).then_some(device),
        from,
        to,
    };
    let inner = [
        Interface::Named(scope.bridge.to_owned()),
        Interface::HostVeth,
    ];
    let inner = inner
        .into_iter()
        .map(|device| way(device, &ends.both, &ends.both));
    let (from, to) = match incoming {
        true => (&ends.elsewhere, &ends.here),
        false => (&ends.here, &ends.elsewhere),
    };
    let outer = uplinks(scope).flatten().map(|device| way(device, from, to));
    inner
        .chain(outer)
        .filter(|way| way.iif.iter().chain(&way.oif).any(is_ours))
        .collect()
}
