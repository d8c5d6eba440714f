//! What a packet costs in each program, by `BPF_PROG_TEST_RUN`, at several sizes of the maps.
//!
//! One flow is run over and over, but where a new one is what matters, so that its entries are in the CPU's caches: this
//! is the cost of the instructions and of lookups, not of memory. What the kernel does with a redirect is not part of a test run.

use anyhow::Result;

use super::progress::Progress;
use super::types::{ProgramCost, Results};
use lab::Lab;

mod bytecode;
mod lab;
mod samples;
mod yardsticks;

/// How many entries the maps have.
#[derive(Clone, Copy, Default)]
struct Sizes {
    peers: u32,
    pods: u32,
    /// Of each map of flows.
    flows: u32,
}

/// Smallest first: each grows alone, and none shrinks on the way.
const SIZES: [Sizes; 7] = [
    sizes(10, 2, 0),
    sizes(10, 250, 0),
    sizes(10, 10_000, 0),
    sizes(1_000, 10_000, 0),
    sizes(10_000, 10_000, 0),
    sizes(10_000, 10_000, 1_000),
    sizes(10_000, 10_000, 100_000),
];

const fn sizes(peers: u32, pods: u32, flows: u32) -> Sizes {
    Sizes { peers, pods, flows }
}

/// Measures every program at every size; with every rule on, at the smallest and at the largest.
pub(super) fn measure(results: &mut Results) -> Result<()> {
    let ends = [0, SIZES.len() - 1];
    let samples = |index| samples::all(ends.contains(&index));
    let steps = (0..SIZES.len()).map(|index| samples(index).len());
    let rounds = results.settings.rounds;
    let mut progress = Progress::new(steps.sum::<usize>() * rounds as usize)?;
    let lab = Lab::new()?;
    results.program_sizes = lab.lengths()?;
    let mut before = Sizes::default();
    for (index, sizes) in SIZES.into_iter().enumerate() {
        lab.fill(before, sizes)?;
        before = sizes;
        let Sizes { peers, pods, flows } = sizes;
        let samples = samples(index);
        let mut costs: Vec<_> = samples
            .iter()
            .map(|sample| ProgramCost {
                peers,
                pods,
                flows,
                ..sample.cost()
            })
            .collect();
        for _ in 0..rounds {
            for (sample, cost) in samples.iter().zip(&mut costs) {
                progress.step(
                    &format!("programs, {peers} peers, {pods} pods, {flows} flows"),
                    &cost.program,
                )?;
                let repeat = results.settings.repeat;
                let (nanoseconds, empty) = lab.namespace.within(|| lab.run(sample, repeat))?;
                cost.nanoseconds.push(nanoseconds);
                cost.empty_nanoseconds.push(empty);
            }
        }
        results.programs.extend(costs);
    }
    Ok(())
}
