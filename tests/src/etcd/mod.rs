//! An etcd of one or three members, each in a namespace of its own, and hosts on the same switch; for tests, which panic
//! where it does not come up. It needs etcd and etcdctl, and openssl for certificates.

mod join;
mod pki;

use std::{
    fs::File,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::wait;
use crate::{
    exec,
    netns::{Ipv6, Namespace},
    sweep,
    topology::unique_prefix,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

pub use self::pki::Pki;

/// Far longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

static SWEPT: Once = Once::new();

/// Anything on the switch: a namespace with an address.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub netns: Namespace,
    port: String,
    address: String,
}

/// A member of the etcd; its data stays when it is killed.
#[derive(Debug)]
struct Member {
    host: Host,
    process: Option<Child>,
}

/// An etcd; on drop all of it goes.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    switch: Namespace,
    prefix: String,
    hosts: AtomicU8,
    /// What certificates come from, where TLS is spoken.
    pub pki: Option<Pki>,
    /// In memory, as etcd waits for disks.
    folder: TempDir,
}

impl Cluster {
    /// Starts as many members, and waits until they have a leader.
    pub fn start(members: u8) -> Self {
        Self::start_with(members, None)
    }

    /// The same, speaking TLS with clients that have certificates, if there is an authority.
    pub fn start_with(members: u8, pki: Option<Pki>) -> Self {
        SWEPT.call_once(|| drop(sweep::dead_owners()));
        let prefix = unique_prefix();
        let switch = Namespace::create(&format!("{prefix}-switch"), Ipv6::Disabled).unwrap();
        let bridge = "link add switch up type bridge mcast_snooping 0".to_owned();
        exec::ip_batch(&switch, &[bridge]).unwrap();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .tempdir_in(sweep::MEMORY)
            .unwrap();
        let mut cluster = Self {
            members: Vec::new(),
            switch,
            prefix,
            hosts: AtomicU8::new(0),
            pki,
            folder,
        };
        for index in 1..=members {
            let host = cluster.connect(&format!("etcd{index}"), index);
            let process = None;
            cluster.members.push(Member { host, process });
        }
        for index in 0..cluster.members.len() {
            cluster.revive(index);
        }
        cluster.leader();
        cluster
    }

    /// A new host on the switch.
    pub fn host(&self) -> Host {
        let index = self.hosts.fetch_add(1, Ordering::Relaxed);
        self.connect(&format!("host{index}"), 100 + index)
    }

    fn connect(&self, port: &str, number: u8) -> Host {
        let name = format!("{}-{port}", self.prefix);
        let netns = Namespace::create(&name, Ipv6::Disabled).unwrap();
        let address = format!("10.99.0.{number}");
        let veth = format!("link add {port} type veth peer name eth0 netns {name}");
        exec::ip_batch(
            &self.switch,
            &[veth, format!("link set {port} master switch up")],
        )
        .unwrap();
        let uplink = [
            "link set eth0 up".to_owned(),
            format!("address add {address}/24 dev eth0"),
        ];
        exec::ip_batch(&netns, &uplink).unwrap();
        let port = port.to_owned();
        Host {
            netns,
            port,
            address,
        }
    }

