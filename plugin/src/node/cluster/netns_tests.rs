//! The peers of a cluster on a node that is a namespace, on the plain bridge.

use std::process::Command;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::*;
use crate::{
    datapath::config::{DatapathConf, OverlayConf, OverlayKind},
    net::{address::Dad, testing},
    nft::Difference,
    node::{self, BridgePlan, Whole, drift},
};

/// A node with an uplink `up0`, on which its neighbours are, and a router to others.
struct Lab<'a> {
    netlink: &'a Netlink,
    plan: Plan,
    store: Store,
    _state: TempDir,
}

impl<'a> Lab<'a> {
    async fn new(netlink: &'a Netlink) -> Result<Self> {
        run("ip link add up0 type veth peer name up1")?;
        run("ip link set up1 up")?;
        run("ip link set up0 up")?;
        run("ip address add 192.168.1.11/24 dev up0")?;
        run("ip route add default via 192.168.1.1 dev up0")?;
        let state = TempDir::with_prefix_in("beeline-test-", "/run")?;
        let plan = Plan {
            network: "pods".to_owned(),
            bridge: BridgePlan {
                name: "cni0".to_owned(),
                mtu: None,
                promiscuous: false,
                gateway: true,
                vlans: None,
            },
            pod_cidrs: vec!["10.244.1.0/24".parse()?],
            masquerade: true,
            datapath: DatapathConf {
                mode: Mode::Bridge,
                state_dir: state.path().to_owned(),
                overlay: Some(OverlayConf {
                    kind: OverlayKind::Vxlan,
                    vni: 1,
                    port: 8472,
                    always: false,
                }),
                ..DatapathConf::default()
            },
        };
        Ok(Self {
            netlink,
            store: Store::new(&plan),
            plan,
            _state: state,
        })
    }

    async fn reconcile(&self, cluster: &Cluster) -> Result<Record> {
        reconcile(self.netlink, &self.plan, &self.store, cluster).await
    }

    async fn follow(&self, before: &Cluster, after: &Cluster) -> Result<Followed> {
        follow(self.netlink, &self.plan, &self.store, before, after).await
    }

    /// Follows where that is enough, as an agent does.
    async fn change(&self, before: &Cluster, after: &Cluster) -> Result<Followed> {
        let followed = self.follow(before, after).await?;
        if followed == Followed::NeedsReconcile {
            self.reconcile(after).await?;
        }
        Ok(followed)
    }

    async fn drifts(&self) -> Result<Vec<String>> {
        let drifts = drift::find(self.netlink, &self.plan, &self.store).await?;
        Ok(drifts.iter().map(ToString::to_string).collect())
    }

    /// Whether an ADD would find the node set up.
    async fn is_ready(&self) -> Result<bool> {
        Ok(setup::ready(self.netlink, &self.plan, &self.store)
            .await?
            .is_some())
    }
}

