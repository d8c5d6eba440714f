//! `exec-in` by the real binary.

use std::process::{Command, Output};

const AGENT: &str = env!("CARGO_BIN_EXE_beeline-agent");

/// These need root.
mod netns_tests {
    use super::*;

    /// Makes a root directory with the system's own programs (`$1`), and runs a program in it by the agent.
    const SCRIPT: &str = r#"
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/usr" "$1/here"
mount --bind /usr "$1/usr"
for folder in bin lib lib64; do
    ln -s "usr/$folder" "$1/$folder"
done
agent=$2; root=$1; shift 2
exec "$agent" exec-in "$root" -- "$@"
"#;

    fn run(command: &[&str]) -> Output {
        let root = tempfile::tempdir().expect("folder");
        let mut unshare = Command::new("unshare");
        // The mounts are the command's own, and go with it.
        unshare.args(["--mount", "--", "sh", "-c", SCRIPT, "sh"]);
        unshare.arg(root.path()).arg(AGENT).args(command);
        unshare.output().expect("unshare")
    }

    #[test]
    fn a_program_runs_in_the_root_with_its_arguments() {
        let script = "pwd; ls -d /*; echo $0 $1; cat; exit 7";
        let output = run(&["/bin/sh", "-c", script, "--first", "-2"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = "/\n/bin\n/here\n/lib\n/lib64\n/usr\n--first -2\n";
        assert_eq!(text, expected, "{output:?}");
        assert_eq!(output.status.code(), Some(7));
    }

    #[test]
    fn a_program_that_is_not_in_the_root_is_named() {
        let output = run(&["/here/nft", "list"]);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("\"/here/nft\" in "), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }
}

#[test]
fn a_root_that_is_missing_is_named() {
    let output = Command::new(AGENT)
        .args(["exec-in", "/no/such/root", "--", "/bin/true"])
        .output()
        .expect("agent");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("/no/such/root: "), "{error}");
}
