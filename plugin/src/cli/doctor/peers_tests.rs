use std::net::IpAddr;

use super::{super::finding::test_commands, *};
use crate::net::{link::Link, neighbour::Entry, route::Tunnel};

fn route(destination: &str, gateway: &str, interface: u32) -> Route {
    let gateway = Some(gateway.parse().unwrap());
    Route::new(destination.parse().unwrap(), gateway, interface)
}

fn foreign(destination: &str, protocol: u8) -> Route {
    Route {
        protocol,
        ..route(destination, "192.168.1.99", 2)
    }
}

pub(in super::super) fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        up: true,
        ..Link::default()
    }
}

/// A node with two peers, all in order.
pub(in super::super) fn node() -> (Kernel, Ways) {
    let routes = vec![
        route("10.244.2.0/24", "192.168.1.12", 2),
        route("10.244.3.0/24", "192.168.1.13", 2),
    ];
    let kernel = Kernel {
        links: vec![link(2, "eth0")],
        routes: routes.clone(),
        ..Kernel::default()
    };
    let ways = Ways {
        uplinks: vec![link(2, "eth0")],
        routes,
        ..Ways::default()
    };
    (kernel, ways)
}

fn routes(kernel: &Kernel, ways: &Ways) -> Vec<Finding> {
    judge_routes(kernel, ways, true, &test_commands())
}

#[test]
fn routes_that_are_all_there_are_one_line() {
    let (kernel, ways) = node();
    let [finding] = &routes(&kernel, &ways)[..] else {
        panic!("more than one");
    };
    assert_eq!(finding.severity, Severity::Ok);
    assert_eq!(finding.message, "each of 2 peers has its route");
}

#[test]
fn a_missing_route_is_named_with_the_command_that_makes_it() {
    let (mut kernel, ways) = node();
    kernel.routes.remove(0);
    let found = routes(&kernel, &ways);
    assert_eq!(found[0].severity, Severity::Failure);
    assert_eq!(found[0].object, "peers 10.244.2.0/24");
    assert_eq!(
        found[0].fix.as_deref(),
        Some("ip route replace 10.244.2.0/24 via 192.168.1.12 dev eth0 proto 190")
    );
}

#[test]
fn of_thousands_of_missing_routes_ten_are_named_and_one_command_is_given() {
    let (_, mut ways) = node();
    ways.routes = (0..5_000_u32)
        .map(|n| {
            let destination = IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes());
            route(&format!("{destination}/24"), "192.168.1.12", 2)
        })
        .collect();
    let kernel = Kernel {
        routes: ways.routes.split_off(4_000),
        ..Kernel::default()
    };
    ways.routes.extend(kernel.routes.clone());
    let found = routes(&kernel, &ways);
    assert_eq!(found.len(), 1);
    assert!(found[0].object.ends_with("and 3990 more"), "{found:?}");
    assert!(found[0].message.ends_with("the other 1000 have theirs"));
    assert_eq!(found[0].fix.as_deref(), Some("beeline load"));
    // Where that would turn the fast path on, routes are made by hand.
    let found = judge_routes(&kernel, &ways, false, &test_commands());
    let fix = found[0].fix.as_deref().unwrap();
    assert_eq!(fix.matches("ip route replace").count(), 10);
}

#[test]
fn a_route_that_leads_elsewhere_is_wrong_and_a_tunnels_is_given_in_full() {
    let (mut kernel, mut ways) = node();
    let tunnel = Tunnel {
        id: 7,
        node: "192.168.1.12".parse().unwrap(),
    };
    kernel.links.push(link(9, "bl-1"));
    ways.routes[0] = Route {
        protocol: PROTOCOL,
        ..Route::overlay("10.244.2.0/24".parse().unwrap(), tunnel, 9)
    };
    let found = routes(&kernel, &ways);
    assert!(found[0].message.contains("leads elsewhere"), "{found:?}");
    assert_eq!(
        found[0].fix.as_deref(),
        Some(
            "ip route replace 10.244.2.0/24 encap ip id 7 dst 192.168.1.12 via 192.168.1.12 \
             dev bl-1 onlink proto 190"
        )
    );
}

#[test]
fn routes_of_others_shadow_a_peer_only_if_they_win() {
    let (mut kernel, ways) = node();
    let metric = |priority, route: Route| Route {
        priority: Some(priority),
        ..route
    };
    // Wider, beside a peer's, of a higher metric.
    kernel.routes.extend([
        foreign("10.0.0.0/8", 3),
        foreign("10.244.9.0/25", 3),
        metric(100, foreign("10.244.3.0/24", 3)),
    ]);
    assert_eq!(routes(&kernel, &ways)[0].severity, Severity::Ok);
    kernel.routes.push(foreign("10.244.2.128/25", 3));
    let found = routes(&kernel, &ways);
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(
        found[0].object,
        "routes 10.244.2.128/25 (peer 10.244.2.0/24)"
    );
    assert_eq!(
        found[0].fix.as_deref(),
        Some("ip route del 10.244.2.128/25 dev eth0 proto 3")
    );
}

#[test]
fn routes_of_ours_that_no_network_has_a_peer_for_are_strays() {
    let (mut kernel, ways) = node();
    let peers = ways.routes.iter().map(|route| route.destination).collect();
    assert_eq!(judge_strays(&kernel, &peers, &test_commands()), None);
    kernel.routes.push(route("10.9.0.0/24", "192.168.1.12", 2));
    kernel.routes.push(foreign("10.8.0.0/24", 3));
    let found = judge_strays(&kernel, &peers, &test_commands()).unwrap();
    assert_eq!(found.object, "routes 10.9.0.0/24");
}

#[test]
fn an_uplink_that_is_down_is_told_with_the_command() {
    let (kernel, mut ways) = node();
    ways.uplinks[0].up = false;
    let found = routes(&kernel, &ways);
    assert_eq!(found[0].fix.as_deref(), Some("ip link set dev eth0 up"));
}

#[test]
fn only_peers_nodes_are_neighbours_that_matter() {
    let (mut kernel, ways) = node();
    let entry = |ip: &str, state| Entry {
        interface: 2,
        ip: ip.parse().unwrap(),
        mac: None,
        state,
    };
    kernel.neighbours = vec![
        entry("192.168.1.1", State::Failed),
        entry("192.168.1.12", State::Usable),
    ];
    assert_eq!(judge_neighbours(&kernel, &ways)[0].severity, Severity::Ok);
    kernel.neighbours.push(entry("192.168.1.13", State::Failed));
    let found = judge_neighbours(&kernel, &ways);
    assert_eq!(found[0].object, "nodes 192.168.1.13 on eth0 (FAILED)");
    assert_eq!(
        found[0].fix.as_deref(),
        Some("ip neigh flush to 192.168.1.13 dev eth0 nud all")
    );
}
