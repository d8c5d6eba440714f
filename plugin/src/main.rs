//! The `beeline` binary: a CNI plugin when a runtime calls it, a command line otherwise.

fn main() {}
