//! Programs of somebody else's on an interface, which beeline has to live with.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::programs::links::FdLink;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, ProgramInfo, SchedClassifier, TcAttachType};
use aya::sys::{Stats, enable_stats};
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::kernel;
use crate::netns::Namespace;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// What the program does with every packet, beside being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Leaves it to the next program (`TCX_NEXT`, `TC_ACT_UNSPEC`).
    Next,
    /// Lets it pass, so that no later program sees it (`TC_ACT_OK`).
    Pass,
    /// Drops it (`TC_ACT_SHOT`).
    Drop,
    /// Sends it out of an interface (`bpf_redirect`).
    Redirect(u32),
}

/// Where among the programs that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before all.
    First,
    /// Behind all.
    Last,
}

/// A program that is attached until it is dropped, unless somebody else detaches it.
#[derive(Debug)]
pub struct Foreign {
    program: SchedClassifier,
    id: u32,
    pin: PathBuf,
    _link: Option<FdLink>,
    // The kernel counts runs as long as somebody wants that.
    _stats: OwnedFd,
}

impl Foreign {
    /// Loads a program; `pin` is a path on a bpffs, which goes on drop.
    fn new(act: Act, pin: &Path) -> Result<Self> {
        let stats = enable_stats(Stats::RunTime).context("count runs")?;
        let loaded = load(&instructions(act)).context("foreign program: load")?;
        pin_to(&loaded, pin).with_context(|| format!("{}: pin", pin.display()))?;
        let program = SchedClassifier::from_pin(pin)?;
        let id = program.info()?.id();
        Ok(Self {
            program,
            id,
            pin: pin.to_owned(),
            _link: None,
            _stats: stats,
        })
    }

    /// Attaches one by tcx.
    pub fn tcx(
        namespace: &Namespace,
        interface: &str,
        direction: TcAttachType,
        order: Order,
        act: Act,
        pin: &Path,
    ) -> Result<Self> {
        let mut foreign = Self::new(act, pin)?;
        let order = match order {
            Order::First => LinkOrder::first(),
            Order::Last => LinkOrder::last(),
        };
        let link = namespace.within(|| -> Result<FdLink> {
            let options = TcAttachOptions::TcxOrder(order);
            let program = &mut foreign.program;
            let id = program.attach_with_options(interface, direction, options)?;
            Ok(program.take_link(id)?.try_into()?)
        });
        foreign._link = Some(link.with_context(|| format!("{interface}: tcx"))?);
        Ok(foreign)
    }

    /// Attaches one as a classic filter, with a clsact qdisc if there is none; a priority of 0 lets the kernel choose.
    pub fn classic(
        namespace: &Namespace,
        interface: &str,
        direction: TcAttachType,
        priority: u16,
        act: Act,
        pin: &Path,
    ) -> Result<Self> {
        let mut foreign = Self::new(act, pin)?;
        let attached = namespace.within(|| -> Result<()> {
            // There already is fine.
            let _ = qdisc_add_clsact(interface);
            let options = TcAttachOptions::Netlink(NlOptions {
                priority,
                handle: TcHandle::AUTO_ASSIGN,
                classid: None,
            });
            let program = &mut foreign.program;
            let id = program.attach_with_options(interface, direction, options)?;
            // Goes with its qdisc or its interface.
            std::mem::forget(program.take_link(id)?);
            Ok(())
        });
        attached.with_context(|| format!("{interface}: classic filter"))?;
        Ok(foreign)
    }

    /// How many packets it saw so far.
    pub fn runs(&self) -> u64 {
        let info = self
            .program
            .info()
            .expect("a loaded program has information");
        info.run_count()
    }

    /// Its ID in the kernel.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pin);
    }
}

/// IDs of the programs that are attached by tcx, in order; none on a kernel without it.
pub fn tcx_programs(
    namespace: &Namespace,
    interface: &str,
    direction: TcAttachType,
) -> Result<Vec<u32>> {
    if !kernel::has_tcx() {
        return Ok(Vec::new());
    }
    let queried = namespace.within(|| SchedClassifier::query_tcx(interface, direction));
    let (_, programs) = queried.with_context(|| format!("{interface}: query tcx"))?;
    Ok(programs.iter().map(ProgramInfo::id).collect())
}

fn instructions(act: Act) -> Vec<u64> {
    const EXIT: u64 = 0x95;
    let set = |register: u64, value: u32| u64::from(value) << 32 | register << 8 | 0xb7;
    match act {
        Act::Next => vec![set(0, u32::MAX), EXIT],
        Act::Pass => vec![set(0, 0), EXIT],
        Act::Drop => vec![set(0, 2), EXIT],
        // `return bpf_redirect(interface, 0)`: helper 23.
        Act::Redirect(interface) => vec![set(1, interface), set(2, 0), 23 << 32 | 0x85, EXIT],
    }
}

#[expect(unsafe_code, reason = "a descriptor that bpf(2) returns")]
fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    /// The first members of `union bpf_attr` for the command; the kernel takes the others for 0.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
    }
    let attributes = Attributes {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
    };
    // Before Linux 5.11 programs count as locked memory; if that may not be raised, loading says so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let loaded = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(loaded) })
}

fn pin_to(program: &OwnedFd, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let text = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes {
        path: text.as_ptr() as u64,
        descriptor: program.as_raw_fd() as u32,
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &attributes).map(drop)
}

#[expect(
    unsafe_code,
    reason = "no safe library loads programs of single instructions"
)]
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the pointers inside are of data that outlives the call, and the kernel reads no more than the sizes say.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match done {
        0.. => Ok(done as i32),
        _ => Err(io::Error::last_os_error()),
    }
}
