//! Many nodes, and many changes.

use std::{net::Ipv4Addr, sync::Arc, sync::atomic::Ordering, time::Duration};

use beeline_tests::etcd::{Cluster, Host};
use etcd_client::{CompactionOptions, Txn, TxnOp};
use tokio::task::JoinSet;

use super::{
    super::connect::{Endpoint, Tls},
    node::{Node, Spec, within},
};

/// Does something with a client of the first member.
fn with_client<T: Send>(
    cluster: &Cluster,
    host: &Host,
    f: impl AsyncFnOnce(etcd_client::Client) -> T + Send,
) -> T {
    let tls = Tls {
        cacert: None,
        identity: None,
    };
    let endpoint = Endpoint::new(&cluster.endpoint(0), &tls).unwrap();
    host.netns
        .within(|| within(async { f(endpoint.connect().await.unwrap()).await }))
}

/// What a node's key holds that has so many addresses.
fn value(subnet: &str, addresses: u32) -> String {
    let first = u32::from(Ipv4Addr::new(10, 100, 0, 0));
    let addresses: Vec<_> = (0..addresses)
        .map(|index| Ipv4Addr::from(first + index))
        .collect();
    serde_json::json!({"machine": "", "addresses": addresses, "podCIDRs": [subnet]}).to_string()
}

#[test]
fn five_thousand_nodes_come_page_by_page() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    with_client(&cluster, &host, async |mut client| {
        let numbers: Vec<u32> = (0..5000).collect();
        for some in numbers.chunks(60) {
            let puts = some.iter().flat_map(|number| {
                let subnet = format!("10.{}.{}.0/24", number / 256, number % 256);
                let key = format!("/beeline/v1/subnets/ipv4/{}", subnet.replace('/', "-"));
                [
                    TxnOp::put(
                        format!("/beeline/v1/nodes/node-{number}"),
                        value(&subnet, 1),
                        None,
                    ),
                    TxnOp::put(key, r#"{"node": "x", "machine": "x"}"#, None),
                ]
            });
            let puts: Vec<_> = puts.collect();
            client.txn(Txn::new().and_then(puts)).await.unwrap();
        }
    });
    let spec = Spec::new("a").with("--cluster-cidr", "10.0.0.0/8");
    let node = Node::ready(&cluster, &host, &spec);
    assert_eq!((node.members.len(), node.told.len()), (5001, 1));
    let own = node.subnets()[0];
    let taken = |name: &String| name != "a" && node.members[name].pod_cidrs.contains(&own);
    assert!(!node.members.keys().any(taken));
}

#[test]
fn a_node_that_falls_behind_what_is_compacted_reads_everything_again() {
    let cluster = Cluster::start(1);
    let host = Arc::new(cluster.host());
    let mut node = Node::ready(&cluster, &host, &Spec::new("a"));
    node.deaf.store(true, Ordering::Relaxed);
    // More than pipes and windows between them hold.
    with_client(&cluster, &host, async |mut client| {
        let value = value("10.244.255.0/24", 400);
        let mut last = 0;
        for _ in 0..60 {
            let mut puts = JoinSet::new();
            for _ in 0..64 {
                let (mut client, value) = (client.clone(), value.clone());
                puts.spawn(async move { client.put("/beeline/v1/nodes/busy", value, None).await });
            }
            for put in puts.join_all().await {
                last = last.max(put.unwrap().header().unwrap().revision());
            }
        }
        client
            .put(
                "/beeline/v1/nodes/last",
                super::crowds::value("10.244.254.0/24", 1),
                None,
            )
            .await
            .unwrap();
        let options = CompactionOptions::new().with_physical();
        client.compact(last, Some(options)).await.unwrap();
    });
    node.deaf.store(false, Ordering::Relaxed);
    node.wait("everything again", |node| node.synchronised() == 2);
    assert!(node.knows(&["a", "busy", "last"]));
    assert!(node.log().contains("compacted"), "{}", node.log());
    assert!(!node.was_lost());
    node.listen(Duration::from_millis(300));
    assert_eq!(node.synchronised(), 2);
}
