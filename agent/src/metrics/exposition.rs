//! Reads the text format of OpenMetrics, for tests: what is not in order is a panic that says so.

use std::collections::{BTreeMap, BTreeSet};

/// What one scrape says.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    families: BTreeMap<String, Family>,
    /// By name and labels, as they are written.
    samples: BTreeMap<String, f64>,
}

/// A metric family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
}

impl Exposition {
    /// Reads a scrape.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.strip_suffix("# EOF\n");
        let lines = lines.unwrap_or_else(|| panic!("no end: {text}")).lines();
        let mut exposition = Self::default();
        let mut current = String::new();
        for line in lines {
            match line.strip_prefix("# ") {
                Some(said) => exposition.describe(said, &mut current),
                None => exposition.sample(line, &current),
            }
        }
        exposition
    }

    #[track_caller]
    fn describe(&mut self, said: &str, current: &mut String) {
        let mut words = said.splitn(3, ' ');
        let [what, name, rest] = [(); 3].map(|()| words.next().unwrap_or_default());
        match what {
            "HELP" => {
                let help = Family {
                    help: rest.to_owned(),
                    kind: String::new(),
                };
                let former = self.families.insert(name.to_owned(), help);
                assert!(former.is_none(), "{name}: described twice");
                name.clone_into(current);
            }
            "TYPE" => {
                assert_eq!(name, current, "{said}: in another family");
                let family = self.families.get_mut(name).expect("described");
                rest.clone_into(&mut family.kind);
            }
            "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{said}"),
            _ => panic!("# {said}: what is this"),
        }
    }

    #[track_caller]
    fn sample(&mut self, line: &str, current: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().unwrap_or_default();
        let kind = &self.families[current].kind;
        let suffixes = suffixes(kind);
        let suffix = name.strip_prefix(current);
        let fits = suffix.is_some_and(|suffix| suffixes.contains(&suffix));
        assert!(fits, "{line}: no sample of {current}, a {kind}");
        let value = value.parse().expect("a number");
        let former = self.samples.insert(series.to_owned(), value);
        assert!(former.is_none(), "{series}: twice");
    }

    /// The families, by name.
    pub(crate) fn families(&self) -> &BTreeMap<String, Family> {
        &self.families
    }

    /// The names that samples of each family can have.
    pub(crate) fn names(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let names = |name: &String, kind| {
            let suffixes = suffixes(kind).iter();
            suffixes.map(|suffix| format!("{name}{suffix}")).collect()
        };
        let families = self.families.iter();
        families
            .map(|(name, family)| (name.as_str(), names(name, &family.kind)))
            .collect()
    }

    /// The value of a sample, named with its labels in the order in which they are written.
    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        let value = self.samples.get(series);
        *value.unwrap_or_else(|| panic!("no {series} among {:#?}", self.samples))
    }

    /// Whether there is such a sample.
    pub(crate) fn has(&self, series: &str) -> bool {
        self.samples.contains_key(series)
    }
}

/// What a family's samples have behind its name.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        _ => panic!("{kind}: what kind is this"),
    }
}
