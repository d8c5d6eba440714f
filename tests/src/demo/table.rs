//! Aligned tables for the terminal.

/// Rows in columns, indented: words to the left, then figures to the right.
#[derive(Debug)]
pub(super) struct Table {
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts with a row of headings, the first `words` of which are not figures.
    pub(super) fn new<const N: usize>(words: usize, headings: [&str; N]) -> Self {
        Self {
            words,
            rows: vec![headings.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Lays it out, a line a row.
    pub(super) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, &width))| {
                if column < self.words {
                    format!("  {cell:<width$}")
                } else {
                    format!("   {cell:>width$}")
                }
            });
            cells.collect::<String>().trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }

    /// Prints it.
    pub(super) fn print(&self) {
        self.lines().iter().for_each(|line| println!("{line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(1, ["", "packets"]);
        table.row(["node1".to_owned(), "7".to_owned()]);
        assert_eq!(table.lines(), ["          packets", "  node1         7"]);
    }
}
