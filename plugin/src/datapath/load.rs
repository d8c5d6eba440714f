//! Loading, attaching and detaching the programs.

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    EbpfLoader, include_bytes_aligned,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, links::FdLink, tc::TcAttachOptions,
    },
    util::KernelVersion,
};
use beeline_common::Hook;

use super::pins::{Pins, remove_pin};

static OBJECT: &[u8] = include_bytes_aligned!(env!("BEELINE_EBPF_OBJECT"));

/// tcx links came with 6.6 (commit e420bed025071a623d2720a92bc2245c84757ecb).
const OLDEST_KERNEL: (u8, u8, u16) = (6, 6, 0);

/// Loads the programs and pins them with their maps; maps that are pinned already are kept, with what they hold.
pub(super) fn load(pins: &Pins) -> Result<()> {
    let (major, minor, patch) = OLDEST_KERNEL;
    ensure!(
        KernelVersion::current()? >= KernelVersion::new(major, minor, patch),
        "kernel: older than Linux {major}.{minor}, which brought tcx links"
    );
    pins.create()?;
    let mut object = EbpfLoader::new()
        .default_map_pin_directory(pins.maps())
        .load(OBJECT)
        .context("eBPF object: load")?;
    for hook in Hook::ALL {
        let name = hook.name();
        let program: &mut SchedClassifier = object
            .program_mut(name)
            .with_context(|| format!("program {name}: not in the object"))?
            .try_into()?;
        program
            .load()
            .map_err(|error| concise(&error))
            .with_context(|| format!("program {name}: load"))?;
        let path = pins.program(hook);
        remove_pin(&path)?;
        program
            .pin(&path)
            .with_context(|| format!("{}: pin", path.display()))?;
    }
    Ok(())
}

/// Attaches the pinned program of `hook` to an interface, behind what others have there, and pins the link.
///
/// A link that is pinned under the same index already is replaced only after the new one is in place.
pub(super) fn attach(pins: &Pins, hook: Hook, interface: &str, ifindex: u32) -> Result<()> {
    let object = || format!("program {}: attach to {interface:?}", hook.name());
    let mut program = SchedClassifier::from_pin(pins.program(hook)).with_context(object)?;
    let id = program
        .attach_with_options(
            interface,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(LinkOrder::default()),
        )
        .with_context(object)?;
    let link: FdLink = program.take_link(id)?.try_into().with_context(object)?;
    let path = pins.link(hook, ifindex);
    remove_pin(&path)?;
    link.pin(&path)
        .with_context(|| format!("{}: pin", path.display()))?;
    Ok(())
}

/// Detaches the program of `hook` from an interface; not attached is success.
pub(super) fn detach(pins: &Pins, hook: Hook, ifindex: u32) -> Result<()> {
    remove_pin(&pins.link(hook, ifindex))
}

/// The error with the end of the verifier's log, which says what it disliked; the whole is thousands of lines.
fn concise(error: &ProgramError) -> anyhow::Error {
    const LINES: usize = 3;
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return anyhow!("{error}");
    };
    let log = verifier_log.to_string();
    let mut end: Vec<&str> = log
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(LINES)
        .collect();
    end.reverse();
    anyhow!("{io_error}: {}", end.join("; "))
}
