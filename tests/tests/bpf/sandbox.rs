//! A network and a bpffs of one's own.

use std::{panic::resume_unwind, process::Command, thread};

use beeline_common::{
    Mac,
    testing::{CLIENT, OVERLAY, OVERLAY_MAC, SERVER, THIRD, UPLINK, UPLINK_MAC},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

/// Where the sandbox's bpffs is.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Runs `test` on a thread with a network and a bpffs of its own. The kernel takes them back with the thread, however
/// it ends; nobody else sees them.
pub(crate) fn sandboxed<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    assert!(
        geteuid().is_root(),
        "these tests load BPF programs: run them as root"
    );
    let inside = || {
        enter();
        test()
    };
    let joined = thread::scope(|scope| scope.spawn(inside).join());
    joined.unwrap_or_else(|panic| resume_unwind(panic))
}

fn enter() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .expect("namespaces of one's own: run as root, with CAP_SYS_ADMIN");
    let nothing = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).expect("make all mounts private");
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), nothing).expect("mount a bpffs");
    for pod in [CLIENT, SERVER, THIRD] {
        add_veth(pod.ifindex, None);
    }
    add_veth(UPLINK, Some(UPLINK_MAC));
    let address = text(OVERLAY_MAC);
    ip(&format!(
        "link add {OVERLAY_NAME} index {OVERLAY} address {address} type vxlan external dstport {VXLAN_PORT}"
    ));
}

/// The overlay's device, which takes packets of all VNIs and tells the programs which.
pub(crate) const OVERLAY_NAME: &str = "overlay";

/// Where it listens.
pub(crate) const VXLAN_PORT: u16 = 4789;

/// Adds the interface that test runs claim to have received packets at; only index and address matter.
fn add_veth(ifindex: u32, mac: Option<Mac>) {
    let mut arguments = format!("link add veth{ifindex} index {ifindex}");
    if let Some(mac) = mac {
        arguments += &format!(" address {}", text(mac));
    }
    let peer = peer_of(ifindex);
    arguments += &format!(" type veth peer name veth{peer} index {peer}");
    ip(&arguments);
}

fn text(Mac([a, b, c, d, e, f]): Mac) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The index of the other end of a veth.
pub(crate) const fn peer_of(ifindex: u32) -> u32 {
    1000 + ifindex
}

/// Runs iproute2.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("run ip (iproute2)");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {stderr}");
}
