//! The report as Markdown, with the charts as files beside it.

use super::document::{Block, Document, Table};

/// Writes all of it.
pub(super) fn render(document: &Document) -> String {
    let blocks: Vec<_> = document.blocks.iter().map(block).collect();
    blocks.join("\n")
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(level, text) => format!("{} {text}\n", "#".repeat((*level).into())),
        Block::Text(text) => format!("{text}\n"),
        Block::List(items) => items.iter().map(|item| format!("- {item}\n")).collect(),
        Block::Table(rows) => table(rows),
        Block::Figure(figure) => format!("![{}]({})\n", figure.title, figure.file),
    }
}

/// Writes a table whose columns line up in the source too.
pub(super) fn table(table: &Table) -> String {
    let escape = |row: &Vec<String>| -> Vec<String> {
        row.iter().map(|cell| cell.replace('|', "\\|")).collect()
    };
    let mut rows = vec![escape(&table.headings)];
    rows.extend(table.rows.iter().map(escape));
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(3)
    };
    let widths: Vec<_> = (0..table.headings.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match column < table.words {
            true => format!(" {cell:<width$} |"),
            false => format!(" {cell:>width$} |"),
        });
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = widths
        .iter()
        .enumerate()
        .map(|(column, &width)| match column < table.words {
            true => format!(" {} |", "-".repeat(width)),
            false => format!(" {}: |", "-".repeat(width - 1)),
        });
    let rule = format!("|{}\n", rule.collect::<String>());
    let (head, body) = rows.split_at(1);
    let body: String = body.iter().map(line).collect();
    line(&head[0]) + &rule + &body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_a_cell_does_not_end_it() {
        let mut rows = Table::new(1, ["a|b", "n"]);
        rows.row(["x".to_owned(), "1".to_owned()]);
        let expected = "| a\\|b |   n |\n| ---- | --: |\n| x    |   1 |\n";
        assert_eq!(table(&rows), expected);
    }
}
