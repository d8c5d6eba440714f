//! What becomes of each pod, and how many it became of.

use std::fmt;
use std::time::Duration;

use beeline_common::testing::Random;

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// By one DEL.
    Deleted,
    /// By one DEL that comes twice.
    Twice,
    /// By two DELs at once, long after others have come and gone.
    Late,
    /// By GC: its DEL never comes.
    Lost,
    /// Its namespace goes first.
    Gone,
    /// By one DEL, when a second ADD of it was refused.
    AddedAgain,
}

impl Fate {
    /// So many pods of a hundred end in each way.
    const SHARES: [(Self, usize); 6] = [
        (Self::Deleted, 56),
        (Self::Twice, 10),
        (Self::Late, 10),
        (Self::Lost, 6),
        (Self::Gone, 10),
        (Self::AddedAgain, 8),
    ];

    /// Draws one.
    pub(super) fn draw(random: &mut Random) -> Self {
        let mut drawn = random.below(100);
        for (fate, share) in Self::SHARES {
            if drawn < share {
                return fate;
            }
            drawn -= share;
        }
        Self::Deleted
    }
}

/// The numbers that one pod draws, whichever thread it is on.
pub(super) fn random(seed: u64, pod: usize) -> Random {
    let mixed = (seed + pod as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Random::new(mixed | 1)
}

/// What was counted and measured.
#[derive(Debug, Default)]
pub(super) struct Figures {
    fates: Vec<Fate>,
    /// Pings between two pods.
    pub(super) pings: usize,
    adds: Vec<Duration>,
}

impl Figures {
    /// A pod has come, after so long an ADD.
    pub(super) fn came(&mut self, fate: Fate, add: Duration) {
        self.fates.push(fate);
        self.adds.push(add);
    }

    /// How long the ADDs of so many pods took that came last.
    pub(super) fn latest(&self, pods: usize) -> String {
        let count = self.adds.len();
        let latest = &self.adds[count.saturating_sub(pods)..];
        format!("churn: {count} pods, the last {pods}: {}", latency(latest))
    }

    /// How many pods ended that way.
    pub(super) fn count(&self, fate: Fate) -> usize {
        self.fates.iter().filter(|one| **one == fate).count()
    }
}

fn latency(adds: &[Duration]) -> String {
    let mut sorted = adds.to_vec();
    sorted.sort_unstable();
    let at = |hundredths: usize| sorted[(sorted.len() - 1) * hundredths / 100].as_secs_f64() * 1e3;
    format!("ADD median {:.1} ms, p99 {:.1} ms", at(50), at(99))
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |fate| self.count(fate);
        let (twice, late, lost) = (count(Fate::Twice), count(Fate::Late), count(Fate::Lost));
        let (gone, again) = (count(Fate::Gone), count(Fate::AddedAgain));
        writeln!(
            f,
            "churn: {} pods, DELs: {twice} twice, {late} late, {lost} lost, {gone} without a namespace; {again} \
             ADDs repeated; {} pings",
            self.adds.len(),
            self.pings
        )?;
        let tenth = (self.adds.len() / 10).max(1);
        let last = &self.adds[self.adds.len() - tenth..];
        writeln!(f, "churn: first tenth: {}", latency(&self.adds[..tenth]))?;
        writeln!(f, "churn: last tenth: {}", latency(last))?;
        Ok(())
    }
}
