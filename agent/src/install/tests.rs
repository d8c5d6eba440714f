use std::{
    os::unix::fs::{MetadataExt as _, symlink},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;

/// A directory to install to, and plugins to install.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        Self { folder }
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn plugin(&self) -> PathBuf {
        self.bin().join(PLUGIN)
    }

    /// The options that install a plugin of this content.
    fn options(&self, name: &str, content: &[u8]) -> Install {
        let plugin = self.folder.path().join(name);
        fs::write(&plugin, content).unwrap();
        Install {
            plugin,
            bin_dir: self.bin(),
        }
    }

    fn install(&self, content: &[u8]) -> Result<()> {
        install(&self.options("source", content))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.bin()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[track_caller]
    fn assert_holds(&self, content: &[u8]) {
        assert!(fs::read(self.plugin()).unwrap() == content);
        let mode = fs::metadata(self.plugin()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, MODE);
        assert_eq!(self.names(), [PLUGIN], "nothing is left beside it");
    }
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[test]
fn the_plugin_is_installed_and_upgraded_and_rolled_back() {
    let lab = Lab::new();
    for content in [&b"one"[..], b"two, which is longer", b"one"] {
        lab.install(content).unwrap();
        lab.assert_holds(content);
    }
}

#[test]
fn the_directory_is_made_if_it_is_missing() {
    let lab = Lab::new();
    let options = Install {
        bin_dir: lab.bin().join("opt/cni"),
        ..lab.options("source", b"one")
    };
    install(&options).unwrap();
    assert_eq!(fs::read(options.bin_dir.join(PLUGIN)).unwrap(), b"one");
}

#[test]
fn a_plugin_that_is_the_same_is_left_alone() {
    let lab = Lab::new();
    lab.install(b"one").unwrap();
    let before = fs::metadata(lab.plugin()).unwrap();
    lab.install(b"one").unwrap();
    let after = fs::metadata(lab.plugin()).unwrap();
    assert_eq!(before.ino(), after.ino());
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    lab.install(b"two").unwrap();
    assert_ne!(before.ino(), fs::metadata(lab.plugin()).unwrap().ino());
}

#[test]
fn a_plugin_that_cannot_be_executed_is_replaced() {
    let lab = Lab::new();
    lab.install(b"one").unwrap();
    fs::set_permissions(lab.plugin(), Permissions::from_mode(0o644)).unwrap();
    lab.install(b"one").unwrap();
    lab.assert_holds(b"one");
}

#[test]
fn a_link_in_the_plugins_place_is_replaced_and_what_it_leads_to_is_not() {
    let lab = Lab::new();
    let elsewhere = lab.folder.path().join("elsewhere");
    fs::write(&elsewhere, "somebody's").unwrap();
    for link in [PLUGIN, TEMPORARY] {
        symlink(&elsewhere, lab.bin().join(link)).unwrap();
    }
    lab.install(b"one").unwrap();
    lab.assert_holds(b"one");
    assert_eq!(fs::read(&elsewhere).unwrap(), b"somebody's");
}

#[test]
fn what_a_killed_installer_left_goes() {
    let lab = Lab::new();
    let stale = lab.bin().join(TEMPORARY);
    fs::write(&stale, "half").unwrap();
    lab.install(b"one").unwrap();
    lab.assert_holds(b"one");
    fs::write(&stale, "half").unwrap();
    lab.install(b"one").unwrap();
    lab.assert_holds(b"one");
}

#[test]
fn a_plugin_that_is_running_is_replaced_and_runs_on() {
    let lab = Lab::new();
    let sleep = fs::read("/bin/sleep").unwrap();
    lab.install(&sleep).unwrap();
    let started = Command::new(lab.plugin())
        .arg("60")
        .stdin(Stdio::null())
        .spawn();
    let mut running = started.unwrap();
    let replaced = lab.install(b"two");
    let alive = running.try_wait().unwrap().is_none();
    running.kill().unwrap();
    running.wait().unwrap();
    replaced.unwrap();
    assert!(alive, "it ended");
    lab.assert_holds(b"two");
}

#[test]
fn installers_at_the_same_time_each_install_a_whole_plugin() {
    let lab = Lab::new();
    let contents: Vec<Vec<u8>> = (0..4_u8).map(|n| vec![n; 300_000]).collect();
    lab.install(&contents[0]).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let installers: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(n, content)| {
                let options = lab.options(&format!("source-{n}"), content);
                scope.spawn(move || (0..10).for_each(|_| install(&options).unwrap()))
            })
            .collect();
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let read = fs::read(lab.plugin()).expect("it is there at any moment");
                assert!(contents.contains(&read), "{} octets of it", read.len());
            }
        });
        let installed: Vec<_> = installers.into_iter().map(|one| one.join()).collect();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert!(installed.iter().all(Result::is_ok));
    });
    assert_eq!(lab.names(), [PLUGIN]);
}

