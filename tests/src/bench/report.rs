//! Results made readable: tables, charts and one page that says how each figure came about; and two runs compared.
//!
//! A [`document::Document`] is built once from the results and written as Markdown and as HTML.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::types::Results;
use document::Document;

mod bars;
mod chart;
mod compare;
mod contenders;
mod control;
mod document;
mod figures;
mod growth;
mod html;
mod lines;
mod losses;
mod markdown;
pub mod options;
mod overview;
mod programs;
mod rates;
mod stats;
#[cfg(test)]
mod tests;
mod traffic;
mod yardstick;

pub use compare::compare;

/// Writes `index.html`, `report.md` and the charts into a directory, and tells what it wrote.
pub fn write(results: &Results, directory: &Path) -> Result<Vec<PathBuf>> {
    let document = document(results)?;
    let mut files = vec![
        ("index.html".to_owned(), html::render(&document)),
        ("report.md".to_owned(), markdown::render(&document)),
    ];
    let charts = document.figures();
    files.extend(charts.map(|figure| (figure.file.clone(), figure.svg.clone())));

    fs::create_dir_all(directory).with_context(|| format!("{}: create", directory.display()))?;
    let write = |(name, text): (String, String)| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("{}: write", path.display()))?;
        Ok(path)
    };
    files.into_iter().map(write).collect()
}

fn document(results: &Results) -> Result<Document> {
    let mut document = Document::default();
    overview::chapters(results, &mut document);
    losses::chapter(results, &mut document);
    traffic::chapters(results, &mut document)?;
    control::chapter(results, &mut document)?;
    programs::chapter(results, &mut document)?;
    overview::skipped(results, &mut document);
    Ok(document)
}
