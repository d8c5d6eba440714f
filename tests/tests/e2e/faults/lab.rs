//! A node with a configuration and some pods, and a sandbox where things go wrong.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use beeline::net::with_netlink;
use beeline::node::{Store, remove};
use beeline_tests::icmp::{self, Echo};
use beeline_tests::inject::{Injected, Injection};
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::outcome::Outcome;
use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::runtime::{Attachment, Runtime};
use beeline_tests::snapshot::Snapshot;
use beeline_tests::topology::Topology;
use serde_json::{Value, json};

use crate::fixture::fast_nodes;
use crate::refusals::sandbox;
use crate::stub::Stub;

/// How long what a killed plugin had started, such as nft, may be at work still.
const CALM: Duration = Duration::from_secs(3);

/// What a node is configured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The fast path, a gateway, masquerade, a check of MACs and hairpin, both families.
    Rich,
    /// The plain bridge.
    Bridge,
    /// Addresses from a plugin that is executed, of a network that is none of the node's.
    Delegated,
    /// An overlay between the nodes.
    Overlay,
}

/// Another IPAM: it has one address, and keeps a file as long as somebody has it.
const IPAM: &str = r#"held=$(dirname "$0")/held
case $CNI_COMMAND in
ADD) touch "$held"
  echo '{"cniVersion":"1.1.0","ips":[{"address":"10.99.0.5/24","gateway":"10.99.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}';;
DEL|GC) rm -f "$held";;
CHECK) test -e "$held";;
esac"#;

pub(super) struct Lab {
    pub(super) node: Arc<Node>,
    /// The namespace of the attachment, which is not attached.
    pub(super) namespace: Namespace,
    pub(super) attachment: Attachment,
    /// On the node and on the other one; they are never touched.
    pub(super) pods: Vec<Pod>,
    stub: Option<Stub>,
    kind: Kind,
    _topology: Topology,
}

impl Lab {
    /// A node that is set up, with a pod on it and one on the other node; if it has an IPAM of its own, without.
    pub(super) fn warm(kind: Kind) -> Self {
        let (mut lab, other) = Self::build(kind);
        if kind == Kind::Delegated {
            lab.add().expect_success();
            lab.del().expect_success();
        } else {
            lab.pods = vec![
                lab.node.add_pod("near"),
                lab.node.add_pod("second"),
                other.add_pod("far"),
            ];
            lab.assert_connected();
        }
        lab
    }

    /// A node that no ADD has set up, and another one with a pod.
    pub(super) fn cold(kind: Kind) -> Self {
        let (mut lab, other) = Self::build(kind);
        lab.pods = vec![other.add_pod("far")];
        if kind == Kind::Bridge {
            // The nftables chain of MAC checks is there for good once there was one; all plugins that check share it.
            lab.add().expect_success();
            lab.del().expect_success();
            lab.make_cold();
        }
        lab
    }

    fn build(kind: Kind) -> (Self, Arc<Node>) {
        let families = match kind {
            Kind::Rich => Families::Dual,
            _ => Families::V4,
        };
        let (topology, [node, other]) = fast_nodes(families);
        let stub = (kind == Kind::Delegated).then(|| Stub::new(&node, IPAM));
        let (namespace, attachment) = sandbox(&node);
        let lab = Self {
            node,
            namespace,
            attachment,
            pods: Vec::new(),
            stub,
            kind,
            _topology: topology,
        };
        for node in [&lab.node, &other] {
            let config = node.config().version("1.1.0").with(|conf| lab.change(conf));
            config.install().expect("install");
        }
        (lab, other)
    }

    fn change(&self, conf: &mut Value) {
        let mode = if self.kind == Kind::Bridge {
            "bridge"
        } else {
            "ebpf"
        };
        conf["datapath"]["mode"] = json!(mode);
        match self.kind {
            Kind::Rich | Kind::Bridge => {
                conf["macspoofchk"] = json!(true);
                conf["hairpinMode"] = json!(true);
            }
            Kind::Delegated => {
                conf["ipam"] = json!({"type": self.stub.as_ref().expect("a stub").kind()});
                conf["isGateway"] = json!(false);
            }
            Kind::Overlay => {
                conf["datapath"]["overlay"] = json!({"type": "vxlan", "always": true});
            }
        }
    }