#[test]
fn a_plugin_that_is_missing_is_named_and_the_installed_one_stays() {
    let lab = Lab::new();
    lab.install(b"one").unwrap();
    let missing = Install {
        plugin: "/no/such/plugin".into(),
        bin_dir: lab.bin(),
    };
    let error = format!("{:#}", install(&missing).unwrap_err());
    assert!(error.starts_with("/no/such/plugin: open: "), "{error}");
    lab.assert_holds(b"one");
}

#[test]
fn a_directory_in_the_plugins_place_is_named_and_nothing_is_left_beside_it() {
    let lab = Lab::new();
    fs::create_dir(lab.plugin()).unwrap();
    let error = format!("{:#}", lab.install(b"one").unwrap_err());
    let start = format!("{}: replace: ", lab.plugin().display());
    assert!(error.starts_with(&start), "{error}");
    assert_eq!(lab.names(), [PLUGIN]);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named() {
    let lab = Lab::new();
    let bin_dir = if is_root() {
        // To root everything is writable but what the kernel itself says.
        PathBuf::from("/proc/self/net")
    } else {
        fs::set_permissions(lab.bin(), Permissions::from_mode(0o500)).unwrap();
        lab.bin()
    };
    let options = Install {
        bin_dir: bin_dir.clone(),
        ..lab.options("source", b"one")
    };
    let error = format!("{:#}", install(&options).unwrap_err());
    let start = format!("{}: write: ", bin_dir.join(TEMPORARY).display());
    assert!(error.starts_with(&start), "{error}");
}

#[test]
fn the_plugin_is_removed_with_what_a_killed_installer_left() {
    let lab = Lab::new();
    lab.install(b"one").unwrap();
    fs::write(lab.bin().join(TEMPORARY), "half").unwrap();
    fs::write(lab.bin().join("bridge"), "another plugin").unwrap();
    for _ in 0..2 {
        remove_plugin(&lab.bin()).unwrap();
        assert_eq!(lab.names(), ["bridge"]);
    }
    remove_plugin(&lab.bin().join("missing")).unwrap();
}

/// These need root.
mod netns_tests {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    /// Runs `f` where a small file system is mounted at a directory, for it alone.
    fn with_small_disk<T: Send>(directory: &Path, f: impl FnOnce() -> T + Send) -> T {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).expect("private");
            let size = Some("size=64k,mode=755");
            let flags = MsFlags::empty();
            mount(Some("tmpfs"), directory, Some("tmpfs"), flags, size).expect("tmpfs");
            f()
        };
        thread::scope(|scope| scope.spawn(run).join()).expect("no panic")
    }

    #[test]
    fn on_a_full_disk_the_installed_plugin_stays_and_nothing_is_left_beside_it() {
        let lab = Lab::new();
        with_small_disk(&lab.bin(), || {
            lab.install(b"one").unwrap();
            let error = format!("{:#}", lab.install(&[2; 1 << 20]).unwrap_err());
            assert!(
                error.contains(".beeline.new: write: No space left"),
                "{error}"
            );
            lab.assert_holds(b"one");
        });
    }

    #[test]
    fn on_a_disk_that_is_read_only_the_installed_plugin_stays_and_serves() {
        let lab = Lab::new();
        with_small_disk(&lab.bin(), || {
            lab.install(b"one").unwrap();
            let none = None::<&str>;
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &lab.bin(), none, read_only, none).expect("remount");
            lab.install(b"one").expect("nothing is to be written");
            let error = format!("{:#}", lab.install(b"two").unwrap_err());
            assert!(error.contains(".beeline.new: "), "{error}");
            assert!(error.contains("Read-only file system"), "{error}");
            lab.assert_holds(b"one");
        });
    }
}
