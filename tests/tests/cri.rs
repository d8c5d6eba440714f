//! A real container runtime: Debian's containerd and runc, on nodes that are network namespaces, driven by the CRI as
//! kubelet drives them. They call the plugin; nothing here executes it.
//!
//! They need root, containerd, runc and busybox; `cargo xtask test` installs these. `BEELINE_BIN` names the plugin; by
//! default it is the workspace's release build. containerd 1.6 and 1.7 call ADD and DEL only: CHECK, GC and STATUS are
//! in the `e2e` tests alone.

#[path = "cri/client.rs"]
mod client;
#[path = "cri/containerd.rs"]
mod containerd;
#[path = "cri/fixture.rs"]
mod fixture;
#[path = "cri/image.rs"]
mod image;
#[path = "cri/machine.rs"]
mod machine;
#[path = "cri/pod.rs"]
mod pod;

#[path = "cri/crowd.rs"]
mod crowd;
#[path = "cri/deployed.rs"]
mod deployed;
#[path = "cri/failures.rs"]
mod failures;
#[path = "cri/host_ports.rs"]
mod host_ports;
#[path = "cri/paths.rs"]
mod paths;
#[path = "cri/readiness.rs"]
mod readiness;
#[path = "cri/restart.rs"]
mod restart;
#[path = "cri/sandboxes.rs"]
mod sandboxes;
