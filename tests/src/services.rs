//! Services, as kube-proxy 1.30 keeps them in iptables on each node, and the settings that kubelet makes for them.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;

use crate::exec;
use crate::netns::Namespace;
use crate::node::Node;
use crate::plan::{Family, cluster_cidr, family};

/// A transport protocol that a Service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// All of them. SCTP is none: not every kernel has it, and the standard library has no sockets of it.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Its name in iptables and in CNI's port mappings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `externalTrafficPolicy`: who answers at a node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All backends; they see the node's address.
    Cluster,
    /// Only the node's own backends; they see the client's address. Pods are served by all backends.
    Local,
}

/// A Service of one family, port and protocol.
#[derive(Clone, Debug)]
pub struct Service {
    /// Namespace, name and port's name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its cluster IP and port.
    pub portal: SocketAddr,
    /// Where pods, or nodes, serve it; one is taken by chance.
    pub backends: Vec<SocketAddr>,
    /// The port of each node that stands for it, if any.
    pub node_port: Option<(u16, Policy)>,
}

/// The cluster IP with a number, which counts from 0.
pub fn cluster_ip(family: Family, number: u32) -> IpAddr {
    let (high, low) = (number / 250, number % 250 + 1);
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, high as u8, low as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, high as u16, low as u16).into(),
    }
}

/// Makes a node serve these Services to its pods, to itself and to others.
pub fn install(node: &Node, services: &[Service]) -> Result<()> {
    filter_bridged(node.netns(), true)?;
    for family in node.families().list() {
        let own = |ip: IpAddr| {
            let pods = node.pod_cidrs().iter();
            ip == node.address_of(*family) || pods.into_iter().any(|cidr| cidr.contains(ip))
        };
        exec::iptables(node.netns(), *family, &rules(*family, services, own))?;
    }
    Ok(())
}

/// Has a node translate packets of all protocols from one address to another, as no Service does but firewalls do.
pub fn translate_all(node: &Node, from: IpAddr, to: IpAddr) -> Result<()> {
    filter_bridged(node.netns(), true)?;
    let rules = format!("*nat\n-A PREROUTING -d {from} -j DNAT --to-destination {to}\nCOMMIT\n");
    exec::iptables(node.netns(), family(from), &rules)
}

/// Has bridged packets pass iptables or not, as kubelet sets it; returns whether that is so.
pub fn filter_bridged(namespace: &Namespace, filter: bool) -> Result<bool> {
    for sysctl in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let key = format!("net/bridge/{sysctl}");
        if !namespace.within(|| Path::new("/proc/sys").join(&key).exists()) {
            return Ok(!filter);
        }
        namespace.write_sysctl(&key, if filter { "1" } else { "0" })?;
    }
    Ok(true)
}

/// Chains and rules in kube-proxy's order; conntrack rules last. `own` says which backends are the node's own.
pub(crate) fn rules(
    family: Family,
    services: &[Service],
    own: impl Fn(IpAddr) -> bool + Copy,
) -> String {
    let mut written = Rules {
        family,
        ..Rules::default()
    };
    let of_family = |service: &&Service| crate::plan::family(service.portal.ip()) == family;
    for (number, service) in services.iter().enumerate().filter(|(_, s)| of_family(s)) {
        written.service(number, service, own);
    }
    let Rules { chains, rules, .. } = written;
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
         {chains}\
         -I PREROUTING 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I OUTPUT 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I POSTROUTING 1 -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         {rules}\
         -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         COMMIT\n\
         *filter\n:KUBE-FORWARD - [0:0]\n:KUBE-PROXY-FIREWALL - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
         -I INPUT 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -I INPUT 2 -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS\n\
         -I INPUT 3 -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -I FORWARD 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -I FORWARD 2 -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -I FORWARD 3 -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I FORWARD 4 -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n\
         -I OUTPUT 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -I OUTPUT 2 -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n"
    )
}

/// The chains and rules of one Service after the other.
struct Rules {
    family: Family,
    chains: String,
    rules: String,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            family: Family::V4,
            chains: String::new(),
            rules: String::new(),
        }
    }
}

impl Rules {
    fn chain(&mut self, name: &str) {
        writeln!(self.chains, ":{name} - [0:0]").expect("a string can be written");
    }

