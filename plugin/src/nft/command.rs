//! Running the programs that know netfilter's rules.

use std::{env, ffi::OsStr, io::Write, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail};
use nftables::schema::{NfObject, Nftables};
use serde_json::{Value, json};

use crate::host;

/// Runtimes start plugins with a thin PATH.
const FALLBACK_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// Has `nft` make all the changes of a batch, or none.
pub(super) fn run(batch: Vec<NfObject<'_>>) -> Result<()> {
    let input = serde_json::to_vec(&Nftables {
        objects: batch.into(),
    })
    .context("nft: encode batch")?;
    nft(&["-j", "-f", "-"], &input).map(drop)
}

/// Lists one object, which JSON can name whatever its name is, with what is in it.
pub(super) fn list(object: &Value) -> Result<Vec<Value>> {
    let input = json!({"nftables": [{"list": object}]}).to_string();
    let listed = nft(&["-j", "-f", "-"], input.as_bytes());
    objects(&listed.with_context(|| format!("nft: list {object}"))?)
}

/// Reads what `nft -j` lists.
pub(crate) fn objects(listed: &[u8]) -> Result<Vec<Value>> {
    let mut listed: Value = serde_json::from_slice(listed).context("nft: decode list")?;
    match listed.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Ok(objects),
        _ => bail!("nft: decode list: no array \"nftables\" in {listed}"),
    }
}

/// What `nft` writes.
pub(super) fn nft(args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    output("nft", "nftables", args, input)
}

/// What a program of a package writes, given `input`.
///
/// The `nftables` crate's own helper leaves standard error, and so the reason of a failure, to the runtime's log.
pub(super) fn output(name: &str, package: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let program =
        program(name).with_context(|| format!("{name}: not found in PATH; install {package}"))?;
    let mut child = host::command(&program)
        .args(args)
        // Nothing of the runtime's but what it was given: the environment of a call is the business of IPAM alone.
        .env_clear()
        .env("PATH", FALLBACK_PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program:?}: run"))?;
    // The handle is dropped here, which ends the input; if the program did not want all of it, its status says why.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let output = child
        .wait_with_output()
        .with_context(|| format!("{program:?}: wait"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', "; ");
        bail!("{name}: {}: {reason}", output.status);
    }
    written.with_context(|| format!("{program:?}: write"))?;
    Ok(output.stdout)
}

/// Where a program is, if it is installed.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    host::find(name, [path.as_os_str(), OsStr::new(FALLBACK_PATH)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_no_object_is_an_error() {
        for listed in ["\"nftables\"", "[]", "{}", "{\"nftables\": 1}"] {
            let error = objects(listed.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("nft: decode list: no array"), "{error}");
        }
        assert_eq!(objects(b"{\"nftables\": [1]}").unwrap(), [1]);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = output("no-such-program", "iptables", &[], b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-program: not found in PATH; install iptables"
        );
    }
}
