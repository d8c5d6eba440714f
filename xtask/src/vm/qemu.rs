//! The machine: QEMU, with the host's root file system and a folder for what comes back.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::interrupt;
use crate::process;

const MEMORY: &str = "3G";
const CPUS: &str = "2";

/// All that can be had, but five levels of page tables, which cost time where they are emulated.
const CPU: &str = "max,la57=off";

/// No network, and a panic ends it: the guest is told not to wait and QEMU not to start it again.
const BOOT: &str = "console=ttyS0 loglevel=4 panic=-1 mitigations=off random.trust_cpu=on";

/// What a machine boots.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// The only folder of the host that it may write to.
    pub(super) share: &'a Path,
    /// What is written to its console.
    pub(super) log: &'a Path,
}

/// QEMU, which ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Runs it until it ends itself, and shows its console.
    #[expect(unsafe_code, reason = "runs between fork and exec")]
    pub(super) fn run(&self, limit: Duration) -> Result<()> {
        let mut command = self.command();
        process::echo(&command);
        let mut log = File::create(self.log).with_context(|| self.log.display().to_string())?;
        // SAFETY: prctl is a system call, which allocates nothing between fork and exec.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu: start")?;
        let mut running = Running(child);
        let console = running.0.stdout.take().context("qemu: console")?;
        let shown = thread::spawn(move || show(console, &mut log));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = running.0.try_wait()? {
                break status;
            }
            if interrupt::seen() {
                bail!("interrupted");
            }
            ensure!(start.elapsed() < limit, "not done within {limit:?}");
            thread::sleep(Duration::from_millis(100));
        };
        shown.join().unwrap_or(Ok(()))?;
        ensure!(status.success(), "qemu: {status}");
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        let accelerator = if kvm_works() {
            "kvm"
        } else {
            "tcg,thread=multi"
        };
        command.args(["-accel", accelerator, "-cpu", CPU, "-smp", CPUS]);
        command.args(["-m", MEMORY, "-nodefaults", "-no-user-config", "-no-reboot"]);
        command.args([
            "-display",
            "none",
            "-serial",
            "stdio",
            "-device",
            "virtio-rng-pci",
        ]);
        command.arg("-kernel").arg(self.kernel);
        command.arg("-initrd").arg(self.initramfs);
        command.args(["-append", BOOT]);
        let share = self.share.display();
        let root = "local,path=/,mount_tag=host,security_model=none,multidevs=remap,readonly=on";
        command.args(["-virtfs", root]);
        let share = format!("local,path={share},mount_tag=share,security_model=none");
        command.args(["-virtfs", &share]);
        command.stdin(Stdio::null());
        command
    }
}

/// Whether a machine can be made on the host's own processor: in some hosts that are guests themselves there is a
/// /dev/kvm by which QEMU dies.
fn kvm_works() -> bool {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "kvm", "-cpu", CPU, "-S", "-nodefaults"]);
    command.args(["-display", "none", "-monitor", "stdio"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    // If it is dead, so is the pipe.
    let asked = child
        .stdin
        .take()
        .map(|mut monitor| monitor.write_all(b"quit\n"));
    let ended = child.wait().is_ok_and(|status| status.success());
    asked.is_some_and(|asked| asked.is_ok()) && ended
}

/// Copies the console to the log and to standard output.
fn show(mut console: impl Read, log: &mut impl Write) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let read = match console.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.context("console: read")?,
        };
        if read == 0 {
            return Ok(());
        }
        log.write_all(&buffer[..read]).context("log: write")?;
        let mut stdout = io::stdout();
        // Nobody listening is no reason to stop.
        let _ = stdout
            .write_all(&buffer[..read])
            .and_then(|()| stdout.flush());
    }
}
