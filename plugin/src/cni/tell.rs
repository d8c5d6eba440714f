//! Telling the node's agent what a call took: one datagram, from which it makes its metrics.
//!
//! Nobody waits for anybody: where no agent listens, or none that keeps up, the datagram is lost.

use std::{os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Command, NetConf};

/// The name of the agent's socket, in the directory of the node's state (`datapath.stateDir`).
pub const SOCKET: &str = "agent.sock";

/// The version of what is told; whoever changes what a key means, or takes one away, raises it.
const VERSION: u32 = 1;

/// What one call took, as JSON in one datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The network's name.
    pub network: String,
    /// `CNI_COMMAND`: what is [told of](is_told).
    pub command: String,
    /// From the start of the process to its answer, in microseconds.
    pub micros: u64,
    /// Whether the answer was an error.
    pub failed: bool,
}

/// The part that all versions have.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    #[serde(flatten)]
    told: T,
}

#[derive(Deserialize)]
struct Anything {}

impl Told {
    /// Reads a datagram; `None` if it is of another version.
    pub fn parse(datagram: &[u8]) -> serde_json::Result<Option<Self>> {
        let envelope: Envelope<Anything> = serde_json::from_slice(datagram)?;
        if envelope.version != VERSION {
            return Ok(None);
        }
        let envelope: Envelope<Self> = serde_json::from_slice(datagram)?;
        Ok(Some(envelope.told))
    }

    /// The datagram.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Envelope {
            version: VERSION,
            told: self,
        })
    }
}

/// The commands that are told of: those that change or check attachments.
pub fn is_told(command: &str) -> bool {
    matches!(command, "ADD" | "DEL" | "CHECK" | "GC")
}

/// What is known of a call before it is served.
#[derive(Debug)]
pub(super) struct Report {
    socket: PathBuf,
    network: String,
    command: Command,
}

impl Report {
    /// The report of a call; `None` if it is not told of.
    pub(super) fn of(command: Command, conf: &NetConf) -> Option<Self> {
        is_told(command.as_str()).then(|| Self {
            socket: conf.datapath.state_dir.join(SOCKET),
            network: conf.name.clone(),
            command,
        })
    }

    /// Tells the agent, if one listens. Fails silently: that nobody does is normal.
    pub(super) fn send(self, took: Duration, failed: bool) {
        let told = Told {
            network: self.network,
            command: self.command.as_str().to_owned(),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            failed,
        };
        let send = || -> anyhow::Result<()> {
            let socket = UnixDatagram::unbound()?;
            // The agent may have stopped reading.
            socket.set_nonblocking(true)?;
            socket.send_to(&told.encode()?, &self.socket)?;
            Ok(())
        };
        if let Err(error) = send() {
            tracing::debug!("{}: {error:#}", self.socket.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn report(folder: &std::path::Path) -> Report {
        Report {
            socket: folder.join(SOCKET),
            network: "pods".to_owned(),
            command: Command::Add,
        }
    }

    #[test]
    fn what_is_told_survives_the_way_through_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let agent = UnixDatagram::bind(folder.path().join(SOCKET)).unwrap();
        report(folder.path()).send(Duration::from_millis(12), true);
        let mut buffer = [0; 256];
        let length = agent.recv(&mut buffer).unwrap();
        let expected = Told {
            network: "pods".to_owned(),
            command: "ADD".to_owned(),
            micros: 12_000,
            failed: true,
        };
        assert_eq!(Told::parse(&buffer[..length]).unwrap(), Some(expected));
    }

    #[test]
    fn other_versions_are_told_apart_from_garbage() {
        let other = br#"{"version":2,"network":["pods"]}"#;
        assert_eq!(Told::parse(other).unwrap(), None);
        for garbage in [
            "",
            "{}",
            r#"{"version":1}"#,
            r#"{"version":-1}"#,
            "\0\u{7f}",
        ] {
            assert!(Told::parse(garbage.as_bytes()).is_err(), "{garbage:?}");
        }
        let more =
            br#"{"version":1,"network":"n","command":"DEL","micros":1,"failed":false,"new":1}"#;
        assert!(Told::parse(more).unwrap().is_some());
    }

    #[test]
    fn whoever_does_not_read_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let agent = UnixDatagram::bind(folder.path().join(SOCKET)).unwrap();
        let start = Instant::now();
        for _ in 0..2_000 {
            report(folder.path()).send(Duration::ZERO, false);
        }
        println!("full: {:?} each", start.elapsed() / 2_000);
        drop(agent);
        let start = Instant::now();
        for _ in 0..2_000 {
            report(folder.path()).send(Duration::ZERO, false);
        }
        println!("nobody: {:?} each", start.elapsed() / 2_000);
        // A test's machine may be slow; a send that waited would never end.
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}
