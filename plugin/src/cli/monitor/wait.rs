//! Waiting for packets, for the end, and for whoever reads them to go away.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

/// What ends the command.
#[derive(Debug)]
pub(super) struct Ends {
    signals: SignalFd,
    /// When it is to end by itself.
    deadline: Option<Instant>,
    watches_stdout: bool,
}

impl Ends {
    /// From here on a signal does not end the process but the wait.
    pub(super) fn new(duration: Option<Duration>, watches_stdout: bool) -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("signals: block")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            signals: SignalFd::with_flags(&signals, flags).context("signals: open")?,
            deadline: duration.and_then(|duration| Instant::now().checked_add(duration)),
            watches_stdout,
        })
    }

    /// Waits until one of the descriptors is readable, `until`, or the end; says whether it is the end.
    pub(super) fn wait<'a>(
        &'a self,
        packets: impl Iterator<Item = BorrowedFd<'a>>,
        until: Instant,
    ) -> Result<bool> {
        let stdout = io::stdout();
        let mut polled = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if self.watches_stdout {
            // Asks for nothing: a reader that is gone is told anyway.
            polled.push(PollFd::new(stdout.as_fd(), PollFlags::empty()));
        }
        let ends = polled.len();
        polled.extend(packets.map(|packets| PollFd::new(packets, PollFlags::POLLIN)));
        let until = self.deadline.map_or(until, |deadline| deadline.min(until));
        let timeout = until.saturating_duration_since(Instant::now());
        // Rounded up, not to turn in circles within the last millisecond.
        let timeout = PollTimeout::try_from(timeout + Duration::from_millis(1))?;
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
        let happened = |descriptor: &PollFd<'_>| descriptor.any().unwrap_or(false);
        Ok(polled[..ends].iter().any(happened)
            || self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now()))
    }
}
