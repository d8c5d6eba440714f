//! End-to-end tests: the real plugin binary, executed as a runtime does, on nodes that are network namespaces.
//!
//! They need root. `BEELINE_BIN` names the plugin; by default it is the workspace's release build.

mod adopt;
mod agent;
mod bridge;
mod call;
mod chain;
mod clsact;
mod connectivity;
mod datapath;
mod differential;
mod doctor;
mod dual_stack;
mod external_ipam;
mod faults;
mod firewall;
mod fixture;
mod foreign;
mod ipam;
mod ipam_dhcp;
mod ipam_shared;
mod isolation;
mod joining;
mod kernel;
mod kills;
mod lifecycle;
mod macspoof;
mod masquerade;
mod measuring;
mod migration;
mod monitor;
mod mtu;
mod overlay;
mod packets;
mod protocol;
mod refusals;
mod repair;
mod security;
mod services;
mod shaping;
mod spoofing;
mod status;
mod stub;
mod telling;
mod uninstall;
mod upgrade;
