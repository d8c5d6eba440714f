//! Traffic control in namespaces of their own. Needs root.

use std::{
    fs,
    io::Write,
    os::fd::{AsFd, AsRawFd},
    process::{self, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::*;
use crate::net::{
    Netlink,
    link::{PortFlags, VethSpec},
    mac::Mac,
    netns::Netns,
    testing::{self, new_netns},
};

/// Debian's containernetworking-plugins puts it there, other installations into the second.
const BANDWIDTH: [&str; 2] = ["/usr/lib/cni/bandwidth", "/opt/cni/bin/bandwidth"];

/// Runs `tc` in the calling thread's namespace.
fn tc(args: &str) -> Result<()> {
    let output = Command::new("tc").args(args.split(' ')).output()?;
    ensure!(
        output.status.success(),
        "tc {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Makes a pod's veth; returns the index of the host's end, `veth1`.
async fn veth(netlink: &Netlink, container: &Netns) -> Result<u32> {
    netlink.create_bridge("br0", Mac::random(), None).await?;
    let bridge = netlink.link("br0").await?.context("br0")?;
    let spec = VethSpec {
        host_name: "veth1",
        host_mac: Mac::random(),
        container_name: "eth0",
        container_mac: Mac::random(),
        netns: container.as_fd(),
        controller: bridge.index,
        mtu: None,
        port: PortFlags::default(),
        vlans: None,
    };
    netlink.create_veth(&spec).await
}

/// Runs `f` with a host veth's index, in a namespace of its own.
fn with_veth(f: impl AsyncFnOnce(&Netlink, u32) -> Result<()> + Send) {
    let container = new_netns();
    testing::netlink(async |netlink| {
        let index = veth(netlink, &container).await?;
        f(netlink, index).await
    });
}

#[test]
fn a_new_veth_is_not_shaped() {
    with_veth(async |_, index| {
        let expected = Qdisc {
            kind: "noqueue".to_owned(),
            handle: 0,
            parent: u32::MAX,
        };
        assert_eq!(qdiscs(index)?, [expected]);
        assert_eq!(shaping(index)?, None);
        Ok(())
    });
}

#[test]
fn a_link_that_is_gone_has_no_qdiscs() {
    with_veth(async |netlink, index| {
        netlink.delete(index).await?;
        assert_eq!(qdiscs(index)?, []);
        assert_eq!(shaping(index)?, None);
        Ok(())
    });
}

#[test]
fn a_shaper_at_the_root_is_named() {
    for (kind, options) in [
        ("tbf", "rate 1mbit burst 4kb latency 1ms"),
        ("htb", "default 1"),
    ] {
        with_veth(async |_, index| {
            tc(&format!(
                "qdisc add dev veth1 root handle 7: {kind} {options}"
            ))?;
            let root = qdiscs(index)?.into_iter().next().context("root")?;
            assert_eq!((&*root.kind, root.handle), (kind, 7 << 16));
            assert_eq!(shaping(index)?, Some(format!("qdisc {kind}")));
            tc("qdisc del dev veth1 root")?;
            assert_eq!(shaping(index)?, None);
            Ok(())
        });
    }
}

#[test]
fn a_shaper_of_another_link_is_not_this_ones() {
    with_veth(async |netlink, index| {
        tc("qdisc add dev br0 root tbf rate 1mbit burst 4kb latency 1ms")?;
        assert_eq!(shaping(index)?, None);
        let bridge = netlink.link("br0").await?.context("br0")?;
        assert_eq!(shaping(bridge.index)?.as_deref(), Some("qdisc tbf"));
        Ok(())
    });
}

#[test]
fn empty_hooks_filter_nothing() {
    for kind in ["clsact", "ingress"] {
        with_veth(async |_, index| {
            tc(&format!("qdisc add dev veth1 {kind}"))?;
            assert_eq!(qdiscs(index)?.len(), 2);
            assert_eq!(shaping(index)?, None);
            Ok(())
        });
    }
}

#[test]
fn a_filter_at_either_hook_is_named() {
    for (qdisc, hook) in [
        ("clsact", Hook::Ingress),
        ("clsact", Hook::Egress),
        ("ingress", Hook::Ingress),
    ] {
        with_veth(async |_, index| {
            tc(&format!("qdisc add dev veth1 {qdisc}"))?;
            tc(&format!(
                "filter add dev veth1 {hook} prio 5 handle 800::3 u32 match u32 0 0 flowid 1:1"
            ))?;
            let filters = filters(index, hook)?;
            assert!(
                filters
                    .iter()
                    .all(|filter| (&*filter.kind, filter.priority) == ("u32", 5))
            );
            assert!(
                filters.iter().any(|filter| filter.handle == 0x8000_0003),
                "{filters:x?}"
            );
            let named = format!("{hook} filter u32 with priority 5");
            assert_eq!(shaping(index)?, Some(named));
            Ok(())
        });
    }
}

#[test]
fn own_filters_are_told_from_others() {
    // One instruction that lets every packet pass, as classic BPF.
    let pass = "bytecode 1,6 0 0 4294967295";
    with_veth(async |_, index| {
        tc("qdisc add dev veth1 clsact")?;
        let own = format!("pref {FILTER_PRIORITY} handle {FILTER_HANDLE:#x}");
        let bpf = |hook: Hook, place: &str| {
            let mut command = Command::new("tc");
            let (name, code) = pass.split_once(' ').context("bytecode")?;
            let args = format!("filter add dev veth1 {hook} {place} bpf {name}");
            let status = command.args(args.split(' ')).arg(code).status()?;
            ensure!(status.success(), "tc {args}");
            Ok(())
        };
        bpf(Hook::Ingress, &own)?;
        bpf(Hook::Egress, &own)?;
        let listed = filters(index, Hook::Ingress)?;
        assert!(listed.len() == 1 && listed[0].is_own(), "{listed:x?}");
        assert_eq!(shaping(index)?, None);
        bpf(Hook::Egress, "pref 9")?;
        assert_eq!(
            shaping(index)?.as_deref(),
            Some("egress filter bpf with priority 9")
        );
        Ok(())
    });
}

#[test]
fn what_the_bandwidth_plugin_makes_is_noticed() {
    let plugin = BANDWIDTH
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false));
    let plugin =
        plugin.expect("bandwidth plugin: in none of its places; `cargo xtask test` installs it");
    for (direction, expected) in [
        ("ingress", "qdisc tbf"),
        ("egress", "ingress filter u32 with priority 1"),
    ] {
        let container = new_netns();
        let path = format!(
            "/proc/{}/fd/{}",
            process::id(),
            container.as_fd().as_raw_fd()
        );
        testing::netlink(async |netlink| {
            let index = veth(netlink, &container).await?;
            let host = netlink.link_at(index).await?.context("veth1")?;
            let conf = serde_json::json!({
                "cniVersion": "1.0.0", "name": "limited", "type": "bandwidth",
                format!("{direction}Rate"): 8_000_000, format!("{direction}Burst"): 8_000_000,
                "prevResult": {"cniVersion": "1.0.0", "ips": [], "routes": [], "interfaces": [
                    {"name": "veth1", "mac": host.mac},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": path},
                ]},
            });
            add_with(plugin, &path, &conf.to_string())?;
            assert_eq!(shaping(index)?.as_deref(), Some(expected));
            Ok(())
        });
    }
}

/// Runs a CNI plugin in the calling thread's namespace.
fn add_with(plugin: &str, netns: &str, conf: &str) -> Result<()> {
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "limited")
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/usr/lib/cni")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("standard input")?;
    input.write_all(conf.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{plugin}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// The changes up to and with the first that is `last`.
async fn until(watch: &mut Watch, last: Change) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    while changes.last() != Some(&last) {
        match tokio::time::timeout(Duration::from_secs(10), watch.next()).await {
            Ok(change) => changes.push(change?),
            Err(_) => bail!("no {last:?} after {changes:?}"),
        }
    }
    Ok(changes)
}

#[test]
fn a_watch_tells_of_qdiscs_filters_and_links_that_go() {
    with_veth(async |netlink, index| {
        let mut watch = Watch::open()?;
        let bridge = netlink.link("br0").await?.context("br0")?.index;
        // A port that leaves and joins its bridge again is not gone.
        for change in ["nomaster", "master br0"] {
            let args = format!("link set veth1 {change}");
            let status = Command::new("ip").args(args.split(' ')).status()?;
            ensure!(status.success(), "ip {args}");
        }
        for change in [
            "qdisc add dev veth1 root tbf rate 1mbit burst 4kb latency 1ms",
            "qdisc del dev veth1 root",
            "qdisc add dev veth1 clsact",
            "filter add dev veth1 egress prio 5 u32 match u32 0 0 flowid 1:1",
            "filter del dev veth1 egress prio 5",
        ] {
            tc(change)?;
            assert_eq!(
                until(&mut watch, Change::Tc(index)).await?,
                [Change::Tc(index)],
                "{change}"
            );
            // Some changes are told twice; both notices are there by the time that tc ends.
            while let Ok(more) = tokio::time::timeout(Duration::from_millis(50), watch.next()).await
            {
                assert_eq!(more?, Change::Tc(index), "{change}");
            }
        }
        netlink.delete(index).await?;
        netlink.delete(bridge).await?;
        let changes = until(&mut watch, Change::Gone(bridge)).await?;
        assert!(changes.contains(&Change::Gone(index)), "{changes:?}");
        Ok(())
    });
}

#[test]
fn a_watch_that_was_overwhelmed_says_so() {
    with_veth(async |_, index| {
        let mut watch = Watch::open()?;
        watch.shrink()?;
        for _ in 0..32 {
            tc("qdisc add dev veth1 clsact")?;
            tc("qdisc del dev veth1 clsact")?;
        }
        let changes = until(&mut watch, Change::Unknown).await?;
        assert!(changes.len() < 64, "{changes:?}");
        // From then on nothing is missed.
        tc("qdisc add dev veth1 clsact")?;
        assert_eq!(watch.next().await?, Change::Tc(index));
        Ok(())
    });
}
