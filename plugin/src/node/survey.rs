//! A node as it is beside what it should be for a network: read in a few dumps however many peers there are, and without
//! changing anything.

use std::{collections::HashSet, net::IpAddr, path::PathBuf};

use anyhow::Result;
use beeline_common::{Hook, Peer, Pod};
use ipnetwork::IpNetwork;

use super::{
    Attachment, Plan, Record, Store, Whole, bridge,
    fastpath::{self, Places},
    firewall, overlay,
    peers::Neighbourhood,
    setup,
    way::Table,
};
use crate::{
    datapath::{Datapath, Pins, Place},
    net::{
        Netlink,
        link::Link,
        neighbour::{Entry, Neighbour},
        route::{Filter, Route, RouteTo, TABLE_MAIN},
    },
};

/// What the kernel has, for all networks.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// All links.
    pub links: Vec<Link>,
    /// The unicast routes of the main table.
    pub routes: Vec<Route>,
    /// The neighbours on all links.
    pub neighbours: Vec<Entry>,
    /// The node's own addresses.
    pub own: HashSet<IpAddr>,
}

impl Kernel {
    /// Reads it.
    pub async fn read(netlink: &Netlink) -> Result<Self> {
        let main = Filter {
            table: Some(TABLE_MAIN),
            ..Filter::default()
        };
        Ok(Self {
            links: netlink.links().await?,
            routes: netlink.routes(main).await?,
            neighbours: netlink.neighbour_entries().await?,
            own: netlink.own_addresses().await?.into_iter().collect(),
        })
    }

    /// The link of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link of that index.
    pub fn link_at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The name of a link, or its index if it is gone.
    pub fn name_of(&self, index: u32) -> String {
        let link = self.link_at(index);
        link.map_or_else(|| index.to_string(), |link| link.name.clone())
    }
}

/// How the peers are reached, or should be.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// The interfaces towards the other nodes.
    pub uplinks: Vec<Link>,
    /// The overlay's device, if it is there.
    pub overlay: Option<Link>,
    /// The name that the overlay's device has or should have.
    pub overlay_name: String,
    /// The MTU that the overlay's device should have; none if no peer needs it.
    pub overlay_mtu: Option<u32>,
    /// What the ways to the peers leave a pod's link for an MTU, if that is less than the kernel's own.
    pub pod_mtu: Option<u32>,
    /// Peers that cannot be reached and uplinks that are missing.
    pub problems: Vec<String>,
    /// The routes that there should be.
    pub routes: Vec<Route>,
    /// The neighbours that the overlay's device should know.
    pub neighbours: Vec<Neighbour>,
    /// The peers that the maps should have.
    pub peers: Vec<(IpNetwork, Peer)>,
}

/// Whether programs that tell of packets stand in for the pinned ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Monitored {
    /// None do.
    #[default]
    No,
    /// A monitor runs.
    Yes,
    /// A monitor was killed, and could not put the pinned programs back.
    Abandoned,
}

/// What is pinned and attached, and what should be.
#[derive(Clone, Debug, Default)]
pub struct Pinned {
    /// The directory of the pins.
    pub directory: PathBuf,
    /// Whether the programs were translated to the processor's instructions.
    pub jitted: bool,
    /// How many flows each of the maps of flows can hold.
    pub flow_sizes: [u32; 2],
    /// Hooks whose program another build loaded.
    pub of_other_builds: Vec<Hook>,
    /// Why this build's programs could not be loaded to compare them.
    pub refused: Option<String>,
    /// The pods that the maps have, by address.
    pub pods: Vec<(IpAddr, Pod)>,
    /// The pods that they should have; none if there is no bridge.
    pub wanted_pods: Option<Vec<(IpAddr, Pod)>>,
    /// The peers that the maps have.
    pub peers: Vec<(IpNetwork, Peer)>,
    /// Where programs are attached.
    pub attached: Vec<(Hook, u32)>,
    /// Where they should be.
    pub wanted_places: Vec<(Hook, u32)>,
    /// Where pins say that programs are attached, which the kernel has not there.
    pub loose: Vec<(Hook, u32)>,
    /// Whether it is monitored.
    pub monitored: Monitored,
}

/// A network on this node.
#[derive(Debug)]
pub struct Survey {
    /// What the node was set up for, with the peers.
    pub whole: Whole,
    /// The pods.
    pub attachments: Vec<Attachment>,
    /// How the peers are reached.
    pub ways: Ways,
    /// The fast path, if all of this build's is pinned.
    pub pinned: Option<Pinned>,
    /// Other versions of the ABI that there are pins of.
    pub other_versions: Vec<String>,
    /// The settings without which the node forwards nothing for its pods; all have to be 1.
    pub forwarding: Vec<&'static str>,
    /// Whether a process watches new pods.
    pub watched: bool,
    neighbourhood: Neighbourhood,
}

