//! Packets that are not the common case: fragments, TTLs, sizes.

use std::time::Duration;

use beeline_tests::icmp::Echo;
use beeline_tests::traffic::udp_echo;

use crate::fixture::{one_node, two_nodes};

#[test]
fn a_fragmented_datagram_arrives_on_one_node() {
    let (_topology, node) = one_node();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let payload: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
    udp_echo(
        client.namespace(),
        server.namespace(),
        server.ip(),
        &payload,
    )
    .expect("UDP");
}

#[test]
fn a_fragmented_datagram_arrives_across_nodes() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let payload: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
    udp_echo(
        client.namespace(),
        server.namespace(),
        server.ip(),
        &payload,
    )
    .expect("UDP");
}

#[test]
fn a_packet_of_full_size_arrives() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    // 1500 bytes with the headers of IP and ICMP.
    client
        .echo(&Echo {
            size: 1472,
            count: 2,
            ..Echo::to(server.ip())
        })
        .assert_received();
}

#[test]
fn ttl_is_kept_on_one_node() {
    let (_topology, node) = one_node();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let ping = client.ping(server.ip(), 3);
    assert_eq!(ping.assert_received().ttls, [64, 64, 64]);
    client
        .echo(&Echo {
            ttl: 1,
            ..Echo::to(server.ip())
        })
        .assert_received();
}

#[test]
fn ttl_is_decremented_by_each_node() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let ping = client.ping(server.ip(), 3);
    assert_eq!(ping.assert_received().ttls, [62, 62, 62]);
}

#[test]
fn a_ttl_that_runs_out_is_reported_by_the_node_where_it_does() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    client.ping(server.ip(), 1).assert_received();
    let echo = Echo {
        timeout: Duration::from_millis(500),
        ..Echo::to(server.ip())
    };
    let ping = client.echo(&Echo {
        ttl: 1,
        ..echo.clone()
    });
    assert_eq!(
        (ping.received(), ping.time_exceeded()),
        (0, vec![a.gateway()]),
        "TTL 1: {ping}"
    );
    let ping = client.echo(&Echo {
        ttl: 2,
        ..echo.clone()
    });
    assert_eq!(
        (ping.received(), ping.time_exceeded()),
        (0, vec![b.address()]),
        "TTL 2: {ping}"
    );
    client.echo(&Echo { ttl: 3, ..echo }).assert_received();
}
