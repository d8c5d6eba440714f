//! Loading the programs, for what the node uses.

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{ProgramError, SchedClassifier},
};
use beeline_common::{
    Features, Hook,
    abi::{globals, names},
};

use super::pins::{Pins, remove_pin};

static OBJECT: &[u8] = include_bytes_aligned!(env!("BEELINE_EBPF_OBJECT"));

/// Loads the programs and pins them with their maps. Maps that are pinned already are kept, with what they hold; each
/// program's pin is replaced in one step, and what is attached already runs on as it was.
///
/// `flows` is how many flows each of the maps of flows holds, if they are made anew.
pub(super) fn load(pins: &Pins, features: Features, flows: u32) -> Result<()> {
    pins.create()?;
    // All are verified before the first is pinned.
    let mut object = verified(pins, features, flows, 0)?;
    for hook in Hook::ALL {
        let path = pins.program(hook);
        remove_pin(&path)?;
        program(&mut object, hook)?
            .pin(&path)
            .with_context(|| format!("{}: pin", path.display()))?;
    }
    tracing::info!("{}: programs loaded", pins.root().display());
    Ok(())
}

/// Loads the programs over the pinned maps, and pins none. They tell of every packet, with that many bytes of it, unless
/// `monitor` is 0.
pub(super) fn verified(pins: &Pins, features: Features, flows: u32, monitor: u32) -> Result<Ebpf> {
    let anti_spoof = u8::from(features.anti_spoof);
    let mut object = EbpfLoader::new()
        .default_map_pin_directory(pins.maps())
        .override_global(globals::ANTI_SPOOF, &anti_spoof, true)
        .override_global(globals::VNI, &features.vni, true)
        .override_global(globals::MONITOR, &monitor, true)
        .map_max_entries(names::STACK_FLOWS, flows)
        .map_max_entries(names::STACK_CONNS, flows)
        .load(OBJECT)
        .context("eBPF object: load")?;
    for hook in Hook::ALL {
        let loaded = program(&mut object, hook)?.load();
        loaded
            .map_err(|error| concise(&error))
            .with_context(|| format!("program {}: load", hook.name()))?;
    }
    Ok(object)
}

pub(super) fn program(object: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier> {
    let name = hook.name();
    let program = object
        .program_mut(name)
        .with_context(|| format!("program {name}: not in the object"))?;
    Ok(program.try_into()?)
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
