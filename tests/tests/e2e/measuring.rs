//! The generators of load that benches and the demo rely on.

use std::time::Duration;

use beeline_tests::{iperf, rr};

use crate::fixture::two_nodes;

#[test]
fn throughput_and_latency_can_be_measured_between_pods() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let (from, to, ip) = (client.namespace(), server.namespace(), server.ip());
    let stream = iperf::tcp_stream(from, to, ip, 1, 0).expect("iperf3");
    assert!(stream.gigabits() > 0.01, "{stream:?}");
    let duration = Duration::from_millis(100);
    for report in [
        rr::tcp(from, to, ip, duration, 0),
        rr::udp(from, to, ip, duration, 0),
    ] {
        let report = report.expect("request/response");
        assert!(
            report.rate > 100.0 && report.p50 <= report.p99,
            "{report:?}"
        );
    }
}
