use super::*;
use crate::fixture::*;
use crate::refusals::sandbox;

fn explore(what: &str, make: &dyn Fn(&Arc<Node>) -> Hardship<'_>) {
    for mode in ["auto", "ebpf"] {
        for second in [false, true] {
            let (_t, node) = fast_node();
            node.config().mode(mode).install().unwrap();
            let config = node.config().mode(mode).stdin();
            let _first = second.then(|| node.add_pod("first"));
            let (ns, at) = sandbox(&node);
            let before = Snapshot::of(&node);
            let h = make(&node).at_once();
            let out = h.call("ADD", &at, &config);
            println!("== {what} {mode} second={second}: ADD {out}");
            if !out.is_success() {
                let diff = before.diff(&Snapshot::of(&node));
                println!("   diff after failure: {diff}");
                let links = exec::stdout(ns.command("ip").args(["-o", "link"])).unwrap();
                if links.lines().count() > 1 { println!("   SANDBOX {links}"); }
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
            let st = h.cli("status", &[]);
            println!("   status {} {}", st.status, String::from_utf8_lossy(&st.stdout).lines().take(4).collect::<Vec<_>>().join(" | "));
            println!("   status err {}", String::from_utf8_lossy(&st.stderr));
            let mut s = config.clone(); s["cniVersion"] = "1.1.0".into();
            println!("   STATUS {}", h.call("STATUS", &at, &s));
            println!("   DEL {}", h.call("DEL", &at, &config));
            let diff = before.diff(&Snapshot::of(&node));
            println!("   diff after DEL: {diff}");
            let o = node.runtime().call("DEL", &at, config.to_string().as_bytes()).unwrap();
            println!("   DEL normal {o}");
            let diff = before.diff(&Snapshot::of(&node));
            println!("   diff after normal DEL: {diff}");
        }
    }
}

#[test]
fn explore_bpffs() {
    explore("bpffs umount", &|n| Hardship::among_mounts(n, "umount /sys/fs/bpf"));
    explore("bpffs bind ro", &|n| Hardship::among_mounts(n, "mount -o remount,bind,ro /sys/fs/bpf"));
    explore("no btf", &|n| Hardship::among_mounts(n, "mount -t tmpfs none /sys/kernel/btf"));
    explore("sys ro", &|n| Hardship::among_mounts(n, "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"));
}

#[test]
fn explore_caps() {
    for cap in ["bpf", "sys_admin", "net_admin", "perfmon", "dac_override", "all"] {
        explore(&format!("cap {cap}"), &|n| Hardship::by(n, &["setpriv", &format!("--bounding-set=-{cap}"), &format!("--inh-caps=-{cap}")]));
    }
    explore("nobody", &|n| Hardship::by(n, &["setpriv", "--reuid=65534", "--clear-groups"]));
}

#[test]
fn explore_limits() {
    for n in ["3","4","5","6","7","8","9","10","11","12","13","14","15","16","18","20"] {
        explore(&format!("nofile {n}"), &|node| Hardship::by(node, &["prlimit", &format!("--nofile={n}")]));
    }
}
#[test]
fn explore_other() {
    explore("umask 777", &|n| Hardship::after(n, "umask 0777"));
    explore("umask 0", &|n| Hardship::after(n, "umask 0"));
    explore("stdin closed", &|n| Hardship::after(n, "exec <&-"));
    explore("stderr closed", &|n| Hardship::after(n, "exec 2>&-"));
    explore("path empty", &|n| Hardship::after(n, "PATH="));
    explore("no nft", &|n| Hardship::among_mounts(n, "mount --bind /dev/null /usr/sbin/nft"));
    explore("memlock", &|n| Hardship::by(n, &["prlimit", "--memlock=0"]));
}
