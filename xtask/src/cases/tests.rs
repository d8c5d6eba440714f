use super::*;

fn outcomes() -> Outcomes {
    let skipped = |reason: &str| Outcome::Skipped(reason.to_owned());
    let outcomes = [
        ("e2e::passes", Outcome::Passed),
        ("e2e::passes_too", Outcome::Passed),
        ("e2e::fails", Outcome::Failed),
        ("e2e::vlan", skipped("no VLAN filtering")),
        ("bpf::vlan", skipped("no VLAN filtering")),
        ("bpf::tcx", skipped("no tcx")),
    ];
    Outcomes::from(outcomes.map(|(name, outcome)| (name.to_owned(), outcome)))
}

fn verdict(tests: &[&str], extent: Extent) -> Verdict {
    let case = Case {
        text: "a case".to_owned(),
        tests: tests.iter().map(|test| (*test).to_owned()).collect(),
    };
    case.verdict(&outcomes(), extent)
}

#[test]
fn a_case_passes_only_if_all_its_tests_do() {
    let all = |tests: &[&str]| verdict(tests, Extent::All);
    assert_eq!(all(&["e2e::passes", "e2e::passes_too"]), Verdict::Passed);
    assert_eq!(
        all(&["e2e::passes", "e2e::vlan"]),
        Verdict::Skipped("no VLAN filtering".to_owned())
    );
    assert_eq!(
        all(&["e2e::vlan", "e2e::passes", "e2e::fails"]),
        Verdict::Failed("e2e::fails".to_owned())
    );
}

#[test]
fn a_case_without_tests_fails_and_so_does_one_with_a_test_that_nobody_knows() {
    assert_eq!(
        verdict(&[], Extent::Some),
        Verdict::Failed("no tests".to_owned())
    );
    assert_eq!(
        verdict(&["e2e::passes", "e2e::renamed"], Extent::All),
        Verdict::Failed("e2e::renamed did not run".to_owned())
    );
}

#[test]
fn what_was_not_selected_is_not_run_but_a_failure_is_one_anyhow() {
    let some = |tests: &[&str]| verdict(tests, Extent::Some);
    assert_eq!(some(&["e2e::passes", "cri::x"]), Verdict::NotRun);
    assert_eq!(
        some(&["cri::x", "e2e::fails"]),
        Verdict::Failed("e2e::fails".to_owned())
    );
}

#[test]
fn the_table_has_a_line_a_case_and_counts_them() {
    let area: Area = toml::from_str(
        r#"
        [[case]]
        text = "VERSION answers"
        tests = ["e2e::passes"]
        [[case]]
        text = "vlan 100"
        tests = ["e2e::vlan"]
        [[case]]
        text = "repeated DEL"
        tests = ["e2e::fails"]
        [[case]]
        text = "a runtime"
        tests = ["cri::x"]
        "#,
    )
    .unwrap();
    let nothing = Area { case: Vec::new() };
    let areas = [
        ("Protocol".to_owned(), area),
        ("Bridge".to_owned(), nothing),
    ];
    let (table, failed) = table(&areas, &outcomes(), Extent::Some);
    let expected = "
Cases of the CNI specification and of the reference plugins
  Protocol
    passed  VERSION answers
    skipped vlan 100 (no VLAN filtering)
    FAILED  repeated DEL (e2e::fails)
cases of the CNI specification: 1 passed, 1 skipped, 1 failed, 1 not run
";
    assert_eq!((&*table, failed), (expected, 1));
}

#[test]
fn skips_are_counted_by_their_reasons() {
    assert_eq!(
        skips(&outcomes()),
        "tests skipped: 2 (no VLAN filtering)\ntests skipped: 1 (no tcx)\n"
    );
}

#[test]
fn a_misspelt_key_is_no_case() {
    let misspelt = toml::from_str::<Area>("[[case]]\ntext = \"x\"\ntest = []\n");
    assert!(misspelt.is_err());
}

#[test]
fn the_files_of_cases_can_be_read_and_say_each_case_once() {
    for (heading, area) in areas().unwrap() {
        let mut texts: Vec<_> = area.case.into_iter().map(|case| case.text).collect();
        texts.sort();
        let count = texts.len();
        texts.dedup();
        assert_eq!(texts.len(), count, "{heading}");
        assert!(count > 0, "{heading}");
    }
}