    fn rule(&mut self, rule: &str) {
        writeln!(self.rules, "-A {rule}").expect("a string can be written");
    }

    fn service(&mut self, number: usize, service: &Service, own: impl Fn(IpAddr) -> bool) {
        let chain = format!("KUBE-SVC-{number:016X}");
        self.chain(&chain);
        let Service { name, portal, .. } = service;
        let (protocol, host) = (service.protocol.name(), self.host(portal.ip()));
        let to_portal = format!(
            "-d {host} -p {protocol} -m comment --comment \"{name} cluster IP\" -m {protocol} --dport {}",
            portal.port()
        );
        let cluster = cluster_cidr(self.family);
        self.rule(&format!("KUBE-SERVICES {to_portal} -j {chain}"));
        self.rule(&format!(
            "{chain} ! -s {cluster} {to_portal} -j KUBE-MARK-MASQ"
        ));
        let backends: Vec<_> = service
            .backends
            .iter()
            .enumerate()
            .map(|(index, backend)| (format!("KUBE-SEP-{number:015X}{index}"), *backend))
            .collect();
        self.choose(&chain, name, &backends);
        for (endpoint, backend) in &backends {
            self.endpoint(endpoint, service, *backend);
        }
        if let Some((port, policy)) = service.node_port {
            let own: Vec<_> = backends.into_iter().filter(|b| own(b.1.ip())).collect();
            self.node_port(number, service, port, policy, &own);
        }
    }

    /// Takes one of the backends by chance.
    fn choose(&mut self, chain: &str, name: &str, backends: &[(String, SocketAddr)]) {
        for (index, (endpoint, backend)) in backends.iter().enumerate() {
            let chance = match backends.len() - index {
                1 => String::new(),
                left => {
                    let probability = 1.0 / left as f64;
                    format!(" -m statistic --mode random --probability {probability:.11}")
                }
            };
            self.rule(&format!(
                "{chain} -m comment --comment \"{name} -> {backend}\"{chance} -j {endpoint}"
            ));
        }
    }

    fn endpoint(&mut self, chain: &str, service: &Service, backend: SocketAddr) {
        let (name, protocol) = (&service.name, service.protocol.name());
        let host = self.host(backend.ip());
        self.chain(chain);
        // A backend that asks its own Service must not see its own address.
        self.rule(&format!(
            "{chain} -s {host} -m comment --comment \"{name}\" -j KUBE-MARK-MASQ"
        ));
        self.rule(&format!(
            "{chain} -p {protocol} -m comment --comment \"{name}\" -m {protocol} -j DNAT --to-destination {backend}"
        ));
    }

    fn node_port(
        &mut self,
        number: usize,
        service: &Service,
        port: u16,
        policy: Policy,
        own: &[(String, SocketAddr)],
    ) {
        let [all, external, local] =
            ["SVC", "EXT", "SVL"].map(|kind| format!("KUBE-{kind}-{number:016X}"));
        let (name, protocol) = (&service.name, service.protocol.name());
        let cluster = cluster_cidr(self.family);
        self.chain(&external);
        self.rule(&format!(
            "KUBE-NODEPORTS -p {protocol} -m comment --comment \"{name}\" -m {protocol} --dport {port} -j {external}"
        ));
        if policy == Policy::Cluster {
            self.rule(&format!(
                "{external} -m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ"
            ));
            self.rule(&format!("{external} -j {all}"));
            return;
        }
        self.rule(&format!(
            "{external} -s {cluster} -m comment --comment \"pod traffic for {name} external destinations\" -j {all}"
        ));
        let of_node = format!(
            "{external} -m comment --comment \"LOCAL traffic for {name} external destinations\" -m addrtype --src-type LOCAL"
        );
        self.rule(&format!("{of_node} -j KUBE-MARK-MASQ"));
        self.rule(&format!("{of_node} -j {all}"));
        self.chain(&local);
        self.rule(&format!("{external} -j {local}"));
        self.choose(&local, name, own);
    }

    /// An address as a network of its own, as kube-proxy writes it.
    fn host(&self, ip: IpAddr) -> String {
        match self.family {
            Family::V4 => format!("{ip}/32"),
            Family::V6 => format!("{ip}/128"),
        }
    }
}
