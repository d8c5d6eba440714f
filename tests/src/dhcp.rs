//! DHCP on a node: a server behind its bridge, and the daemon that keeps the leases of the `dhcp` IPAM plugin.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::exec;
use crate::netns::{Ipv6, Namespace};
use crate::node::{BRIDGE, Node};

/// The server's address, which it hands out as the gateway.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

/// Clients are told to renew their leases so long after they got them; dnsmasq takes a smaller option for a mistake.
pub const RENEWAL: Duration = Duration::from_secs(3);

/// Starting, and what the network does, takes milliseconds; the rest is for a machine that is busy.
const TIMEOUT: Duration = Duration::from_secs(30);

/// dnsmasq in a namespace of its own, with a cable to the node's bridge; it ends on drop.
#[derive(Debug)]
pub struct Server {
    _process: Process,
    namespace: Namespace,
    log: PathBuf,
    leases: PathBuf,
}

/// The plugin's daemon; it ends on drop.
#[derive(Debug)]
pub struct Daemon {
    _process: Process,
    socket: PathBuf,
    log: PathBuf,
}

#[derive(Debug)]
struct Process(Child);

impl Server {
    /// Starts it, and makes the bridge if the plugin has not yet.
    pub fn start(node: &Node) -> Result<Self> {
        let namespace = Namespace::create(&format!("{}-dhcp", node.name()), Ipv6::Disabled)?;
        connect(node, &namespace)?;
        let (log, leases) = (
            node.directory().join("dnsmasq.log"),
            node.directory().join("dnsmasq.leases"),
        );
        let file = |option: &str, path: &Path| format!("--{option}={}", path.display());
        let mut command = namespace.command("dnsmasq");
        command.args([
            // In the foreground, as itself, with nothing of the machine's own, and no DNS.
            "--keep-in-foreground",
            "--user=root",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--port=0",
            "--interface=eth0",
            "--bind-interfaces",
            // Two minutes are the shortest lease it has.
            "--dhcp-range=10.99.0.50,10.99.0.150,255.255.255.0,2m",
            "--dhcp-authoritative",
            // Without waiting whether somebody answers a ping.
            "--no-ping",
        ]);
        command.arg(format!("--dhcp-option=option:router,{SERVER}"));
        command.arg(format!("--dhcp-option=option:T1,{}", RENEWAL.as_secs()));
        command.args([file("dhcp-leasefile", &leases), file("log-facility", &log)]);
        let server = Self {
            _process: Process::start(&mut command)?,
            namespace,
            log,
            leases,
        };
        wait("dnsmasq to listen", || {
            read(&server.log).contains("sockets bound")
        })?;
        Ok(server)
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Waits until exactly these addresses are leased, in the order of the server's file, which it now and then rewrites.
    pub fn wait_for_leases(&self, expected: &[IpAddr]) -> Result<()> {
        let address = |lease: &str| lease.split_whitespace().nth(2)?.parse().ok();
        let leased = || -> Vec<IpAddr> {
            let leases = read(&self.leases);
            leases.lines().filter_map(address).collect()
        };
        let what = format!("the leases to be {expected:?}");
        wait(&what, || leased() == expected).with_context(|| read(&self.leases))
    }

    /// How often it logged a message such as `DHCPACK` about an address.
    pub fn logged(&self, message: &str, ip: IpAddr) -> usize {
        let wanted = format!("{message}(eth0) {ip} ");
        let log = read(&self.log);
        log.lines().filter(|line| line.contains(&wanted)).count()
    }

    /// Waits until it has logged a message about an address so often.
    pub fn wait_for(&self, message: &str, ip: IpAddr, times: usize) -> Result<()> {
        let what = format!("{times} × {message} {ip}");
        wait(&what, || self.logged(message, ip) >= times).with_context(|| read(&self.log))
    }
}

impl Daemon {
    /// Starts it; it enters the pods' namespaces by the paths it is told.
    pub fn start(node: &Node) -> Result<Self> {
        let at = |name: &str| node.directory().join(name);
        let (socket, log) = (at("dhcp.sock"), at("dhcp.log"));
        let mut command = node.netns().command("/usr/lib/cni/dhcp");
        command.arg("daemon").arg("-socketpath").arg(&socket);
        command.stderr(File::create(&log)?);
        let daemon = Self {
            _process: Process::start(&mut command)?,
            socket,
            log,
        };
        wait("the dhcp daemon to listen", || daemon.socket.exists())?;
        Ok(daemon)
    }

    /// The `ipam` object that has the plugin ask this daemon.
    pub fn ipam(&self) -> Value {
        json!({ "type": "dhcp", "daemonSocketPath": self.socket })
    }

    /// What it has said.
    pub fn log(&self) -> String {
        read(&self.log)
    }
}

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn();
        let child = child.with_context(|| format!("{:?}: start", command.get_program()))?;
        Ok(Self(child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(node: &Node, namespace: &Namespace) -> Result<()> {
    let links = exec::stdout(node.netns().command("ip").args(["-o", "link"]))?;
    if !links.contains(&format!(" {BRIDGE}:")) {
        let commands = [
            format!("link add {BRIDGE} type bridge"),
            format!("link set {BRIDGE} up"),
        ];
        exec::ip_batch(node.netns(), &commands)?;
    }
    let name = node.name();
    let cable = format!("link add eth0 type veth peer name dhcp0 netns {name}");
    let address = format!("address add {SERVER}/24 dev eth0");
    exec::ip_batch(namespace, &[cable, address, "link set eth0 up".into()])?;
    exec::ip_batch(
        node.netns(),
        &[format!("link set dhcp0 master {BRIDGE} up")],
    )
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn wait(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        ensure!(start.elapsed() < TIMEOUT, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
