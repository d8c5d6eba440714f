//! The report of a fixture whose numbers are invented.

use std::path::{Path, PathBuf};

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/fixtures")
}

fn fixture() -> Results {
    Results::read(&fixtures().join("results-fixture.json")).unwrap()
}

#[test]
fn the_report_of_the_fixture_is_as_recorded() {
    let golden = fixtures().join("report.md");
    let report = markdown::render(&document(&fixture()).unwrap());
    if std::env::var_os("BEELINE_RECORD").is_some() {
        fs::write(&golden, &report).unwrap();
    }
    let recorded = fs::read_to_string(&golden).unwrap();
    for (line, (is, was)) in report.lines().zip(recorded.lines()).enumerate() {
        assert_eq!(
            is,
            was,
            "line {}; run with BEELINE_RECORD=1 to record it anew",
            line + 1
        );
    }
    assert_eq!(report.len(), recorded.len());
}

#[test]
fn charts_are_well_formed_and_name_every_contender() {
    let results = fixture();
    let document = document(&results).unwrap();
    let charts: Vec<_> = document.figures().collect();
    assert_eq!(charts.len(), 11);
    for chart in &charts {
        assert_well_formed(&chart.svg);
    }
    let all: String = charts.iter().map(|chart| chart.svg.as_str()).collect();
    for measurement in &results.traffic {
        assert!(
            all.contains(&measurement.contender),
            "{}",
            measurement.contender
        );
    }
    for (file, names) in [
        (
            "rates-across-nodes-1000.svg",
            vec![
                "nodes",
                "bridge",
                "bridge-vxlan",
                "beeline",
                "beeline-vxlan",
            ],
        ),
        ("rates-same-node-0.svg", vec!["veth", "bridge", "beeline"]),
        ("add-growth.svg", vec!["bridge", "beeline"]),
        (
            "programs.svg",
            vec![
                "naive → to_pod",
                "from_pod → to_peer",
                "from_uplink → to_pod",
                "to_pod → pass_stack_flow (known)",
                "to_pod → pass_stack_flow (new)",
            ],
        ),
    ] {
        let chart = charts.iter().find(|chart| chart.file == file).unwrap();
        for name in names {
            assert!(
                texts(&chart.svg).iter().any(|text| text.starts_with(name)),
                "{file}: {name}"
            );
        }
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = html::render(&document(&fixture()).unwrap());
    for outside in ["<script", "<link", "src=", "url(", "@import", "href=\"http"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<svg ").count(), 11);
    assert!(page.contains("and a pipe &lt;tag&gt;"));
}

#[test]
fn results_of_nothing_make_a_report() {
    let directory = tempfile::tempdir().unwrap();
    let files = write(&Results::default(), directory.path()).unwrap();
    let names: Vec<_> = files
        .iter()
        .filter_map(|file| file.file_name()?.to_str())
        .collect();
    assert_eq!(names, ["index.html", "report.md"]);
}

/// What is written in a chart.
fn texts(svg: &str) -> Vec<String> {
    let texts = svg.split("<text ").skip(1);
    let inner = texts.filter_map(|text| text.split_once('>')?.1.split_once("</text>"));
    inner.map(|(text, _)| text.trim().to_owned()).collect()
}

/// Checks that tags are closed in order, attributes quoted, and no figure is missing its number.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "{text}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
        let name = tag.split([' ', '/']).find(|name| !name.is_empty());
        if tag.starts_with('/') {
            assert_eq!(open.pop(), name, "{tag}");
        } else if !tag.ends_with('/') {
            open.push(name.unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
