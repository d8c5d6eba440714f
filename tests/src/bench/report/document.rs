//! The report before it is Markdown or HTML: the same blocks make both, so they cannot disagree.

/// One block after another. Text may have `code` between backticks.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) blocks: Vec<Block>,
}

#[derive(Debug)]
pub(super) enum Block {
    /// Level 1 is the title.
    Heading(u8, String),
    Text(String),
    List(Vec<String>),
    Table(Table),
    Figure(Figure),
}

/// Words to the left, figures to the right.
#[derive(Debug)]
pub(super) struct Table {
    /// How many of the columns are words.
    pub(super) words: usize,
    pub(super) headings: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// A chart.
#[derive(Debug)]
pub(super) struct Figure {
    /// Name of its file.
    pub(super) file: String,
    /// What it shows, for those who do not see it.
    pub(super) title: String,
    pub(super) svg: String,
}

impl Document {
    pub(super) fn heading(&mut self, level: u8, text: impl Into<String>) {
        self.blocks.push(Block::Heading(level, text.into()));
    }

    pub(super) fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    pub(super) fn list(&mut self, items: Vec<String>) {
        self.blocks.push(Block::List(items));
    }

    /// Adds a table, unless it has no rows.
    pub(super) fn table(&mut self, table: Table) {
        if !table.rows.is_empty() {
            self.blocks.push(Block::Table(table));
        }
    }

    pub(super) fn figure(&mut self, figure: Figure) {
        self.blocks.push(Block::Figure(figure));
    }

    pub(super) fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Figure(figure) => Some(figure),
            _ => None,
        })
    }
}

impl Table {
    /// Starts without rows; the first `words` columns are not figures.
    pub(super) fn new<const N: usize>(words: usize, headings: [&str; N]) -> Self {
        Self {
            words,
            headings: headings.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Removes the columns in which no row has a figure.
    pub(super) fn without_empty_columns(mut self) -> Self {
        for column in (0..self.headings.len()).rev() {
            if self.rows.iter().all(|row| row[column] == "–") {
                self.headings.remove(column);
                for row in &mut self.rows {
                    row.remove(column);
                }
            }
        }
        self
    }
}
