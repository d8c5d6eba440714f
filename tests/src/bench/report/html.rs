//! The report as one page that needs nothing else: charts inline, colours for light and dark.

use super::document::{Block, Document, Table};

const STYLE: &str = include_str!("page.css");

/// Writes all of it.
pub(super) fn render(document: &Document) -> String {
    let title = document.blocks.iter().find_map(|block| match block {
        Block::Heading(1, text) => Some(escape(text)),
        _ => None,
    });
    let body: String = document.blocks.iter().map(block).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}{body}</main>\n</body>\n</html>\n",
        title.unwrap_or_default(),
        contents(document),
    )
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(2, text) => format!("<h2 id=\"{}\">{}</h2>\n", anchor(text), inline(text)),
        Block::Heading(level, text) => format!("<h{level}>{}</h{level}>\n", inline(text)),
        Block::Text(text) => format!("<p>{}</p>\n", inline(text)),
        Block::List(items) => {
            let items = items
                .iter()
                .map(|item| format!("<li>{}</li>\n", inline(item)));
            format!("<ul>\n{}</ul>\n", items.collect::<String>())
        }
        Block::Table(rows) => table(rows),
        Block::Figure(figure) => format!("<figure>\n{}</figure>\n", figure.svg),
    }
}

/// Links to the chapters.
fn contents(document: &Document) -> String {
    let links = document.blocks.iter().filter_map(|block| match block {
        Block::Heading(2, text) => Some(format!(
            "<a href=\"#{}\">{}</a>\n",
            anchor(text),
            inline(text)
        )),
        _ => None,
    });
    format!("<nav>\n{}</nav>\n", links.collect::<String>())
}

fn table(table: &Table) -> String {
    let class = |column| {
        if column < table.words {
            ""
        } else {
            " class=\"n\""
        }
    };
    let row = |tag: &str, cells: &[String]| {
        let cells = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("<{tag}{}>{}</{tag}>", class(column), inline(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let rows: String = table.rows.iter().map(|cells| row("td", cells)).collect();
    format!(
        "<div class=\"table\"><table>\n<thead>\n{}</thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n",
        row("th", &table.headings),
    )
}

fn anchor(text: &str) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    text.chars().map(plain).collect()
}

/// Text with what stands between backticks as code.
fn inline(text: &str) -> String {
    // A sign belongs to what it divides by.
    let text = text.replace("÷ ", "÷\u{a0}");
    let parts = text.split('`').enumerate();
    parts
        .map(|(index, part)| match index % 2 {
            0 => escape(part),
            _ => format!("<code>{}</code>", escape(part)),
        })
        .collect()
}

/// Text that cannot be taken for markup.
pub(super) fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_is_only_text() {
        assert_eq!(inline("a <b> `c&d`"), "a &lt;b&gt; <code>c&amp;d</code>");
    }
}
