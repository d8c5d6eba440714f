//! Whether an ADD would work now, as the installed plugin itself says.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// STATUS must answer quickly, as runtimes wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls the plugin's STATUS with its part of a configuration.
pub(super) async fn status(bin_dir: &Path, plugin: &Value) -> Result<(), String> {
    let program = bin_dir.join("beeline");
    let answered = timeout(PATIENCE, call(&program, bin_dir, plugin)).await;
    let answer = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("{}: STATUS: {error:#}", program.display())),
        Err(_) => return Err(format!("{}: STATUS: no answer", program.display())),
    };
    match answer {
        None => Ok(()),
        Some(why) => Err(format!("STATUS: {why}")),
    }
}

/// What the plugin has to complain of.
async fn call(program: &Path, bin_dir: &Path, plugin: &Value) -> Result<Option<String>> {
    let mut conf = plugin.clone();
    // The first version that has STATUS.
    conf["cniVersion"] = "1.1.0".into();
    let mut child = Command::new(program)
        .env_clear()
        .env("CNI_COMMAND", "STATUS")
        .env("CNI_PATH", bin_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("run")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(conf.to_string().as_bytes())
            .await
            .context("write")?;
    }
    let output = child.wait_with_output().await.context("wait")?;
    if output.status.success() {
        return Ok(None);
    }
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let why = answer["msg"]
        .as_str()
        .map_or_else(|| output.status.to_string(), str::to_owned);
    Ok(Some(why))
}
