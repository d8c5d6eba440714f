//! End-to-end tests: the real plugin binary, executed as a runtime does, on nodes that are network namespaces.
//!
//! They need root. `BEELINE_BIN` names the plugin; by default it is the workspace's release build.

mod adopt;
mod clsact;
mod cni;
mod connectivity;
mod datapath;
mod external_ipam;
mod faults;
mod fixture;
mod foreign;
mod isolation;
mod lifecycle;
mod masquerade;
mod measuring;
mod packets;
mod refusals;
mod repair;
mod spoofing;
mod upgrade;