    pub(super) fn runtime(&self) -> Runtime<'_> {
        let runtime = self.node.runtime().at_once();
        match &self.stub {
            Some(stub) => runtime.searching(stub.search_path().into()),
            None => runtime,
        }
    }

    pub(super) fn add(&self) -> Outcome {
        self.runtime().add(&self.attachment).expect("executed")
    }

    pub(super) fn del(&self) -> Outcome {
        self.runtime()
            .del(&self.attachment, None)
            .expect("executed")
    }

    /// With the pods that nobody touches as those that are valid.
    pub(super) fn gc(&self) -> Outcome {
        self.runtime().gc(&self.valid()).expect("executed")
    }

    pub(super) fn check(&self, result: &Value) -> Outcome {
        let checked = self.runtime().check(&self.attachment, result);
        checked.expect("executed")
    }

    fn valid(&self) -> Vec<&Attachment> {
        let own = |pod: &&Pod| Arc::ptr_eq(pod.node(), &self.node);
        self.pods.iter().filter(own).map(Pod::attachment).collect()
    }

    fn stdin(&self) -> Value {
        let config = self.node.config().version("1.1.0");
        config.with(|conf| self.change(conf)).stdin()
    }

    /// Executes a verb and has something go wrong. An error is one of executing it, or that what it wrote is no JSON.
    pub(super) fn inject(
        &self,
        verb: &str,
        injection: &Injection,
    ) -> anyhow::Result<Injected<Outcome>> {
        let mut stdin = self.stdin();
        if verb == "GC" {
            let valid = self.valid().into_iter();
            let valid = valid.map(|a| json!({"containerID": a.container_id, "ifname": a.ifname}));
            stdin["cni.dev/valid-attachments"] = valid.collect();
            return self.runtime().inject(verb, None, &stdin, injection);
        }
        let attachment = Some(&self.attachment);
        self.runtime().inject(verb, attachment, &stdin, injection)
    }

    /// Everything that there is, on the node and in the sandbox.
    pub(super) fn look(&self) -> Snapshot {
        let links = self.namespace.within(|| {
            let links = fs::read_to_string("/proc/thread-self/net/dev").expect("links");
            let routes = fs::read_to_string("/proc/thread-self/net/route").expect("routes");
            let lines = links.lines().skip(2).chain(routes.lines().skip(1));
            let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
            lines.filter_map(name).collect::<Vec<_>>()
        });
        let links = links.into_iter().map(|link| format!("sandbox {link}"));
        let held = self.node.directory().join("stub/held").exists();
        let held = held.then(|| "held by the other IPAM".to_owned());
        Snapshot::of(&self.node).with(links.chain(held))
    }

    /// What differs from `before` even when all is calm; nothing if it is the same.
    pub(super) fn changes(&self, before: &Snapshot) -> String {
        let deadline = Instant::now() + CALM;
        loop {
            let changes = before.diff(&self.look());
            if changes.is_empty() || Instant::now() > deadline {
                return changes;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Takes the network off the node, which is then as before the first ADD.
    pub(super) fn make_cold(&self) {
        let conf = self.stdin();
        let remove = || {
            let plan = beeline::cni::plan_of(&conf)?;
            let store = Store::new(&plan);
            with_netlink(async |host| Ok(remove(host, &plan, &store, true).await.failures))
        };
        let failures = self.node.netns().within(remove).expect("removed");
        assert!(failures.is_empty(), "{failures:?}");
        for family in ["ipv4", "ipv6"] {
            let key = format!("net/{family}/conf/all/forwarding");
            self.node.netns().write_sysctl(&key, "0").expect("sysctl");
        }
    }

    /// Pings from the sandbox, which is attached, to the gateway and to pods.
    pub(super) fn assert_attached(&self) {
        let gateway = self.node.gateway();
        let pods = self.pods.iter().map(Pod::ip);
        for ip in [gateway].into_iter().chain(pods) {
            icmp::ping(&self.namespace, &Echo::to(ip)).assert_received();
        }
    }

    /// Pings between all pods there are.
    pub(super) fn assert_connected(&self) {
        if let [first, others @ ..] = &*self.pods {
            for ip in others.iter().flat_map(Pod::ips) {
                first.ping(*ip, 1).assert_received();
            }
        }
    }
}
