//! Reads the text format of OpenMetrics.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

/// What one scrape says: samples by name and labels, as they are written.
#[derive(Debug)]
pub(crate) struct Exposition(BTreeMap<String, f64>);

impl Exposition {
    /// Reads a scrape, which must be in order: families described once, samples below their family's description.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lines = text.strip_suffix("# EOF\n");
        let lines = lines.with_context(|| format!("no end: {text}"))?.lines();
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        let mut family = "";
        for line in lines {
            if let Some(said) = line.strip_prefix("# HELP ") {
                family = said.split(' ').next().unwrap_or_default();
                ensure!(families.insert(family), "{family}: described twice");
            } else if let Some(said) = line.strip_prefix("# ") {
                let of = said.split(' ').nth(1);
                ensure!(of == Some(family), "{line}: not of {family}");
            } else {
                let (series, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
                let named = series.starts_with(family) && !family.is_empty();
                ensure!(named, "{line}: not of {family}");
                let value = value.parse().with_context(|| line.to_owned())?;
                let former = samples.insert(series.to_owned(), value);
                ensure!(former.is_none(), "{series}: twice");
            }
        }
        ensure!(!samples.is_empty(), "no samples: {text}");
        Ok(Self(samples))
    }

    /// The value of a sample, named with its labels in the order in which they are written.
    pub(crate) fn value(&self, series: &str) -> Result<f64> {
        let value = self.0.get(series).copied();
        value.with_context(|| format!("no {series} among {:#?}", self.0.keys()))
    }

    /// The same for a counter, which does not exist before it has counted.
    pub(crate) fn count(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let text = "# HELP a b c\n# TYPE a counter\na_total{x=\"1 2\"} 3\n# EOF\n";
        let scrape = Exposition::parse(text).unwrap();
        assert_eq!(scrape.value("a_total{x=\"1 2\"}").unwrap(), 3.0);
        assert_eq!(scrape.count("a_total"), 0.0);
        assert!(scrape.value("a_total").is_err());
    }

    #[test]
    fn what_is_not_in_order_is_an_error() {
        for text in [
            "# HELP a b\na 1\n",
            "# HELP a b\n# EOF\n",
            "a 1\n# EOF\n",
            "# HELP a b\na 1\na 1\n# EOF\n",
            "# HELP a b\na x\n# EOF\n",
            "# HELP a b\na 1\n# HELP a b\n# EOF\n",
            "# HELP a b\n# TYPE b gauge\na 1\n# EOF\n",
        ] {
            assert!(Exposition::parse(text).is_err(), "{text}");
        }
    }
}