    /// A place for files that goes with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn scheme(&self) -> &'static str {
        if self.pki.is_some() { "https" } else { "http" }
    }

    /// Where clients reach a member.
    pub fn endpoint(&self, index: usize) -> String {
        format!(
            "{}://{}:2379",
            self.scheme(),
            self.members[index].host.address
        )
    }

    /// Where clients reach all members, as an option has it.
    pub fn endpoints(&self) -> String {
        let endpoints: Vec<_> = (0..self.members.len())
            .map(|index| self.endpoint(index))
            .collect();
        endpoints.join(",")
    }

    /// Kills a member.
    pub fn kill(&mut self, index: usize) {
        let mut process = self.members[index].process.take().expect("it runs");
        process.kill().unwrap();
        assert_eq!(
            process.wait().unwrap().signal(),
            Some(9),
            "it had ended before"
        );
    }

    /// Starts a member that does not run, with the data that it had.
    pub fn revive(&mut self, index: usize) {
        let peer = |member: &Member| format!("http://{}:2380", member.host.address);
        let name = |index: usize| format!("etcd{index}");
        let initial = self.members.iter().enumerate();
        let initial: Vec<_> = initial
            .map(|(index, member)| format!("{}={}", name(index), peer(member)))
            .collect();
        let member = &self.members[index];
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(index))
            .unwrap();
        // A test that is killed takes its etcd along.
        let mut command = member.host.netns.command("setpriv");
        command.args(["--pdeathsig", "KILL", "etcd", "--name", &name(index)]);
        command
            .arg("--data-dir")
            .arg(self.folder().join(name(index)));
        command.args(["--listen-client-urls", &self.endpoint(index)]);
        command.args(["--advertise-client-urls", &self.endpoint(index)]);
        command.args(["--listen-peer-urls", &peer(member)]);
        command.args(["--initial-advertise-peer-urls", &peer(member)]);
        command.args(["--initial-cluster", &initial.join(",")]);
        command.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        command.args(["--logger", "zap", "--log-level", "warn"]);
        if let Some(pki) = &self.pki {
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(pki.ca());
            command
                .arg("--cert-file")
                .arg(pki.cert("server"))
                .arg("--key-file")
                .arg(pki.key("server"));
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let process = command.spawn().expect("setpriv: start");
        self.members[index].process = Some(process);
    }

    fn log(&self, index: usize) -> std::path::PathBuf {
        self.folder().join(format!("etcd{index}.log"))
    }

    /// Runs `etcdctl` on a member; returns what it says.
    pub fn etcdctl(&self, index: usize, arguments: &[&str]) -> Result<String> {
        let mut command: Command = self.members[index].host.netns.command("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint(index)]);
        command.args(["--command-timeout", "2s", "--dial-timeout", "2s"]);
        if let Some(pki) = &self.pki {
            command.arg("--cacert").arg(pki.ca());
            command
                .arg("--cert")
                .arg(pki.cert("client"))
                .arg("--key")
                .arg(pki.key("client"));
        }
        exec::stdout(command.args(arguments))
    }

    /// The member that leads, waiting until there is one that all living members follow.
    pub fn leader(&self) -> usize {
        let deadline = wait::deadline(PATIENCE);
        loop {
            match self.find_leader() {
                Ok(leader) => return leader,
                Err(error) => assert!(Instant::now() < deadline, "{error:#}\n{}", self.tail()),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn find_leader(&self) -> Result<usize> {
        let mut leader = None;
        for (index, _) in self
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.process.is_some())
        {
            let status = self.etcdctl(index, &["endpoint", "status", "-w", "json"])?;
            let status: Value = serde_json::from_str(&status)?;
            let status = &status[0]["Status"];
            ensure!(
                status["leader"].as_u64().unwrap_or(0) != 0,
                "member {index}: no leader"
            );
            if status["leader"] == status["header"]["member_id"] {
                leader = Some(index);
            }
        }
        leader.context("no leader among the living")
    }

    fn tail(&self) -> String {
        let logs = (0..self.members.len())
            .map(|index| std::fs::read_to_string(self.log(index)).unwrap_or_default());
        logs.map(|log| log.lines().rev().take(5).collect::<Vec<_>>().join("\n"))
            .collect()
    }

    /// Takes a host off the switch, as a pulled cable does.
    pub fn cut(&self, host: &Host) {
        exec::ip_batch(&self.switch, &[format!("link set {} down", host.port)]).unwrap();
    }

    /// Undoes [`Self::cut`].
    pub fn heal(&self, host: &Host) {
        exec::ip_batch(&self.switch, &[format!("link set {} up", host.port)]).unwrap();
    }

    /// Parts a member from the other members; clients still reach it.
    pub fn part(&self, index: usize) {
        let others = self
            .members
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        let others: Vec<_> = others
            .map(|(_, member)| member.host.address.as_str())
            .collect();
        let others = others.join(", ");
        let script = format!(
            "table ip parted {{
                chain in {{ type filter hook input priority 0; ip saddr {{ {others} }} drop; }}
                chain out {{ type filter hook output priority 0; ip daddr {{ {others} }} drop; }}
            }}"
        );
        exec::nft(&self.members[index].host.netns, &script).unwrap();
    }

    /// Undoes [`Self::part`].
    pub fn rejoin(&self, index: usize) {
        exec::nft(&self.members[index].host.netns, "delete table ip parted").unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self
            .members
            .iter_mut()
            .filter_map(|member| member.process.as_mut())
        {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
