//! How full maps are, without spending much on counting.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use beeline::datapath::Usage;

/// What counting may take of one CPU is one in so many.
///
/// The kernel tells the number of a map's entries to nobody: they are counted one by one, 5,000 peers in some 6 ms, and
/// 262,144 flows in some 600 ms. So many peers are thus counted at every scrape, and so many flows every ten minutes.
const SHARE: u32 = 1_000;

/// What was counted last.
#[derive(Debug, Default)]
pub(super) struct Fill {
    counted: HashMap<&'static str, (Usage, Instant)>,
}

impl Fill {
    /// How full a map is, or was when it was last worth while to count.
    pub(super) fn of(
        &mut self,
        map: &'static str,
        count: impl FnOnce() -> Result<Usage>,
    ) -> Result<Usage> {
        let start = Instant::now();
        if let Some((usage, until)) = self.counted.get(map)
            && start < *until
        {
            return Ok(*usage);
        }
        let usage = count()?;
        let until = Instant::now() + pause(start.elapsed());
        self.counted.insert(map, (usage, until));
        Ok(usage)
    }

    /// Forgets all: these were other maps.
    pub(super) fn clear(&mut self) {
        self.counted.clear();
    }
}

/// How long not to count again after counting took so long.
fn pause(took: Duration) -> Duration {
    took.saturating_mul(SHARE)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn usage(held: usize) -> Usage {
        Usage {
            map: "PEERS",
            held,
            size: 10,
        }
    }

    #[test]
    fn what_took_long_to_count_is_not_counted_again_soon() {
        let mut fill = Fill::default();
        let slow = || {
            thread::sleep(Duration::from_millis(5));
            Ok(usage(1))
        };
        assert_eq!(fill.of("PEERS", slow).unwrap(), usage(1));
        let again = || panic!("counted again");
        assert_eq!(fill.of("PEERS", again).unwrap(), usage(1));
        assert_eq!(fill.of("PODS", || Ok(usage(2))).unwrap(), usage(2));
        fill.clear();
        assert_eq!(fill.of("PEERS", || Ok(usage(3))).unwrap(), usage(3));
    }

    #[test]
    fn a_thousand_times_as_long_is_not_counted() {
        let millisecond = Duration::from_millis(1);
        assert_eq!(pause(millisecond), Duration::from_secs(1));
        assert_eq!(pause(Duration::MAX), Duration::MAX);
    }
}
