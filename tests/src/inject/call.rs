//! System calls: which of them are steps, what they are about, and how they fail.

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::unistd::Pid;

use super::netlink::Request;
use super::{Fault, Steps, memory};

/// What a call is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// The path at this argument.
    Path(usize),
    /// The same, if the flags at the other argument say that the file is made or written.
    Opens(usize, usize),
    /// The same, with the flags at the address that the other argument is.
    OpensHow(usize, usize),
    /// The descriptor that is the first argument.
    Descriptor,
    /// What is sent to it, at the other two arguments; or in a `msghdr`.
    Sends,
    SendsMessage,
    /// A command of `bpf`.
    Bpf,
    Nothing,
}

use About::{Bpf, Descriptor, Nothing, Opens, OpensHow, Path, Sends, SendsMessage};

/// Calls that change something, and how they fail where there is a better reason than EIO.
const CHANGING: &[(c_long, &str, About, Errno)] = &[
    (libc::SYS_bind, "bind", Descriptor, Errno::ENOMEM),
    (libc::SYS_bpf, "bpf", Bpf, Errno::ENOMEM),
    (libc::SYS_chmod, "chmod", Path(0), Errno::EPERM),
    (libc::SYS_clone, "clone", Nothing, Errno::EAGAIN),
    (libc::SYS_clone3, "clone3", Nothing, Errno::EAGAIN),
    (libc::SYS_connect, "connect", Descriptor, Errno::EAGAIN),
    (libc::SYS_creat, "creat", Path(0), Errno::ENOSPC),
    (libc::SYS_fchmod, "fchmod", Descriptor, Errno::EPERM),
    (libc::SYS_fchmodat, "fchmodat", Path(1), Errno::EPERM),
    (libc::SYS_fdatasync, "fdatasync", Descriptor, Errno::EIO),
    (libc::SYS_flock, "flock", Descriptor, Errno::ENOLCK),
    (libc::SYS_fork, "fork", Nothing, Errno::EAGAIN),
    (libc::SYS_fsync, "fsync", Descriptor, Errno::EIO),
    (libc::SYS_ftruncate, "ftruncate", Descriptor, Errno::EIO),
    (libc::SYS_ioctl, "ioctl", Descriptor, Errno::EIO),
    (libc::SYS_link, "link", Path(1), Errno::ENOSPC),
    (libc::SYS_linkat, "linkat", Path(3), Errno::ENOSPC),
    (libc::SYS_mkdir, "mkdir", Path(0), Errno::ENOSPC),
    (libc::SYS_mkdirat, "mkdirat", Path(1), Errno::ENOSPC),
    (libc::SYS_mount, "mount", Path(1), Errno::EPERM),
    (libc::SYS_open, "open", Opens(0, 1), Errno::ENOSPC),
    (libc::SYS_openat, "openat", Opens(1, 2), Errno::ENOSPC),
    (libc::SYS_openat2, "openat2", OpensHow(1, 2), Errno::ENOSPC),
    (libc::SYS_pidfd_open, "pidfd_open", Nothing, Errno::EMFILE),
    (libc::SYS_pwrite64, "pwrite", Descriptor, Errno::ENOSPC),
    (libc::SYS_rename, "rename", Path(1), Errno::ENOSPC),
    (libc::SYS_renameat, "renameat", Path(3), Errno::ENOSPC),
    (libc::SYS_renameat2, "renameat2", Path(3), Errno::ENOSPC),
    (libc::SYS_rmdir, "rmdir", Path(0), Errno::EIO),
    (libc::SYS_sendmsg, "sendmsg", SendsMessage, Errno::ENOBUFS),
    (libc::SYS_sendto, "sendto", Sends, Errno::ENOBUFS),
    (libc::SYS_setns, "setns", Descriptor, Errno::EPERM),
    (libc::SYS_socket, "socket", Nothing, Errno::EMFILE),
    (libc::SYS_symlink, "symlink", Path(1), Errno::ENOSPC),
    (libc::SYS_symlinkat, "symlinkat", Path(2), Errno::ENOSPC),
    (libc::SYS_unlink, "unlink", Path(0), Errno::EIO),
    (libc::SYS_unlinkat, "unlinkat", Path(1), Errno::EIO),
    (libc::SYS_unshare, "unshare", Nothing, Errno::EPERM),
    (libc::SYS_vfork, "vfork", Nothing, Errno::EAGAIN),
    (libc::SYS_write, "write", Sends, Errno::ENOSPC),
    (libc::SYS_writev, "writev", Descriptor, Errno::ENOSPC),
];

/// Calls that are no steps at all: memory, threads, signals, time, waiting, the process's own end, and letting go of a
/// descriptor, which happens even if it fails.
const NEVER: &[c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// A system call that a thread is about to make.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) pid: Pid,
    pub(super) number: c_long,
    pub(super) arguments: [u64; 6],
    /// The protocol of the netlink socket that the first argument is, if it is one.
    pub(super) netlink: Option<i32>,
}

