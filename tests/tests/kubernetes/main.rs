//! A real Kubernetes: kubelet, kube-proxy and containerd on nodes that are namespaces, and a control plane beside them.
//!
//! It needs root and the programs that `tests/kubernetes/setup.sh` makes; `cargo xtask test --kubernetes` sees to them.
//! `BEELINE_KUBE_DIR` says where they are, `BEELINE_BIN` and `BEELINE_IMAGE` what is tested: the plugin, and the archive
//! of the image that `deploy/beeline.yaml` runs. By default these are where `setup.sh` and `cargo xtask` put them.
//!
//! One cluster serves all tests, one after the other; it goes with this process, however that ends.

mod agent_pod;
mod cluster;
mod exposition;
mod fixture;
mod guardian;
mod logs;
mod network;
mod node;
mod node_snapshot;
mod paths;
mod pod;
mod service;
mod traffic;

mod agent;
mod dual_stack;
mod gc;
mod load;
mod members;
mod metrics;
mod nodes;
mod portmap;
mod rbac;
mod reach;
mod rollout;
mod static_peers;
mod uninstall;

use beeline_tests::wait;
