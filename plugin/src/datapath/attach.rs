//! Attaching programs to interfaces, beside those of others.
//!
//! By tcx where the kernel has it, else by clsact. A program of ours that redirects goes behind what others have there,
//! so that their verdicts hold, and what is not for the fast path goes on to the next one. One that only looks on goes
//! before them: it must see also what they let pass, which no later program does. Nothing of anybody else's is ever
//! touched.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::{
    programs::{
        LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType,
        links::{FdLink, Link as _, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact},
    },
    util::KernelVersion,
};
use beeline_common::{
    Hook,
    abi::{FILTER_HANDLE, FILTER_PRIORITY, OBSERVER_FILTER_PRIORITY},
};
use nix::net::if_::if_indextoname;
use serde::Serialize;

use super::{
    config::AttachBy,
    pins::{Pins, remove_pin},
};
use crate::net::clsact;

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
pub(super) const TCX: (u8, u8, u16) = (6, 6, 0);

impl AttachBy {
    /// Whether this kernel is to attach by tcx.
    pub(crate) fn is_tcx(self) -> bool {
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
/// one, between two packets; one that is attached the other way is exchanged.
pub(super) fn attach(pins: &Pins, hook: Hook, ifindex: u32, by: AttachBy) -> Result<()> {
    let context = || format!("program {}: attach to interface {ifindex}", hook.name());
    let mut program = SchedClassifier::from_pin(pins.program(hook)).with_context(context)?;
    let detach_other = || {
        if by.is_tcx() {
            detach_filter(pins, hook, ifindex)
        } else {
            remove_pin(&pins.link(hook, ifindex))
        }
    };
    if hook.is_egress() {
        // The second of two that look on would take for the stack's what the first has taken the mark off.
        detach_other()?;
    }
    let attached = if by.is_tcx() {
        attach_link(&mut program, hook, ifindex, &pins.link(hook, ifindex))
    } else {
        attach_filter(&mut program, pins, hook, ifindex)
    };
    attached.with_context(context)?;
    detach_other()
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
    detach_filter(pins, hook, ifindex)
}

/// Whether the program of `hook` is attached to an interface.
pub(super) fn is_attached(pins: &Pins, hook: Hook, ifindex: u32) -> bool {
    pins.link(hook, ifindex).exists() || pins.filter(hook, ifindex).exists()
}

fn attach_link(program: &mut SchedClassifier, hook: Hook, ifindex: u32, pin: &Path) -> Result<()> {
    if pin.exists() {
        if swap(program, pin).is_ok() {
            return Ok(());
        }
        // The link is of an interface that is gone, whose index this one has now.
        remove_pin(pin)?;
    }
    let order = if hook.is_egress() {
        LinkOrder::first()
    } else {
        LinkOrder::last()
    };
    let options = TcAttachOptions::TcxOrder(order);
    let id = program.attach_with_options(&interface(ifindex)?, direction(hook), options)?;
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

fn attach_filter(
    program: &mut SchedClassifier,
    pins: &Pins,
    hook: Hook,
    ifindex: u32,
) -> Result<()> {
    let (pin, qdisc) = (pins.filter(hook, ifindex), pins.qdisc(ifindex));
    if pin.exists() {
        if replace_filter(program, hook, ifindex, &pin).is_ok() {
            return Ok(());
        }
        // Somebody removed the filter, or with its qdisc all filters.
        remove_pin(&pin)?;
    }
    let name = interface(ifindex)?;
    match qdisc_add_clsact(&name) {
        Ok(()) => {
            // What a pin says of a qdisc that was there before is of that one.
            remove_pin(&qdisc)?;
            program.pin(&qdisc)?;
        }
        // Somebody's clsact is as good; somebody's ingress qdisc at least has a place for what comes in.
        Err(error) if already_there(&error) => {}
        Err(error) => return Err(error).context("qdisc clsact: add"),
    }
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: priority(hook),
        handle: FILTER_HANDLE.into(),
        classid: None,
    });
    let id = match program.attach_with_options(&name, direction(hook), options) {
        // Of ours, whose pins somebody removed; another network's has some.
        Err(ProgramError::TcError(error))
            if already_there(&error) && !is_of_another(pins, hook, ifindex) =>
        {
            program.attach_to_link(filter_link(&name, hook)?)?
        }
        attached => attached?,
    };
    // The filter stays when this process ends.
    std::mem::forget(program.take_link(id)?);
    program
        .pin(&pin)
        .with_context(|| format!("{}: pin", pin.display()))
}

fn detach_filter(pins: &Pins, hook: Hook, ifindex: u32) -> Result<()> {
    let (filter, qdisc) = (pins.filter(hook, ifindex), pins.qdisc(ifindex));
    if !filter.exists() {
        return Ok(());
    }
    if let Ok(name) = interface(ifindex) {
        if let Ok(link) = filter_link(&name, hook) {
            // Somebody else may have removed all its filters.
            let _ = link.detach();
        }
        if qdisc.exists() && clsact::remove_unused(ifindex)? {
            remove_pin(&qdisc)?;
        }
    } else {
        // The interface took its qdisc along.
        remove_pin(&qdisc)?;
    }
    remove_pin(&filter)
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
        priority(hook),
        FILTER_HANDLE.into(),
        None,
    )
    .with_context(|| format!("interface {interface:?}: find filter"))
}

pub(super) const fn priority(hook: Hook) -> u16 {
    if hook.is_egress() {
        OBSERVER_FILTER_PRIORITY
    } else {
        FILTER_PRIORITY
    }
}

pub(super) const fn direction(hook: Hook) -> TcAttachType {
    if hook.is_egress() {
        TcAttachType::Egress
    } else {
        TcAttachType::Ingress
    }
}

pub(super) fn interface(ifindex: u32) -> Result<String> {
    let name = if_indextoname(ifindex).with_context(|| format!("interface {ifindex}: find"))?;
    match name.into_string() {
        // That is what nix 0.31 makes of an interface that is gone.
        Ok(name) if name.is_empty() => bail!("interface {ifindex}: gone"),
        Ok(name) => Ok(name),
        Err(error) => bail!("interface {ifindex}: its name is no UTF-8: {error}"),
    }
}

/// Whether the program of `hook` of another network is a filter of an interface.
fn is_of_another(pins: &Pins, hook: Hook, ifindex: u32) -> bool {
    pins.others()
        .any(|other| other.filter(hook, ifindex).exists())
}

fn already_there(error: &TcError) -> bool {
    let TcError::NetlinkError(error) = error else {
        return false;
    };
    error.raw_os_error() == Some(nix::libc::EEXIST)
}
