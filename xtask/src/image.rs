//! `image`: the image of the plugin and the agent, as an archive that container runtimes import. No registry is asked for
//! anything, and no image storage but one that is gone afterwards is used.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{self, say};
use crate::{build, files, interrupt, packages, workspace};

/// What is in it, and the same in `target/release`.
const PROGRAMS: [&str; 2] = ["beeline", "beeline-agent"];

/// Programs that make images by the same commands; the first is installed if there is none.
const BUILDERS: [&str; 2] = ["buildah", "podman"];

/// The name that the manifest in `deploy/` has.
const TAG: &str = concat!("localhost/beeline:", env!("CARGO_PKG_VERSION"));

/// What to make.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image's name, in full
    #[arg(long, value_name = "NAME", default_value = TAG, value_parser = full_name)]
    tag: String,
    /// Where to write the archive; target/beeline-image.tar by default
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Builders take a short name for one thing, runtimes for another.
fn full_name(name: &str) -> Result<String, String> {
    let last = name.rsplit_once('/').map(|(_, last)| last);
    let full = last.is_some_and(|last| last.contains([':', '@']));
    full.then(|| name.to_owned())
        .ok_or_else(|| format!("not of the form {TAG}"))
}

/// Builds, then makes the image.
pub(crate) fn run(args: &Args) -> Result<()> {
    interrupt::survive()?;
    let archive = args.output.clone().unwrap_or_else(output);
    build::run(&build::Args::default())?;
    let id = make(&args.tag, &archive)?;
    let archive = archive.display();
    say(&format!("image {} ({id}): {archive}", args.tag));
    say(&format!(
        "on each node: `ctr --namespace k8s.io images import {archive}`, or `podman load`, `docker load --input`"
    ));
    Ok(())
}

fn output() -> PathBuf {
    workspace::target().join("beeline-image.tar")
}

/// Makes the image of what is built, for tests; returns the archive's path.
pub(crate) fn for_tests() -> Result<PathBuf> {
    let archive = output();
    make(TAG, &archive)?;
    Ok(archive)
}

/// Writes the archive, and returns the image's ID.
fn make(tag: &str, archive: &Path) -> Result<String> {
    let archive = &std::path::absolute(archive)?;
    let builder = builder()?;
    let former = SharedCache::find();
    // Beside the programs: a link of each will do.
    let work = tempfile::Builder::new()
        .prefix("image-")
        .tempdir_in(workspace::target())
        .context("target: create a folder in it")?;
    let made = assemble(&builder, tag, work.path());
    former.restore();
    // Even if that failed: on drop the folder goes as far as it can.
    let removable = make_removable(work.path());
    let id = made?;
    removable?;
    let mut built = fs::File::open(work.path().join("image.tar"))?;
    files::replace(archive, &mut built, 0o644)?;
    let folder = work.path().display().to_string();
    work.close().with_context(|| format!("{folder}: remove"))?;
    Ok(id)
}

fn builder() -> Result<PathBuf> {
    let found = |name: &&str| packages::find(name, &[]);
    if let Some(path) = BUILDERS.iter().find_map(found) {
        return Ok(path);
    }
    packages::require(&[packages::IMAGE])?;
    packages::find(BUILDERS[0], &[]).context("buildah: installed, and not on PATH")
}

/// Makes `image.tar` in the folder, and returns the image's ID.
///
/// The image is of the OCI's format, as Docker's has a host's name in it, which is made up anew each time. The archive is
/// of Docker's, which all runtimes import with the image's name, and which says nothing of when it was made.
fn assemble(builder: &Path, tag: &str, work: &Path) -> Result<String> {
    let context = work.join("context");
    fs::create_dir(&context)?;
    fs::create_dir(work.join("tmp"))?;
    for name in PROGRAMS {
        let program = workspace::release_bin(name);
        let copied = fs::copy(&program, context.join(name));
        copied.with_context(|| format!("{}: copy", program.display()))?;
    }
    let id = work.join("id");
    let version = concat!(
        "org.opencontainers.image.version=",
        env!("CARGO_PKG_VERSION")
    );
    let mut build = command(builder, work);
    build
        .args(["build", "--format", "oci", "--timestamp", "0"])
        .args(["--identity-label=false", "--omit-history"])
        // Nothing is run in it; without this some look for a runtime to do so.
        .args(["--isolation", "chroot"])
        .args(["--label", version, "--tag", tag, "--iidfile"])
        .arg(&id)
        .arg("--file")
        .arg(workspace::root().join("deploy/Containerfile"))
        .arg(&context);
    process::run_quietly(&mut build)?;
    let mut destination = std::ffi::OsString::from("docker-archive:");
    destination.push(work.join("image.tar"));
    destination.push(format!(":{tag}"));
    let mut push = command(builder, work);
    push.args(["push".as_ref(), OsStr::new(tag), &destination]);
    process::run_quietly(&mut push)?;
    let id = fs::read_to_string(&id).with_context(|| format!("{}: read", id.display()))?;
    ensure!(!id.trim().is_empty(), "image {tag}: has no ID");
    Ok(id.trim().to_owned())
}

/// A command of the builder's that keeps all it writes in the folder. Files and folders are copied in there, not mounted,
/// so that neither root nor an overlay is needed.
fn command(builder: &Path, work: &Path) -> Command {
    let mut command = Command::new(builder);
    command
        .arg("--root")
        .arg(work.join("storage"))
        .arg("--runroot")
        .arg(work.join("run"))
        .args(["--storage-driver", "vfs"])
        .env("TMPDIR", work.join("tmp"))
        .env("XDG_CACHE_HOME", work.join("cache"))
        .env("XDG_CONFIG_HOME", work.join("config"))
        .env("XDG_DATA_HOME", work.join("data"));
    command
}

/// Makes all folders in one writable: those of layers are not, and whoever is not root could not empty them.
fn make_removable(folder: &Path) -> Result<()> {
    let context = || format!("{}: make writable", folder.display());
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).with_context(context)?;
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        if entry.file_type().with_context(context)?.is_dir() {
            make_removable(&entry.path())?;
        }
    }
    Ok(())
}

/// Where builders remember, for root, from where they have got layers; no option moves it.
const SHARED: [&str; 3] = [
    "/var/lib/containers/cache/blob-info-cache-v1.boltdb",
    "/var/lib/containers/cache",
    "/var/lib/containers",
];

/// Which of [`SHARED`] was there before.
struct SharedCache([bool; SHARED.len()]);

impl SharedCache {
    fn find() -> Self {
        Self(SHARED.map(|path| Path::new(path).exists()))
    }

    /// Removes what was not, unless others use it by now; there is nothing in it that is missed.
    fn restore(&self) {
        for (path, there) in SHARED.iter().zip(self.0) {
            if !there {
                let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_layers_can_be_removed_by_anyone() {
        let folder = tempfile::tempdir().unwrap();
        let layer = folder.path().join("storage/layer");
        fs::create_dir_all(&layer).unwrap();
        for folder in [&*layer, layer.parent().unwrap()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
        }
        make_removable(folder.path()).unwrap();
        let mode = fs::metadata(&layer).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }

    #[test]
    fn images_are_named_in_full() {
        assert!(full_name(TAG).is_ok());
        assert!(full_name("registry.example:5000/net/beeline:1").is_ok());
        for short in ["beeline", "beeline:0.1.0", "localhost:5000/beeline"] {
            assert!(full_name(short).is_err(), "{short}");
        }
    }
}
