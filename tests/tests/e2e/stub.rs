//! A plugin that is a shell script, to delegate to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use beeline_tests::node::Node;
use serde_json::Value;

/// A script in a directory of its own on a node; it goes with the node.
pub(crate) struct Stub {
    directory: PathBuf,
}

impl Stub {
    /// What `script` does; before that, its command, environment and standard input are kept.
    pub(crate) fn new(node: &Node, script: &str) -> Self {
        let directory = node.directory().join("stub");
        fs::create_dir_all(&directory).expect("create");
        let kept = directory.display();
        let program = format!(
            "#!/bin/sh\necho \"$CNI_COMMAND\" >> {kept}/commands\nenv > {kept}/environment\ncat > {kept}/stdin\n{script}\n"
        );
        let stub = Self { directory };
        let path = stub.directory.join(stub.kind());
        fs::write(&path, program).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        stub
    }

    /// Its `type`.
    pub(crate) fn kind(&self) -> &'static str {
        "stub-ipam"
    }

    /// The directory that it is in.
    pub(crate) fn search_path(&self) -> String {
        self.directory.display().to_string()
    }

    /// The commands that it got so far.
    pub(crate) fn commands(&self) -> Vec<String> {
        let lines = fs::read_to_string(self.directory.join("commands")).unwrap_or_default();
        lines.lines().map(str::to_owned).collect()
    }

    /// The lines of its environment, when it was last called.
    pub(crate) fn environment(&self) -> Vec<String> {
        let lines = fs::read_to_string(self.directory.join("environment")).expect("environment");
        lines.lines().map(str::to_owned).collect()
    }

    /// The bytes on its standard input, when it was last called.
    pub(crate) fn stdin(&self) -> Vec<u8> {
        fs::read(self.directory.join("stdin")).expect("standard input")
    }

    /// The configuration on its standard input, when it was last called.
    pub(crate) fn configuration(&self) -> Value {
        serde_json::from_slice(&self.stdin()).expect("configuration")
    }
}
