//! The backend against a real etcd: members and nodes in network namespaces, whose links can be cut.
//!
//! They need root, etcd and etcdctl; `cargo xtask test` installs these.

mod crowds;
mod failures;
mod leases;
mod names;
mod node;
mod tls;
