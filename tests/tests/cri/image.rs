//! The only image: busybox, made of what is installed here, as no registry is asked for anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use beeline_tests::exec;
use serde_json::json;

/// Its name.
pub(crate) const NAME: &str = "localhost/busybox:1";

/// Where a page for `httpd` is.
pub(crate) const WWW: &str = "/www";

/// What that page says.
pub(crate) const PAGE: &str = "served by a pod";

/// Returns it as `docker save` would write it.
pub(crate) fn archive() -> Result<&'static [u8]> {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(archive) = ARCHIVE.get() {
        return Ok(archive);
    }
    let archive = build().context("image")?;
    Ok(ARCHIVE.get_or_init(|| archive))
}

fn build() -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let (root, image) = (
        directory.path().join("root"),
        directory.path().join("image"),
    );
    fill(&root)?;
    fs::create_dir(&image)?;
    let layer = image.join("layer.tar");
    exec::stdout(tar(&root).arg("-cf").arg(&layer).arg("."))?;
    let digest = exec::stdout(Command::new("sha256sum").arg(&layer))?;
    let digest = digest.split(' ').next().context("no digest")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Entrypoint": ["/bin/busybox", "sleep", "infinity"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"] }]);
    fs::write(image.join("config.json"), config.to_string())?;
    fs::write(image.join("manifest.json"), manifest.to_string())?;
    let files = ["manifest.json", "config.json", "layer.tar"];
    let output = exec::output(tar(&image).arg("-cf").arg("-").args(files), b"")?;
    anyhow::ensure!(output.status.success(), "tar: {}", output.status);
    Ok(output.stdout)
}

fn tar(directory: &Path) -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "-C"]);
    tar.arg(directory);
    tar
}

fn fill(root: &Path) -> Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "www"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("www/index.html"), PAGE)?;
    let busybox = busybox()?;
    for file in std::iter::once(busybox.clone()).chain(libraries(&busybox)?) {
        let copy = if file == busybox {
            root.join("bin/busybox")
        } else {
            root.join(file.strip_prefix("/")?)
        };
        fs::create_dir_all(copy.parent().context("no parent")?)?;
        fs::copy(&file, &copy).with_context(|| format!("{}: copy", file.display()))?;
    }
    let applets = exec::stdout(Command::new(&busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}

fn busybox() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join("busybox"))
        .find(|file| file.is_file());
    found.context("busybox: not installed; `cargo xtask test` does so (Debian: busybox-static)")
}

/// What a program is linked with; nothing if it is static, as Debian's other busybox is not.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = exec::output(Command::new("ldd").arg(program), b"")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}
