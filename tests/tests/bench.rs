//! The bench at its smallest: it works, its results can be read, and nothing is left. No speed is judged.

use std::path::PathBuf;
use std::process::Command;

use beeline_tests::bench::types::{Mode, Place, Results};
use beeline_tests::sweep;

/// Runs the bench and reads what it wrote.
fn bench(arguments: &[&str]) -> Results {
    let file = format!("bench-{}.json", std::process::id());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(file);
    let output = Command::new(env!("CARGO_BIN_EXE_beeline-bench"))
        .args(arguments)
        .arg("--output")
        .arg(&path)
        .output()
        .expect("beeline-bench");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let results = Results::read(&path).expect("results");
    std::fs::remove_file(&path).expect("remove the results");
    assert_eq!(sweep::bench_leftovers(), []);
    results
}

// One test, as only one bench can run at a time.
#[test]
fn a_tiny_bench_measures_all_of_its_parts_and_leaves_nothing() {
    let arguments = "all --quick --rounds 1 --services 2 --only tcp-rr tcp-crr \
                     --contenders bridge beeline beeline-vxlan \
                     --milliseconds 50 --repeat 400 --pods 2";
    let results = bench(&arguments.split_whitespace().collect::<Vec<_>>());
    // Two cases of two contenders at two places, and of one across nodes only.
    assert_eq!(results.traffic.len(), 10);
    for measurement in &results.traffic {
        assert!(
            measurement.rounds.iter().all(|rate| *rate > 0.0),
            "{measurement:?}"
        );
        assert_eq!(measurement.rounds.len(), 1, "{measurement:?}");
        assert_eq!(measurement.p99_us.len(), 1, "{measurement:?}");
    }
    let across = |case: &str| {
        let here = |place| place == Place::AcrossNodes;
        results
            .traffic
            .iter()
            .filter(|found| found.case == case && here(found.place))
            .count()
    };
    assert_eq!((across("tcp-rr"), across("tcp-crr")), (3, 3));
    assert!(
        results
            .programs
            .iter()
            .all(|cost| cost.nanoseconds.len() == 1)
    );
    // Thirteen samples at seven sizes, and four again with every rule on at two of them.
    assert_eq!(results.programs.len(), 13 * 7 + 4 * 2);
    let every_rule = results.programs.iter().filter(|cost| cost.every_rule);
    assert_eq!(every_rule.count(), 8);
    assert_eq!(results.program_sizes.len(), 5);
    let from_pod = &results.program_sizes[0];
    assert!(from_pod.instructions < from_pod.every_rule, "{from_pod:?}");
    let growth = results
        .control
        .iter()
        .filter(|control| control.mode == Mode::Growth);
    let growth: Vec<_> = growth.map(|control| control.samples_ms.len()).collect();
    // ADD and DEL, with and without ipMasq, of two contenders, and of one the way to the fast path.
    assert_eq!(growth, [2; 10]);
    assert_eq!(results.skipped, []);
}
