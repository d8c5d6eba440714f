//! Listening to the programs: a second instance of them, over the same maps, that tells of every packet.
//!
//! The pinned programs have no code for it, and are not touched: what is attached is swapped for the instance that tells,
//! and back.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf,
    maps::{
        MapData, PerfEventArray,
        perf::{PerfEvent, PerfEventArrayBuffer},
    },
    programs::SchedClassifier,
    util::online_cpus,
};
use beeline_common::{
    Event, Hook, Outcome,
    abi::{HEAD, names},
    stats::HOOKS,
};
use nix::time::{ClockId, clock_gettime};

use super::{Datapath, Pins, Place, Settings, attach, load};

/// How many pages all CPUs together have for events that nobody has read yet, and each at least and at most. A record of
/// 64 KiB must find room.
const PAGES: usize = 8_192;
const LEAST_PAGES: usize = 32;
const MOST_PAGES: usize = 1_024;

/// A packet that a program judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When, since 1970.
    pub time: Duration,
    /// Where.
    pub hook: Hook,
    /// What became of it.
    pub outcome: Outcome,
    /// The interface that the program is attached to.
    pub ifindex: u32,
    /// The interface that it was redirected to.
    pub target: Option<u32>,
    /// Its length with the Ethernet header.
    pub length: u32,
    /// Its first bytes, as it came.
    pub bytes: Vec<u8>,
}

/// The instance that tells.
pub struct Tap {
    datapath: Datapath,
    object: Ebpf,
    buffers: Vec<PerfEventArrayBuffer<MapData>>,
    own: [u32; HOOKS as usize],
    /// The pinned programs that it stands in for.
    pinned: [(Hook, u32); HOOKS as usize],
}

impl Tap {
    /// Loads the programs, to tell of that many bytes of each packet. Attaches none.
    pub fn open(datapath: Datapath, settings: &Settings, bytes: u32) -> Result<Self> {
        let pins = &datapath.pins;
        let mut object = load::verified(pins, settings.features, settings.flows, bytes)?;
        let mut own = [0; HOOKS as usize];
        for (hook, number) in Hook::ALL.into_iter().zip(&mut own) {
            *number = load::program(&mut object, hook)?.info()?.id();
        }
        let events = object.take_map(names::EVENTS);
        let events = events.with_context(|| format!("map {}: not in the object", names::EVENTS))?;
        Ok(Self {
            pinned: datapath.programs()?,
            buffers: buffers(events.try_into()?)?,
            datapath,
            object,
            own,
        })
    }

    /// Whether the programs that are pinned now are those that it was opened for.
    pub fn is_current(&self) -> bool {
        let programs = self.datapath.programs();
        programs.is_ok_and(|programs| programs == self.pinned)
    }

    /// Takes the place of every program that is attached.
    pub fn cover(&mut self) -> Result<()> {
        for Place { hook, ifindex, .. } in self.places_without(self.own)? {
            let program = load::program(&mut self.object, hook)?;
            put(&self.datapath.pins, program, hook, ifindex)?;
        }
        Ok(())
    }

    /// Puts the pinned programs back wherever others of ours are, also those that an earlier tap left.
    pub fn withdraw(&mut self) -> Result<()> {
        let pins = &self.datapath.pins;
        let pinned = self.datapath.programs()?.map(|(_, number)| number);
        for Place { hook, ifindex, .. } in self.places_without(pinned)? {
            let mut program = SchedClassifier::from_pin(pins.program(hook))?;
            put(pins, &mut program, hook, ifindex)?;
        }
        Ok(())
    }

    /// What becomes readable when there is something to drain.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.buffers.iter().map(|buffer| buffer.as_fd())
    }

    /// Takes what was told, in no order; returns how much was lost for want of room.
    pub fn drain(&mut self, sightings: &mut Vec<Sighting>) -> Result<u64> {
        let since_1970 = ahead()?;
        let mut lost = 0;
        for buffer in &mut self.buffers {
            buffer.for_each(|event| match event {
                PerfEvent::Sample { head, tail } => {
                    let sighting = decode([head, tail].concat(), since_1970);
                    sightings.extend(sighting);
                }
                PerfEvent::Lost { count } => lost += count,
            });
        }
        Ok(lost)
    }

    /// Where something else is attached than these programs.
    fn places_without(&self, programs: [u32; HOOKS as usize]) -> Result<Vec<Place>> {
        let mut places = self.datapath.places()?;
        places.retain(|place| programs[place.hook as usize] != place.program);
        Ok(places)
    }
}

