//! Packets as lines, for people and for programs.

use std::{
    io::{self, Write},
    net::IpAddr,
    time::Duration,
};

use serde::Serialize;

use super::{interfaces::Interfaces, packet::Summary};
use crate::datapath::Sighting;

/// A packet as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since 1970.
    time: f64,
    hook: &'static str,
    verdict: &'static str,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    protocol: &'a str,
    info: &'a str,
    bytes: u32,
    interface: String,
    target: Option<String>,
}

/// Prints a packet for a person.
pub(super) fn text(
    sighting: &Sighting,
    summary: &Summary,
    interfaces: &mut Interfaces,
    out: &mut impl Write,
) -> io::Result<()> {
    let time = time_of_day(sighting.time);
    let (hook, verdict) = (sighting.hook.name(), sighting.outcome.name());
    let length = sighting.length;
    write!(
        out,
        "{time} {hook:<12} {verdict:<17} {summary} {length} bytes  {}",
        interfaces.name(sighting.ifindex)
    )?;
    if let Some(target) = sighting.target {
        write!(out, " > {}", interfaces.name(target))?;
    }
    writeln!(out)
}

/// Prints a packet for a program.
pub(super) fn json(
    sighting: &Sighting,
    summary: &Summary,
    interfaces: &mut Interfaces,
    out: &mut impl Write,
) -> io::Result<()> {
    let (source, destination) = summary.addresses.unzip();
    let (source_port, destination_port) = summary.ports.unzip();
    let line = Line {
        time: sighting.time.as_secs_f64(),
        hook: sighting.hook.name(),
        verdict: sighting.outcome.name(),
        source,
        destination,
        source_port,
        destination_port,
        protocol: &summary.protocol,
        info: &summary.info,
        bytes: sighting.length,
        interface: interfaces.name(sighting.ifindex).to_owned(),
        target: sighting
            .target
            .map(|target| interfaces.name(target).to_owned()),
    };
    serde_json::to_writer(&mut *out, &line)?;
    writeln!(out)
}

/// The time of day in UTC.
fn time_of_day(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs() % 86_400;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let micros = since_1970.subsec_micros();
    format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}")
}

#[cfg(test)]
mod tests {
    use beeline_common::{Hook, Outcome};

    use super::*;

    fn sighting() -> Sighting {
        Sighting {
            time: Duration::new(3 * 86_400 + 12 * 3_600 + 61, 123_456_789),
            hook: Hook::FromPod,
            outcome: Outcome::ToPeer,
            // Never taken: indices are positive.
            ifindex: u32::MAX,
            target: Some(u32::MAX - 1),
            length: 74,
            bytes: Vec::new(),
        }
    }

    fn summary() -> Summary {
        Summary {
            addresses: Some(([10, 244, 1, 2].into(), [10, 244, 2, 5].into())),
            ports: Some((40_000, 80)),
            protocol: "TCP".to_owned(),
            info: "S".to_owned(),
        }
    }

    #[test]
    fn a_line_says_when_where_what_became_of_which_packet() {
        let mut out = Vec::new();
        text(
            &sighting(),
            &summary(),
            &mut Interfaces::default(),
            &mut out,
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "12:01:01.123456 from_pod     to_peer           10.244.1.2:40000 > 10.244.2.5:80 TCP S \
             74 bytes  4294967295 > 4294967294\n"
        );
    }

    #[test]
    fn a_line_of_json_has_each_part_by_name() {
        let mut out = Vec::new();
        json(
            &sighting(),
            &summary(),
            &mut Interfaces::default(),
            &mut out,
        )
        .unwrap();
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["verdict"], "to_peer");
        assert_eq!(line["source"], "10.244.1.2");
        assert_eq!(line["destination_port"], 80);
        assert_eq!(out.last(), Some(&b'\n'));
    }
}
