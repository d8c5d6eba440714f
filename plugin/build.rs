//! Finds the eBPF object that the binary embeds.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=BEELINE_EBPF_OBJECT");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = env::var_os("BEELINE_EBPF_OBJECT").map_or_else(
        || manifest.join("../target/bpf/beeline-ebpf.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(path) => println!("cargo::rustc-env=BEELINE_EBPF_OBJECT={}", path.display()),
        Err(_) => println!(
            "cargo::error=the eBPF object is not built; run `cargo xtask build-ebpf` first"
        ),
    }
}