impl Call {
    /// Whether it is a step.
    pub(super) fn is_step(&self, steps: Steps, fault: Fault) -> bool {
        if fault == Fault::Refuse {
            return self
                .request()
                .is_some_and(|request| request.can_be_refused());
        }
        if NEVER.contains(&self.number) {
            return false;
        }
        let Some(about) = self.about() else {
            return steps == Steps::All;
        };
        let flags = match about {
            Opens(_, flags) => self.arguments[flags],
            OpensHow(_, how) => memory::number(self.pid, self.arguments[how]),
            // Letting go of a lock, and what any descriptor can: they do not fail.
            Descriptor => return !self.is_certain(),
            // Waking a thread of the own program, and the log, about which nothing could be done.
            Sends => return !self.wakes() && self.arguments[0] != 2,
            _ => return true,
        };
        let writes = libc::O_CREAT | libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC;
        steps == Steps::All || flags as i32 & writes != 0
    }

    /// The error that it fails with.
    pub(super) fn errno(&self) -> Errno {
        let known = CHANGING.iter().find(|known| known.0 == self.number);
        match known {
            Some((.., Opens(..) | OpensHow(..), _))
                if !self.is_step(Steps::Changing, Fault::Fail) =>
            {
                Errno::EIO
            }
            Some((.., errno)) => *errno,
            None => Errno::EIO,
        }
    }

    /// The netlink request that it sends, if it does.
    pub(super) fn request(&self) -> Option<Request> {
        let [_, second, third, ..] = self.arguments;
        let (about, protocol) = (self.about()?, self.netlink?);
        match about {
            Sends => Some(Request::read(self.pid, protocol, second, third)),
            SendsMessage => {
                // Of struct msghdr the third member is a pointer to the first part: where, and how long.
                let part = memory::number(self.pid, second + 16);
                let [at, len] = [0, 8].map(|offset| memory::number(self.pid, part + offset));
                Some(Request::read(self.pid, protocol, at, len))
            }
            _ => None,
        }
    }

    fn about(&self) -> Option<About> {
        let known = CHANGING.iter().find(|known| known.0 == self.number);
        known.map(|(_, _, about, _)| *about)
    }

    fn is_certain(&self) -> bool {
        let second = self.arguments[1];
        match self.number {
            libc::SYS_flock => second as i32 & libc::LOCK_UN != 0,
            libc::SYS_ioctl => [libc::FIONBIO, libc::FIOCLEX].contains(&second),
            _ => false,
        }
    }

    fn wakes(&self) -> bool {
        memory::descriptor(self.pid, self.arguments[0]) == "anon_inode:[eventfd]"
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = CHANGING.iter().find(|known| known.0 == self.number);
        let Some((_, name, about, _)) = known else {
            let what = memory::descriptor(self.pid, self.arguments[0]);
            return write!(f, "system call {} of {what}?", self.number);
        };
        if let Some(request) = self.request() {
            return write!(f, "{name} {request}");
        }
        let descriptor = || match self.arguments[0] {
            0 => "standard input".to_owned(),
            1 => "standard output".to_owned(),
            fd => memory::descriptor(self.pid, fd),
        };
        match about {
            Path(at) | Opens(at, _) | OpensHow(at, _) => {
                let path = memory::string(self.pid, self.arguments[*at]);
                write!(f, "{name} {path}")
            }
            Descriptor | Sends | SendsMessage => write!(f, "{name} {}", descriptor()),
            Bpf => write!(f, "{name} {}", command(self.arguments[0])),
            Nothing => write!(f, "{name}"),
        }
    }
}

/// Commands of `bpf`, by number.
fn command(number: u64) -> String {
    let names = [
        "MAP_CREATE",
        "MAP_LOOKUP_ELEM",
        "MAP_UPDATE_ELEM",
        "MAP_DELETE_ELEM",
        "MAP_GET_NEXT_KEY",
        "PROG_LOAD",
        "OBJ_PIN",
        "OBJ_GET",
        "PROG_ATTACH",
        "PROG_DETACH",
        "PROG_TEST_RUN",
        "PROG_GET_NEXT_ID",
        "MAP_GET_NEXT_ID",
        "PROG_GET_FD_BY_ID",
        "MAP_GET_FD_BY_ID",
        "OBJ_GET_INFO_BY_FD",
        "PROG_QUERY",
        "RAW_TRACEPOINT_OPEN",
        "BTF_LOAD",
        "BTF_GET_FD_BY_ID",
        "TASK_FD_QUERY",
        "MAP_LOOKUP_AND_DELETE_ELEM",
        "MAP_FREEZE",
        "BTF_GET_NEXT_ID",
        "MAP_LOOKUP_BATCH",
        "MAP_LOOKUP_AND_DELETE_BATCH",
        "MAP_UPDATE_BATCH",
        "MAP_DELETE_BATCH",
        "LINK_CREATE",
        "LINK_UPDATE",
        "LINK_GET_FD_BY_ID",
        "LINK_GET_NEXT_ID",
        "ENABLE_STATS",
        "ITER_CREATE",
        "LINK_DETACH",
    ];
    let name = names.get(number as usize);
    name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}
