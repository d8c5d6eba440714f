//! What a packet costs in each program, by `BPF_PROG_TEST_RUN`, at several sizes of the maps.
//!
//! One flow is run over and over, but where a new one is what matters, so that its entries are in the CPU's caches: this
//! is the cost of the instructions and of lookups, not of memory. What the kernel does with a redirect is not part of a test run.

use anyhow::Result;

use super::progress::Progress;
use super::types::{ProgramCost, Results};
use lab::Lab;
use samples::Sample;

mod bytecode;
mod lab;
mod samples;
mod yardsticks;

/// How many entries the maps have.
#[derive(Clone, Copy)]
struct Sizes {
    peers: u32,
    pods: u32,
    /// Of each map of flows.
    flows: u32,
}

/// Smallest first: each grows alone.
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

/// A laboratory of one size, and what was measured there.
struct Bench {
    lab: Lab,
    sizes: Sizes,
    samples: Vec<Sample>,
    costs: Vec<ProgramCost>,
}

/// Measures every program at every size; with every rule on, at the smallest and at the largest. Sizes take turns round
/// by round, or a machine that slows down would look like growth.
pub(super) fn measure(results: &mut Results) -> Result<()> {
    let (rounds, repeat) = (results.settings.rounds, results.settings.repeat);
    let benches = SIZES.into_iter().enumerate();
    let benches = benches.map(|(index, sizes)| Bench::new(index, sizes));
    let mut benches = benches.collect::<Result<Vec<_>>>()?;
    let steps = benches.iter().map(|bench| bench.samples.len());
    let mut progress = Progress::new(steps.sum::<usize>() * rounds as usize)?;
    if let Some(bench) = benches.first() {
        results.program_sizes = bench.lab.lengths()?;
    }
    for _ in 0..rounds {
        for bench in &mut benches {
            bench.round(repeat, &mut progress)?;
        }
    }
    let costs = benches.into_iter().flat_map(|bench| bench.costs);
    results.programs.extend(costs);
    Ok(())
}

impl Bench {
    fn new(index: usize, sizes: Sizes) -> Result<Self> {
        let samples = samples::all(index == 0 || index == SIZES.len() - 1);
        let Sizes { peers, pods, flows } = sizes;
        let cost = |sample: &Sample| ProgramCost {
            peers,
            pods,
            flows,
            ..sample.cost()
        };
        Ok(Self {
            lab: Lab::new(&format!("program-{index}"), sizes)?,
            sizes,
            costs: samples.iter().map(cost).collect(),
            samples,
        })
    }

    fn round(&mut self, repeat: u32, progress: &mut Progress) -> Result<()> {
        let Sizes { peers, pods, flows } = self.sizes;
        let stage = format!("programs, {peers} peers, {pods} pods, {flows} flows");
        let lab = &self.lab;
        for (sample, cost) in self.samples.iter().zip(&mut self.costs) {
            progress.step(&stage, &cost.program)?;
            let (nanoseconds, empty) = lab.namespace.within(|| lab.run(sample, repeat))?;
            cost.nanoseconds.push(nanoseconds);
            cost.empty_nanoseconds.push(empty);
        }
        Ok(())
    }
}
