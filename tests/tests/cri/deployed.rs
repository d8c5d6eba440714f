//! The image of a node, as `cargo xtask image` makes it.

use std::fs;
use std::path::PathBuf;

use beeline_tests::exec;

use crate::containerd::Containerd;
use crate::fixture::one_node;

/// The archive; `cargo xtask test` makes it.
fn archive() -> Vec<u8> {
    let made = || {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .with_file_name("target")
            .join("beeline-image.tar")
    };
    let path = std::env::var_os("BEELINE_IMAGE").map_or_else(made, PathBuf::from);
    let archive = fs::read(&path);
    archive
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask image` makes it", path.display()))
}

#[test]
fn the_image_is_imported_by_the_manifests_name_and_both_its_programs_run() {
    let (_topology, node) = one_node();
    let mut containerd = Containerd::start(&node);
    let name = concat!("localhost/beeline:", env!("CARGO_PKG_VERSION"));
    let ctr = |containerd: &Containerd, words: &[&str]| {
        let mut ctr = containerd.command("ctr");
        ctr.args(["--namespace", "k8s.io"]).args(words);
        ctr
    };
    let mut import = ctr(&containerd, &["images", "import", "-"]);
    let output = exec::output(&mut import, &archive()).expect("ctr");
    assert!(output.status.success(), "{output:?}");
    containerd
        .wait_for("the image", |containerd| {
            containerd.client().has_image(name)
        })
        .expect("the CRI knows it by its name");
    let cgroup = format!("/{}/image", containerd.cgroup());
    let run = ["run", "--rm", "--net-host", "--cgroup", &cgroup, name];
    let version = env!("CARGO_PKG_VERSION");
    // Without a command it is the entry point that runs, which says how to use it.
    let mut entry = ctr(&containerd, &[&run[..], &["entry"]].concat());
    let output = exec::output(&mut entry, b"").expect("ctr");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Usage: beeline-agent"), "{output:?}");
    for program in ["beeline-agent", "beeline"] {
        let path = format!("/{program}");
        let words = [&run[..], &[program, &path, "--version"]].concat();
        let said = exec::stdout(&mut ctr(&containerd, &words)).expect(program);
        assert_eq!(said.trim(), format!("{program} {version}"));
    }
}