fn run(command: &str) -> Result<String> {
    let mut words = command.split(' ');
    let output = Command::new(words.next().context("no command")?)
        .args(words)
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Destinations and next hops of beeline's own routes.
fn routes() -> Result<Vec<String>> {
    let listed = run("ip route show proto 190")?;
    let mut routes: Vec<String> = listed
        .lines()
        .map(|line| {
            line.split(' ')
                .filter(|word| word.contains('.'))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    routes.sort();
    Ok(routes)
}

/// What nothing is masqueraded towards.
fn exempt() -> Result<Vec<String>> {
    let listed = run("nft -j list set inet beeline-pods cluster4")?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let elements = listed["nftables"][1]["set"]["elem"]
        .as_array()
        .context("elements")?;
    let mut exempt: Vec<String> = elements
        .iter()
        .map(|element| {
            element["prefix"]["addr"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    exempt.sort();
    Ok(exempt)
}

fn cluster(peers: &[(&str, &str)]) -> Cluster {
    let peer = |(cidr, node): &(&str, &str)| ClusterPeer {
        name: format!("node-{cidr}"),
        cidr: cidr.parse().unwrap(),
        node: node.parse().unwrap(),
    };
    Cluster {
        backend: "kubernetes".to_owned(),
        node: "own".to_owned(),
        peers: peers.iter().map(peer).collect(),
        problems: Vec::new(),
    }
}

#[test]
fn peers_come_change_and_go_by_their_entries_alone() {
    testing::netlink(async |netlink| {
        let lab = Lab::new(netlink).await?;
        let first = cluster(&[
            ("10.244.2.0/24", "192.168.1.12"),
            ("10.244.3.0/24", "192.168.1.13"),
        ]);
        let record = lab.reconcile(&first).await?;
        assert!(
            record.plan.peers().is_empty() && record.problems.is_empty(),
            "{record:?}"
        );
        assert!(lab.is_ready().await?, "an ADD would set the node up again");
        let second = cluster(&[
            ("10.244.2.0/24", "192.168.1.22"),
            ("10.244.4.0/24", "192.168.1.14"),
            ("10.245.0.0/16", "192.168.1.15"),
        ]);
        assert_eq!(lab.follow(&first, &second).await?, Followed::Entirely);
        assert_eq!(
            routes()?,
            [
                "10.244.2.0/24 192.168.1.22",
                "10.244.4.0/24 192.168.1.14",
                "10.245.0.0/16 192.168.1.15"
            ]
        );
        assert_eq!(
            exempt()?,
            ["10.244.1.0", "10.244.2.0", "10.244.4.0", "10.245.0.0"]
        );
        assert_eq!(lab.drifts().await?, [""; 0]);
        assert!(lab.is_ready().await?, "an ADD would set the node up again");
        assert_eq!(lab.store.cluster(), Some(second));
        Ok(())
    });
}

#[test]
fn nodes_behind_a_router_take_the_overlay_and_leave_nothing_in_it() {
    testing::netlink(async |netlink| {
        let lab = Lab::new(netlink).await?;
        let near = ("10.244.2.0/24", "192.168.1.12");
        let none = cluster(&[near]);
        lab.reconcile(&none).await?;
        let one = cluster(&[near, ("10.244.3.0/24", "192.168.2.13")]);
        assert_eq!(lab.change(&none, &one).await?, Followed::NeedsReconcile);
        let two = cluster(&[
            near,
            ("10.244.3.0/24", "192.168.2.13"),
            ("10.244.4.0/24", "192.168.2.14"),
        ]);
        assert_eq!(lab.change(&one, &two).await?, Followed::Entirely);
        assert_eq!(lab.drifts().await?, [""; 0]);
        let device = overlay_name();
        assert_eq!(
            run(&format!("ip neigh show dev {device}"))?.lines().count(),
            2
        );
        assert_eq!(lab.change(&two, &none).await?, Followed::Entirely);
        assert_eq!(run(&format!("ip neigh show dev {device}"))?, "");
        assert_eq!(routes()?, ["10.244.2.0/24 192.168.1.12"]);
        assert_eq!(lab.drifts().await?, [""; 0]);
        Ok(())
    });
}

fn overlay_name() -> String {
    super::super::overlay::name("pods")
}

#[test]
fn what_others_changed_is_found_and_mended() {
    testing::netlink(async |netlink| {
        let lab = Lab::new(netlink).await?;
        let all = cluster(&[
            ("10.244.2.0/24", "192.168.1.12"),
            ("10.244.3.0/24", "192.168.2.13"),
        ]);
        lab.reconcile(&all).await?;
        run("ip route del 10.244.2.0/24")?;
        run("ip route add 10.99.0.0/16 via 192.168.1.99 proto 190")?;
        run(&format!(
            "ip neigh flush dev {} nud permanent",
            overlay_name()
        ))?;
        let drifts = lab.drifts().await?;
        let hop = overlay_hop();
        assert_eq!(
            drifts,
            [
                "route 10.244.2.0/24: missing, or another one".to_owned(),
                "route 10.99.0.0/16: leads to no peer".to_owned(),
                format!("neighbour {hop}: missing"),
            ]
        );
        lab.reconcile(&all).await?;
        assert_eq!(lab.drifts().await?, [""; 0]);
        run("nft delete element inet beeline-pods cluster4 { 10.244.3.0/24 }")?;
        let exempts = "masquerade exempts other pod CIDRs than the cluster's";
        assert_eq!(lab.drifts().await?, [exempts]);
        lab.reconcile(&all).await?;
        assert_eq!(lab.drifts().await?, [""; 0]);
        run("nft delete table inet beeline-pods")?;
        assert_eq!(lab.drifts().await?, ["node is not as it was set up"]);
        lab.reconcile(&all).await?;
        assert_eq!(lab.drifts().await?, [""; 0]);
        Ok(())
    });
}

fn overlay_hop() -> std::net::IpAddr {
    let (cidr, node) = (
        "10.244.3.0/24".parse().unwrap(),
        "192.168.2.13".parse().unwrap(),
    );
    crate::net::overlay::overlay_hop(cidr, node)
}

#[test]
fn a_killed_agents_peers_are_swept_up_and_those_of_other_networks_stay() {
    testing::netlink(async |netlink| {
        let lab = Lab::new(netlink).await?;
        let mut other = lab.plan.clone();
        "others".clone_into(&mut other.network);
        "cni1".clone_into(&mut other.bridge.name);
        other.pod_cidrs = vec!["10.250.1.0/24".parse()?];
        other.datapath.peers = vec![PeerConf {
            cidr: "10.250.2.0/24".parse()?,
            node: "192.168.1.12".parse()?,
        }];
        other.datapath.overlay = None;
        let store = Store::new(&other);
        let lock = store.lock_exclusive()?;
        setup::set_up(netlink, &other, &store).await?;
        drop(lock);
        lab.reconcile(&cluster(&[("10.244.2.0/24", "192.168.1.12")]))
            .await?;
        // Nobody has written down that this was one.
        run("ip route add 10.244.9.0/24 via 192.168.1.19 proto 190")?;
        lab.reconcile(&cluster(&[("10.244.2.0/24", "192.168.1.12")]))
            .await?;
        assert_eq!(
            routes()?,
            ["10.244.2.0/24 192.168.1.12", "10.250.2.0/24 192.168.1.12"]
        );
        Ok(())
    });
}

#[test]
fn a_node_with_another_pod_cidr_gives_up_the_former_gateway() {
    testing::netlink(async |netlink| {
        let mut lab = Lab::new(netlink).await?;
        lab.reconcile(&Cluster::default()).await?;
        let bridge = netlink.link("cni0").await?.context("cni0")?;
        netlink
            .add_address(bridge.index, "10.244.1.1/24".parse()?, Dad::Off)
            .await?;
        lab.plan.pod_cidrs = vec!["10.244.7.0/24".parse()?];
        lab.reconcile(&cluster(&[("10.244.1.0/24", "192.168.1.12")]))
            .await?;
        let addresses = netlink.addresses(bridge.index).await?;
        assert!(
            !addresses.iter().any(|held| held.network.is_ipv4()),
            "{addresses:?}"
        );
        assert_eq!(routes()?, ["10.244.1.0/24 192.168.1.12"]);
        Ok(())
    });
}

#[test]
fn an_overlays_device_that_is_gone_is_found_and_made_anew() {
    testing::netlink(async |netlink| {
        let lab = Lab::new(netlink).await?;
        let far = cluster(&[("10.244.3.0/24", "192.168.2.13")]);
        lab.reconcile(&far).await?;
        run(&format!("ip link delete {}", overlay_name()))?;
        assert_eq!(lab.drifts().await?, ["node has lost its overlay's device"]);
        lab.reconcile(&far).await?;
        assert_eq!(lab.drifts().await?, [""; 0]);
        Ok(())
    });
}

#[test]
fn peers_that_a_plan_names_count_for_more_than_those_of_an_agent() {
    testing::netlink(async |netlink| {
        let lab = Lab::new(netlink).await?;
        let known = cluster(&[("10.244.2.0/24", "192.168.1.12")]);
        assert!(!Whole::of(&lab.plan, &lab.store).is_clustered());
        lab.reconcile(&known).await?;
        let whole = Whole::of(&lab.plan, &lab.store);
        assert_eq!(whole.cluster, Some(known));
        assert_eq!(whole.plan.peers()[0].cidr, "10.244.2.0/24".parse()?);
        assert!(whole.masquerades()?);
        let mut named = lab.plan.clone();
        named.datapath.peers = vec![PeerConf {
            cidr: "10.244.9.0/24".parse()?,
            node: "192.168.1.19".parse()?,
        }];
        let whole = Whole::of(&named, &lab.store);
        assert!(!whole.is_clustered());
        assert_eq!(whole.plan, named);
        Ok(())
    });
}

#[test]
fn a_network_that_is_not_alone_takes_its_clusters_routes_with_it() {
    testing::netlink(async |netlink| {
        let lab = Lab::new(netlink).await?;
        lab.reconcile(&cluster(&[("10.244.2.0/24", "192.168.1.12")]))
            .await?;
        run("ip route add 10.99.0.0/16 via 192.168.1.99 proto 190")?;
        let removal = node::remove(netlink, &lab.plan, &lab.store, false).await;
        assert!(removal.failures.is_empty(), "{removal:?}");
        assert_eq!(routes()?, ["10.99.0.0/16 192.168.1.99"]);
        Ok(())
    });
}

#[test]
fn what_is_masqueraded_towards_peers_by_mistake_is_named() {
    testing::netlink(async |netlink| {
        let lab = Lab::new(netlink).await?;
        lab.reconcile(&cluster(&[
            ("10.244.2.0/24", "192.168.1.12"),
            ("10.244.3.0/24", "192.168.1.13"),
        ]))
        .await?;
        let whole = Whole::of(&lab.plan, &lab.store);
        let masquerade = Masquerade { network: "pods" };
        let compare = || masquerade.compare_cluster(&whole.plan.cluster_cidrs());
        assert_eq!(compare()?, None);
        let (lost, more) = ("10.244.3.0/24".parse()?, "10.9.0.0/16".parse()?);
        masquerade.change_cluster(&[more], &[])?;
        assert_eq!(compare()?, Some(Difference::default()));
        masquerade.change_cluster(&[], &[more, lost])?;
        let missing = vec![lost];
        assert_eq!(compare()?, Some(Difference { missing }));
        assert!(whole.masquerades()?, "the CIDRs of this node are the same");
        Ok(())
    });
}

#[test]
fn peers_in_the_configuration_are_refused() {
    testing::netlink(async |netlink| {
        let mut lab = Lab::new(netlink).await?;
        lab.plan.datapath.peers = vec![PeerConf {
            cidr: "10.244.2.0/24".parse()?,
            node: "192.168.1.12".parse()?,
        }];
        let error = lab.reconcile(&Cluster::default()).await.unwrap_err();
        assert!(error.to_string().starts_with("datapath.peers:"), "{error}");
        assert!(!lab.store.root().exists());
        Ok(())
    });
}
