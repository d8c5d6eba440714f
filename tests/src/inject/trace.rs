//! Running a program under ptrace, up to the step where something goes wrong and on to its end.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::panic::resume_unwind;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::call::Call;
use super::{Fault, Injected, Injection, Steps};

/// See [`super::output`]; the program is killed when `patience` is over.
#[expect(unsafe_code, reason = "runs between fork and exec")]
pub(super) fn output(
    command: &mut Command,
    input: &[u8],
    injection: &Injection,
    patience: Duration,
) -> Result<Injected<Output>> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    // A thread of its own, as only its own children are waited for, and not those of other tests.
    let traced = thread::scope(|scope| {
        let tracer = scope.spawn(|| run(command, input, injection, patience));
        tracer.join()
    });
    traced.unwrap_or_else(|panic| resume_unwind(panic))
}

fn run(
    command: &mut Command,
    input: &[u8],
    injection: &Injection,
    patience: Duration,
) -> Result<Injected<Output>> {
    let mut child = command
        .spawn()
        .with_context(|| format!("{:?}: start", command.get_program()))?;
    let pid = Pid::from_raw(child.id().try_into()?);
    let mut stdin = child.stdin.take().context("no standard input")?;
    let mut stdout = child.stdout.take().context("no standard output")?;
    let mut stderr = child.stderr.take().context("no standard error")?;
    let mut tracer = Tracer {
        injection,
        leader: pid,
        threads: HashSet::from([pid]),
        sockets: Sockets::default(),
        begun: injection.steps == Steps::Changing,
        steps: 0,
        step: None,
    };
    thread::scope(|scope| {
        // A program that was killed has not read everything.
        scope.spawn(move || match stdin.write_all(input) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        });
        let stdout = scope.spawn(move || read(&mut stdout));
        let stderr = scope.spawn(move || read(&mut stderr));
        let (ended, end) = mpsc::channel::<()>();
        let guard = scope.spawn(move || {
            let late = end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout);
            late && kill(pid, Signal::SIGKILL).is_ok()
        });
        let status = tracer.trace();
        if status.is_err() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        drop(ended);
        let late = guard.join().unwrap_or_else(|panic| resume_unwind(panic));
        let status = status?;
        if late {
            bail!(
                "still at work after {patience:?}; {:?}",
                tracer.step.as_deref().unwrap_or("nothing went wrong")
            );
        }
        let output = Output {
            status,
            stdout: stdout.join().unwrap_or_else(|panic| resume_unwind(panic))?,
            stderr: stderr.join().unwrap_or_else(|panic| resume_unwind(panic))?,
        };
        Ok(Injected {
            outcome: output,
            step: tracer.step,
            steps: tracer.steps,
        })
    })
}

fn read(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Tracer<'a> {
    injection: &'a Injection,
    leader: Pid,
    threads: HashSet<Pid>,
    sockets: Sockets,
    begun: bool,
    steps: usize,
    step: Option<String>,
}

impl Tracer<'_> {
    /// Follows all threads to the end.
    fn trace(&mut self) -> Result<ExitStatus> {
        // Before the first instruction of the new program.
        let stopped = waitpid(self.leader, Some(WaitPidFlag::__WALL)).context("wait")?;
        if stopped != WaitStatus::Stopped(self.leader, Signal::SIGTRAP) {
            bail!("not stopped where it begins: {stopped:?}");
        }
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(self.leader, options).context("trace threads")?;
        self.go_on(self.leader, None)?;
        loop {
            let own = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            match waitpid(None, Some(own)).context("wait")? {
                WaitStatus::Exited(pid, code) if pid == self.leader => {
                    return Ok(ExitStatus::from_raw(code << 8));
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.leader => {
                    return Ok(ExitStatus::from_raw(signal as i32));
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.at_call(pid)?;
                    self.go_on(pid, None)?;
                }
                // A thread begins so.
                WaitStatus::Stopped(pid, Signal::SIGSTOP) if self.threads.insert(pid) => {
                    self.go_on(pid, None)?;
                }
                WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal))?,
                WaitStatus::PtraceEvent(pid, ..) => self.go_on(pid, None)?,
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    self.threads.remove(&pid);
                }
                _ => {}
            }
        }
    }

    /// Up to the next call, or to the end when nothing can go wrong any more.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) -> Result<()> {
        let went = match self.step {
            None => ptrace::syscall(pid, signal),
            Some(_) => ptrace::cont(pid, signal),
        };
        ignore_gone(went)
    }

    #[expect(unsafe_code, reason = "libc has what a call is as a union")]
    fn at_call(&mut self, pid: Pid) -> Result<()> {
        if self.step.is_some() {
            return Ok(());
        }
        let info = match ptrace::syscall_info(pid) {
            Err(Errno::ESRCH) => return Ok(()),
            info => info.context("look at a system call")?,
        };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: at the exit of a call the kernel has filled in this member.
            self.sockets.returned(pid, unsafe { info.u.exit }.sval);
            return Ok(());
        }
        // SAFETY: at the entry of a call the kernel has filled in this member.
        let entry = unsafe { info.u.entry };
        let call = Call {
            pid,
            number: entry.nr as i64,
            arguments: entry.args,
            netlink: self.sockets.protocol(entry.args[0]),
        };
        self.sockets.called(&call);
        self.begun |= call.number == libc::SYS_poll;
        let Injection {
            steps, fault, only, ..
        } = *self.injection;
        if !self.begun || !call.is_step(steps, fault) {
            return Ok(());
        }
        if only.is_some_and(|text| !call.to_string().contains(text)) {
            return Ok(());
        }
        self.steps += 1;
        if self.steps == self.injection.at {
            self.step = Some(format!("step {}: {call}", self.steps));
            inject(fault, self.leader, &call)?;
        }
        Ok(())
    }
}

/// The netlink sockets that are open, with their protocols.
#[derive(Default)]
struct Sockets {
    open: HashMap<i64, i32>,
    /// What threads are about to open.
    opening: HashMap<Pid, i32>,
}

impl Sockets {
    fn called(&mut self, call: &Call) {
        let [first, _, third, ..] = call.arguments;
        self.opening.remove(&call.pid);
        if call.number == libc::SYS_socket && first == libc::AF_NETLINK as u64 {
            self.opening.insert(call.pid, third as i32);
        }
        if call.number == libc::SYS_close {
            self.open.remove(&(first as i64));
        }
    }

    fn returned(&mut self, pid: Pid, value: i64) {
        if let Some(protocol) = self.opening.remove(&pid) {
            self.open.insert(value, protocol);
        }
    }

    fn protocol(&self, descriptor: u64) -> Option<i32> {
        self.open.get(&(descriptor as i64)).copied()
    }
}

fn inject(fault: Fault, leader: Pid, call: &Call) -> Result<()> {
    match fault {
        Fault::Kill => ignore_gone(kill(leader, Signal::SIGKILL)),
        Fault::Refuse => {
            let request = call.request().context("no netlink request")?;
            request.spoil(call.pid).context("spoil a request")
        }
        Fault::Fail => {
            let mut registers = ptrace::getregs(call.pid).context("read registers")?;
            // No call has this number, so none is made, and what is returned stays.
            registers.orig_rax = u64::MAX;
            registers.rax = (-i64::from(call.errno() as i32)) as u64;
            ptrace::setregs(call.pid, registers).context("write registers")
        }
    }
}

/// A thread may be killed at any time.
fn ignore_gone(done: nix::Result<()>) -> Result<()> {
    match done {
        Err(Errno::ESRCH) => Ok(()),
        done => Ok(done?),
    }
}
