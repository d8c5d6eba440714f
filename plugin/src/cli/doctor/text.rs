//! The findings for a person: a line for each, what is well in few words, what is not with its fix.

use std::io::{self, Write};

use super::{
    Report,
    finding::{Finding, Severity, count},
};

/// Prints them.
pub(super) fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let Report {
        node,
        kernel,
        version,
        findings,
        ..
    } = report;
    writeln!(out, "node {node}  kernel {kernel}  beeline {version}")?;
    let mut network = &None;
    for finding in findings {
        if finding.network != *network {
            network = &finding.network;
            writeln!(out, "network {}", network.as_deref().unwrap_or_default())?;
        }
        self::finding(finding, out)?;
    }
    let number = |severity| {
        let alike = findings.iter().filter(|f| f.severity == severity);
        count(alike.count(), severity.name())
    };
    writeln!(
        out,
        "{}, {}, {}",
        number(Severity::Failure),
        number(Severity::Warning),
        number(Severity::Note)
    )
}

fn finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let Finding {
        check,
        severity,
        object,
        message,
        fix,
        ..
    } = finding;
    let severity = severity.name();
    writeln!(out, "  {severity:<8}{check:<11} {object}: {message}")?;
    match fix {
        Some(fix) => writeln!(out, "{:22}fix: {fix}", ""),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_and_its_fix_another() {
        let of_network = Finding {
            network: Some("pods".to_owned()),
            ..Finding::new("routes", Severity::Failure, "peers a", "none", "ip route")
        };
        let report = Report {
            node: "n".to_owned(),
            kernel: "6.18".to_owned(),
            version: "0.1.0",
            severity: Severity::Failure,
            findings: vec![Finding::ok("kernel", "6.18", "tcx"), of_network],
        };
        let mut text = Vec::new();
        print(&report, &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "node n  kernel 6.18  beeline 0.1.0\n\
             \x20 ok      kernel      6.18: tcx\n\
             network pods\n\
             \x20 failure routes      peers a: none\n\
             \x20                     fix: ip route\n\
             1 failure, 0 warnings, 0 notes\n"
        );
    }
}
