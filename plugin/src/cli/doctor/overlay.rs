//! The overlay's device, and the neighbours that it has to know.

use std::collections::HashMap;

use super::finding::{Commands, Finding, Severity, commands as several, count, names, or_ok};
use crate::{
    datapath::config::OverlayConf,
    net::neighbour::State,
    node::survey::{Kernel, Ways},
};

const CHECK: &str = "overlay";

/// Judges the overlay's device and the neighbours that it must know by heart.
pub(super) fn judge(
    kernel: &Kernel,
    ways: &Ways,
    conf: OverlayConf,
    commands: &Commands,
) -> Vec<Finding> {
    let name = &ways.overlay_name;
    let port = conf.port;
    let say = |severity, message: String, fix: &str| {
        Finding::new(CHECK, severity, format!("device {name}"), message, fix)
    };
    let load = &commands.load;
    let Some(link) = &ways.overlay else {
        return match ways.overlay_mtu {
            Some(_) => vec![say(
                Severity::Failure,
                "is missing, and peers need it".to_owned(),
                &commands.drifted(load),
            )],
            None => vec![Finding::ok(CHECK, name, "no peer needs it")],
        };
    };
    let mut found = Vec::new();
    if !link.up {
        let fix = format!("ip link set dev {name} up && {load}");
        found.push(say(Severity::Failure, "is down".to_owned(), &fix));
    }
    let vxlan = link.vxlan.unwrap_or_default();
    if vxlan.port != port || !vxlan.collect_metadata || vxlan.learning {
        found.push(say(
            Severity::Failure,
            format!(
                "is no vxlan device of UDP port {port} that takes tunnels from routes: it has port {}",
                vxlan.port
            ),
            &format!("ip link delete {name} && {load}"),
        ));
    }
    let held: HashMap<_, _> = kernel
        .neighbours
        .iter()
        .filter(|entry| entry.interface == link.index && entry.state == State::Permanent)
        .map(|entry| (entry.ip, entry.mac))
        .collect();
    let unknown: Vec<_> = ways
        .neighbours
        .iter()
        .filter(|wanted| held.get(&wanted.ip) != Some(&Some(wanted.mac)))
        .collect();
    if !unknown.is_empty() {
        let nodes: Vec<String> = unknown.iter().map(|wanted| wanted.ip.to_string()).collect();
        let replace = unknown.iter().map(|wanted| {
            format!(
                "ip neigh replace {} lladdr {} dev {name} nud permanent",
                wanted.ip, wanted.mac
            )
        });
        let message = format!("does not know the MACs of {}", names(&nodes));
        let fix = match unknown.len() {
            0..=10 => several(replace),
            _ => load.clone(),
        };
        found.push(say(Severity::Failure, message, &commands.drifted(fix)));
    }
    let ok = format!(
        "VNI {}, knows {}; UDP port {port} must be open between nodes",
        conf.vni,
        count(ways.neighbours.len(), "node")
    );
    or_ok(found, Finding::ok(CHECK, format!("device {name}"), ok))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            finding::test_commands,
            peers::tests::{link, node},
        },
        *,
    };
    use crate::{
        datapath::config::OverlayKind,
        net::{
            link::Vxlan,
            mac::Mac,
            neighbour::{Entry, Neighbour},
        },
    };

    #[test]
    fn the_overlays_device_is_there_of_its_port_and_knows_its_neighbours() {
        let (mut kernel, mut ways) = node();
        let conf = OverlayConf {
            kind: OverlayKind::Vxlan,
            vni: 7,
            port: 8472,
            always: false,
        };
        let judged = |kernel: &Kernel, ways: &Ways| judge(kernel, ways, conf, &test_commands());
        ways.overlay_name = "bl-1".to_owned();
        assert_eq!(judged(&kernel, &ways)[0].severity, Severity::Ok);
        ways.overlay_mtu = Some(1450);
        assert!(judged(&kernel, &ways)[0].message.contains("is missing"));
        let mut device = link(9, "bl-1");
        device.vxlan = Some(Vxlan {
            port: 8472,
            collect_metadata: true,
            ..Vxlan::default()
        });
        let (ip, mac) = ("192.168.1.12".parse().unwrap(), Mac([2; 6]));
        ways.overlay = Some(device.clone());
        ways.neighbours = vec![Neighbour { ip, mac }];
        let found = judged(&kernel, &ways);
        assert_eq!(
            found[0].fix.as_deref(),
            Some("ip neigh replace 192.168.1.12 lladdr 02:02:02:02:02:02 dev bl-1 nud permanent")
        );
        kernel.neighbours = vec![Entry {
            interface: 9,
            ip,
            mac: Some(mac),
            state: State::Permanent,
        }];
        assert_eq!(judged(&kernel, &ways)[0].severity, Severity::Ok);
        device.vxlan = Some(Vxlan {
            port: 4789,
            ..Vxlan::default()
        });
        device.up = false;
        ways.overlay = Some(device);
        assert_eq!(judged(&kernel, &ways).len(), 2);
    }
}
