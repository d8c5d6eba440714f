//! Attaching programs to interfaces, beside those of others.
//!
//! By tcx where the kernel has it, else by clsact. A program of ours goes behind what others have there, and what is
//! not for the fast path goes on to the next one; nothing of anybody else's is ever touched.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::{
    programs::{
        LinkOrder, ProgramInfo, SchedClassifier, TcAttachType,
        links::{FdLink, Link as _, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact},
    },
    util::KernelVersion,
};
use beeline_common::{
    Hook,
    abi::{FILTER_HANDLE, FILTER_PRIORITY},
};
use nix::net::if_::if_indextoname;
use serde::Serialize;

use super::{
    config::AttachBy,
    pins::{Pins, remove_pin},
};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By a tcx link.
    Tcx,
    /// By a classic filter.
    Clsact,
}

impl Kind {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// The kernels that have tcx (commit e420bed025071a623d2720a92bc2245c84757ecb).
const TCX: (u8, u8, u16) = (6, 6, 0);

impl AttachBy {
    /// Whether this kernel is to attach by tcx.
    fn is_tcx(self) -> bool {
        let (major, minor, patch) = TCX;
        match self {
            Self::Auto => KernelVersion::current()
                .is_ok_and(|kernel| kernel >= KernelVersion::new(major, minor, patch)),
            Self::Tcx => true,
            Self::Clsact => false,
        }
    }
}

/// Attaches the pinned program of `hook` to an interface, if it is not. One that is attached is swapped for the pinned
/// one, between two packets.
pub(super) fn attach(pins: &Pins, hook: Hook, ifindex: u32, by: AttachBy) -> Result<()> {
    let context = || format!("program {}: attach to interface {ifindex}", hook.name());
    let mut program = SchedClassifier::from_pin(pins.program(hook)).with_context(context)?;
    let (link, filter) = (pins.link(hook, ifindex), pins.filter(hook, ifindex));
    if link.exists() {
        if swap(&mut program, &link).is_ok() {
            return Ok(());
        }
        // The link is of an interface that is gone, whose index this one has now.
        remove_pin(&link)?;
    }
    if filter.exists() {
        if replace_filter(&mut program, hook, ifindex, &filter).is_ok() {
            return Ok(());
        }
        // Somebody removed the filter, or with its qdisc all filters.
        remove_pin(&filter)?;
    }
    let attached = if by.is_tcx() {
        add_link(&mut program, hook, ifindex, &link)
    } else {
        add_filter(&mut program, hook, ifindex, &filter)
    };
    attached.with_context(context)
}

/// Swaps what is attached for a program of the same hook, between two packets. Attaches nothing anew: what is not attached
/// any more is left alone.
pub(super) fn put(
    pins: &Pins,
    program: &mut SchedClassifier,
    hook: Hook,
    ifindex: u32,
) -> Result<()> {
    let (link, filter) = (pins.link(hook, ifindex), pins.filter(hook, ifindex));
    let done = if link.exists() {
        swap(program, &link)
    } else if filter.exists() {
        replace_filter(program, hook, ifindex, &filter)
    } else {
        return Ok(());
    };
    done.with_context(|| format!("program {}: swap at interface {ifindex}", hook.name()))
}

/// The kernel's number of the program that is attached to an interface.
pub(super) fn program_at(pins: &Pins, hook: Hook, ifindex: u32, how: Kind) -> Result<u32> {
    let number = match how {
        Kind::Tcx => PinnedLink::from_pin(pins.link(hook, ifindex))
            .and_then(|link| Ok(FdLink::from(link).info()?.program_id()))?,
        Kind::Clsact => ProgramInfo::from_pin(pins.filter(hook, ifindex))?.id(),
    };
    Ok(number)
}

/// Detaches the program of `hook` from an interface; not attached is success.
pub(super) fn detach(pins: &Pins, hook: Hook, ifindex: u32) -> Result<()> {
    remove_pin(&pins.link(hook, ifindex))?;
    let filter = pins.filter(hook, ifindex);
    if filter.exists() {
        if let Ok(name) = interface(ifindex) {
            // The interface may be gone, or somebody else may have removed all its filters.
            let _ = filter_link(&name, hook)?.detach();
        }
        remove_pin(&filter)?;
    }
    Ok(())
}

/// Whether the program of `hook` is attached to an interface.
pub(super) fn is_attached(pins: &Pins, hook: Hook, ifindex: u32) -> bool {
    pins.link(hook, ifindex).exists() || pins.filter(hook, ifindex).exists()
}

fn add_link(program: &mut SchedClassifier, hook: Hook, ifindex: u32, pin: &Path) -> Result<()> {
    let behind_all = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(&interface(ifindex)?, direction(hook), behind_all)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pin)
        .with_context(|| format!("{}: pin", pin.display()))?;
    Ok(())
}

fn swap(program: &mut SchedClassifier, pin: &Path) -> Result<()> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
    // A descriptor of the link. The pin keeps it when this one is closed, and nothing else shall: without the pin it is
    // to go.
    drop(program.take_link(id)?);
    Ok(())
}

fn add_filter(program: &mut SchedClassifier, hook: Hook, ifindex: u32, pin: &Path) -> Result<()> {
    let name = interface(ifindex)?;
    match qdisc_add_clsact(&name) {
        Ok(()) => {}
        // Somebody's clsact is as good; somebody's ingress qdisc at least has a place for what comes in.
        Err(error) if already_there(&error) => {}
        Err(error) => return Err(error).context("qdisc clsact: add"),
    }
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: FILTER_PRIORITY,
        handle: FILTER_HANDLE.into(),
        classid: None,
    });
    let id = program.attach_with_options(&name, direction(hook), options)?;
    // The filter stays when this process ends.
    std::mem::forget(program.take_link(id)?);
    program
        .pin(pin)
        .with_context(|| format!("{}: pin", pin.display()))
}

fn replace_filter(
    program: &mut SchedClassifier,
    hook: Hook,
    ifindex: u32,
    pin: &Path,
) -> Result<()> {
    let id = program.attach_to_link(filter_link(&interface(ifindex)?, hook)?)?;
    std::mem::forget(program.take_link(id)?);
    // The pin says which program it is; it is there at any time, as without it the filter would be nobody's.
    let mut new = pin.as_os_str().to_owned();
    new.push("%new");
    let new = Path::new(&new);
    remove_pin(new)?;
    program
        .pin(new)
        .with_context(|| format!("{}: pin", new.display()))?;
    fs::rename(new, pin).with_context(|| format!("{}: rename", new.display()))
}

fn filter_link(interface: &str, hook: Hook) -> Result<SchedClassifierLink> {
    SchedClassifierLink::attached(
        interface,
        direction(hook),
        FILTER_PRIORITY,
        FILTER_HANDLE.into(),
        None,
    )
    .with_context(|| format!("interface {interface:?}: find filter"))
}

const fn direction(hook: Hook) -> TcAttachType {
    if hook.is_egress() {
        TcAttachType::Egress
    } else {
        TcAttachType::Ingress
    }
}

fn interface(ifindex: u32) -> Result<String> {
    let name = if_indextoname(ifindex).with_context(|| format!("interface {ifindex}: find"))?;
    match name.into_string() {
        Ok(name) => Ok(name),
        Err(error) => bail!("interface {ifindex}: its name is no UTF-8: {error}"),
    }
}

fn already_there(error: &TcError) -> bool {
    let TcError::NetlinkError(error) = error else {
        return false;
    };
    error.raw_os_error() == Some(nix::libc::EEXIST)
}