/// Swaps the program, where the interface did not go meanwhile: a pod's may at any time.
fn put(pins: &Pins, program: &mut SchedClassifier, hook: Hook, ifindex: u32) -> Result<()> {
    match attach::put(pins, program, hook, ifindex) {
        Err(error) if hook == Hook::FromPod => {
            tracing::debug!("{error:#}");
            Ok(())
        }
        done => done,
    }
}

fn buffers(mut events: PerfEventArray<MapData>) -> Result<Vec<PerfEventArrayBuffer<MapData>>> {
    let cpus = online_cpus().map_err(|(file, error)| anyhow!("{file}: {error}"))?;
    let pages = (PAGES / cpus.len().max(1)).clamp(LEAST_PAGES, MOST_PAGES);
    // A power of two, as the kernel wants it.
    let pages = 1 << pages.ilog2();
    let open = |cpu| {
        let buffer = events.open(cpu, Some(pages));
        buffer.with_context(|| format!("map {}: open buffer of CPU {cpu}", names::EVENTS))
    };
    cpus.into_iter().map(open).collect()
}

/// By how much the clock of the wall is ahead of the one of the events.
fn ahead() -> Result<Duration> {
    let now = |clock| clock_gettime(clock).map(Duration::from);
    let (wall, monotonic) = (
        now(ClockId::CLOCK_REALTIME)?,
        now(ClockId::CLOCK_MONOTONIC)?,
    );
    // It is behind only where nobody has set it.
    Ok(wall.saturating_sub(monotonic))
}

/// What a record says, if it is whole.
#[expect(unsafe_code, reason = "an event is read as the programs wrote it")]
pub(crate) fn decode(record: Vec<u8>, since_1970: Duration) -> Option<Sighting> {
    let (event, packet) = record.split_first_chunk::<{ size_of::<Event>() }>()?;
    // SAFETY: of the same size, and an event is valid for any bits.
    let event = unsafe { std::mem::transmute::<[u8; size_of::<Event>()], Event>(*event) };
    // Padding follows.
    let mut bytes = packet.get(..event.captured as usize)?.to_vec();
    if event.has_head != 0 {
        // What the programs change lies in the head.
        let known = bytes.len().min(HEAD);
        bytes[..known].copy_from_slice(&event.head[..known]);
    }
    Some(Sighting {
        time: since_1970 + Duration::from_nanos(event.time),
        hook: *Hook::ALL.get(usize::from(event.hook))?,
        outcome: *Outcome::ALL.get(usize::from(event.outcome))?,
        ifindex: event.ifindex,
        target: (event.target != 0).then_some(event.target),
        length: event.length,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(unsafe_code, reason = "an event is written as the programs do")]
    fn record(has_head: u32, head: u8, packet: &[u8]) -> Vec<u8> {
        let event = Event {
            time: 5,
            ifindex: 3,
            target: 4,
            length: 1_000,
            captured: packet.len() as u32,
            hook: Hook::FromUplink as u16,
            outcome: Outcome::ToPod.number() as u16,
            has_head,
            head: [head; HEAD],
        };
        // SAFETY: of the same size, and without padding.
        let bytes = unsafe { std::mem::transmute::<Event, [u8; size_of::<Event>()]>(event) };
        [&bytes[..], packet, &[0; 4]].concat()
    }

    #[test]
    fn a_packet_is_shown_as_it_came_not_as_it_was_rewritten() {
        let sighting = decode(record(1, 7, &[9; 40]), Duration::from_secs(1)).unwrap();
        assert_eq!(sighting.bytes, [[7; HEAD].to_vec(), vec![9; 8]].concat());
        assert_eq!(sighting.time, Duration::new(1, 5));
        assert_eq!((sighting.ifindex, sighting.target), (3, Some(4)));
        assert_eq!(
            (sighting.hook, sighting.outcome),
            (Hook::FromUplink, Outcome::ToPod)
        );
    }

    #[test]
    fn a_packet_too_short_to_be_changed_is_shown_whole() {
        let sighting = decode(record(0, 7, &[9; 20]), Duration::ZERO).unwrap();
        assert_eq!(sighting.bytes, [9; 20]);
    }

    #[test]
    fn a_record_that_is_cut_off_is_none() {
        let whole = record(1, 7, &[9; 40]);
        assert_eq!(decode(whole[..63].to_vec(), Duration::ZERO), None);
        assert_eq!(decode(whole[..80].to_vec(), Duration::ZERO), None);
    }
}
