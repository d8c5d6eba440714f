//! That the dashboard and the alerts ask for what the agent tells.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{exposition::Exposition, tests::eventful};

/// What a metric that the agent tells begins with.
const OURS: [&str; 2] = ["beeline_", "process_"];

fn deployed(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/").to_owned() + name;
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&deployed("grafana.json")).expect("JSON")
}

fn alerts() -> Value {
    serde_saphyr::from_str(&deployed("alerts.yaml")).expect("YAML")
}

/// All texts at this key, wherever it is.
fn texts(document: &Value, key: &str, found: &mut Vec<String>) {
    match document {
        Value::Object(object) => {
            for (name, value) in object {
                match value {
                    Value::String(text) if name == key => found.push(text.clone()),
                    value => texts(value, key, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

fn all(document: &Value, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    texts(document, key, &mut found);
    found
}

/// The agent's metrics that a query names.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| OURS.iter().any(|prefix| word.starts_with(prefix)));
    ours.map(str::to_owned).collect()
}

#[track_caller]
fn asks_only_for_what_is_told(queries: &[String]) -> BTreeSet<String> {
    let exposition = Exposition::parse(&eventful().encode().unwrap());
    let told: BTreeSet<String> = exposition.names().into_values().flatten().collect();
    let mut asked = BTreeSet::new();
    for query in queries {
        for name in names(query) {
            assert!(told.contains(&name), "{name}: not told, in {query}");
            asked.insert(name);
        }
    }
    asked
}

#[test]
fn the_dashboard_asks_only_for_what_the_agent_tells() {
    let asked = asks_only_for_what_is_told(&all(&dashboard(), "expr"));
    assert!(asked.len() > 15, "{asked:?}");
}

#[test]
fn the_alerts_ask_only_for_what_the_agent_tells() {
    let asked = asks_only_for_what_is_told(&all(&alerts(), "expr"));
    assert!(asked.len() > 5, "{asked:?}");
}

#[test]
fn every_family_is_on_the_dashboard() {
    let shown: BTreeSet<String> = all(&dashboard(), "expr")
        .iter()
        .flat_map(|query| names(query))
        .collect();
    let exposition = Exposition::parse(&eventful().encode().unwrap());
    for (family, names) in exposition.names() {
        assert!(!names.is_disjoint(&shown), "{family}");
    }
}

#[test]
fn panels_have_numbers_of_their_own_and_ask_the_chosen_source_of_the_chosen_nodes() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|p| p["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    let (rows, panels): (Vec<_>, Vec<_>) = panels.iter().partition(|p| p["type"] == "row");
    let titles = rows.iter().filter_map(|row| row["title"].as_str());
    assert!(titles.eq([
        "Fast path",
        "Pods and addresses",
        "ADD and DEL",
        "Cluster",
        "Maps",
        "Agent",
    ]));
    for panel in panels {
        let title = &panel["title"];
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let queries = all(panel, "expr");
        assert!(!queries.is_empty(), "{title}");
        for query in queries {
            assert!(query.contains(r#"instance=~"$node""#), "{title}: {query}");
        }
    }
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables");
    let variables = variables
        .iter()
        .filter_map(|variable| variable["name"].as_str());
    assert!(variables.eq(["datasource", "node"]));
}

#[test]
fn alerts_have_names_of_their_own_and_say_what_it_is() {
    let alerts = alerts();
    let rules = alerts["groups"][0]["rules"].as_array().expect("rules");
    let names: BTreeSet<&str> = rules
        .iter()
        .filter_map(|rule| rule["alert"].as_str())
        .collect();
    assert_eq!(names.len(), rules.len());
    for rule in rules {
        for text in ["/expr", "/for", "/labels/severity", "/annotations/summary"] {
            let text = rule.pointer(text).and_then(Value::as_str);
            assert!(text.is_some_and(|text| !text.is_empty()), "{rule:#}");
        }
    }
}