impl Survey {
    /// Looks at a network.
    pub async fn read(
        netlink: &Netlink,
        kernel: &Kernel,
        store: &Store,
        record: &Record,
    ) -> Result<Self> {
        let whole = Whole::of(&record.plan, store);
        let plan = &whole.plan;
        let mut table = Table::new(&kernel.routes);
        table.resolve(netlink, plan.peers()).await?;
        let neighbourhood = Neighbourhood::of(plan, &kernel.links, |node| {
            // The kernel sends what is its own to loopback.
            let own = kernel.own.contains(&node).then(|| RouteTo {
                interface: kernel.link("lo").map_or(0, |link| link.index),
                gateway: None,
                source: None,
            });
            own.or_else(|| table.way_to(node))
        });
        let attachments = store.attachments()?;
        let datapath = Datapath::open(&plan.datapath.bpffs, &plan.network);
        let pinned = match &datapath {
            Some(datapath) => {
                let bridge = bridge::find(netlink, &plan.bridge).await?;
                let places = bridge
                    .as_ref()
                    .map(|bridge| Places::find(bridge, &neighbourhood, store))
                    .transpose()?;
                Some(pinned(plan, store, datapath, places.as_ref())?)
            }
            None => None,
        };
        Ok(Self {
            attachments,
            ways: ways(plan, &neighbourhood),
            pinned,
            other_versions: Pins::new(&plan.datapath.bpffs, &plan.network).other_versions()?,
            forwarding: setup::forwarding(plan).collect(),
            watched: store.is_watched()?,
            neighbourhood,
            whole,
        })
    }

    /// What in netfilter the fast path of the network would defeat now, each in one line. Runs `nft`.
    pub fn defeated(&self) -> Vec<String> {
        firewall::defeated(&self.whole.plan, &self.neighbourhood)
    }
}

fn ways(plan: &Plan, neighbourhood: &Neighbourhood) -> Ways {
    Ways {
        uplinks: neighbourhood.uplinks.clone(),
        overlay: neighbourhood
            .overlay
            .as_ref()
            .map(|overlay| overlay.link.clone()),
        overlay_name: overlay::name(&plan.network),
        overlay_mtu: neighbourhood.overlay_mtu(),
        pod_mtu: neighbourhood.pod_mtu(),
        problems: neighbourhood.problems.clone(),
        routes: neighbourhood.routes(),
        neighbours: neighbourhood
            .neighbours()
            .map_or_else(Vec::new, |(_, neighbours)| neighbours),
        peers: neighbourhood.entries(),
    }
}

fn pinned(
    plan: &Plan,
    store: &Store,
    datapath: &Datapath,
    wanted: Option<&Places<'_>>,
) -> Result<Pinned> {
    let places = datapath.places()?;
    let programs = datapath.programs()?;
    let stands_in = |place: &Place| !programs.contains(&(place.hook, place.program));
    let monitored = match (places.iter().any(stands_in), store.is_monitored()?) {
        (false, _) => Monitored::No,
        (true, true) => Monitored::Yes,
        (true, false) => Monitored::Abandoned,
    };
    let of_pod = |(attachment, pod): (&Attachment, Pod)| {
        let ips = attachment.ips();
        ips.into_iter().map(move |ip| (ip, pod)).collect::<Vec<_>>()
    };
    let at = |place: &Place| (place.hook, place.ifindex);
    // Nobody unloads meanwhile.
    let lock = store.root().exists().then(|| store.lock_shared());
    let lock = lock.transpose()?;
    let (of_other_builds, refused) = match datapath.of_other_builds(&fastpath::settings(plan)) {
        Ok(hooks) => (hooks, None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    drop(lock);
    Ok(Pinned {
        directory: datapath.pins().to_owned(),
        jitted: datapath.is_jitted()?,
        flow_sizes: datapath.flow_sizes()?,
        of_other_builds,
        refused,
        pods: datapath.pods()?,
        wanted_pods: wanted.map(|places| places.pods().into_iter().flat_map(of_pod).collect()),
        peers: datapath.peers()?,
        attached: places.iter().map(at).collect(),
        wanted_places: wanted.map_or_else(Vec::new, |places| {
            [places.observers(), places.redirectors()].concat()
        }),
        loose: datapath.loose(&places).iter().map(at).collect(),
        monitored,
    })
}

/// Names each place as `from_pod on veth…`.
pub fn place_name(kernel: &Kernel, (hook, ifindex): (Hook, u32)) -> String {
    format!("{} on {}", hook.name(), kernel.name_of(ifindex))
}
