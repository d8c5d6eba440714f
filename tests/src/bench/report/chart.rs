//! What all charts share: paper, title, a legend above the plots, panels below, and text that is where it should be.

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::html::escape;

pub(super) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
pub(super) const INK: RGBColor = RGBColor(0x24, 0x29, 0x2F);
pub(super) const MUTED: RGBColor = RGBColor(0x57, 0x60, 0x6A);
pub(super) const GRID: RGBColor = RGBColor(0xD8, 0xDE, 0xE4);

/// Width of every chart, so that they line up.
pub(super) const WIDTH: u32 = 960;
/// Left of the first panel's axis and right of the last plot.
pub(super) const MARGIN: i32 = 20;
const LEGEND_ROW: i32 = 24;
/// Upper bound of a character's width relative to the font size.
const CHARACTER: f64 = 0.62;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A chart without what its panels draw.
pub(super) struct Frame {
    pub(super) title: String,
    /// How to read it, in one line.
    pub(super) subtitle: String,
    pub(super) legend: Vec<Key>,
    /// Panels side by side.
    pub(super) columns: usize,
    pub(super) panels: usize,
    pub(super) panel_height: u32,
}

/// An entry of the legend.
pub(super) struct Key {
    pub(super) name: String,
    pub(super) color: RGBColor,
    pub(super) mark: Mark,
}

/// What an entry of the legend looks like.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    Bar,
    Line,
    /// A line with points of this shape.
    Points(usize),
}

impl Frame {
    /// Draws it, with what `panel` draws into each.
    pub(super) fn draw(&self, panel: impl Fn(usize, &Area<'_>) -> Result<()>) -> Result<String> {
        let (rows, top) = self.legend_rows();
        let lines = self.panels.div_ceil(self.columns) as u32;
        let height = top as u32 + lines * self.panel_height + 12;
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            root.fill(&PAPER)?;
            text(&root, &self.title, (MARGIN, 24), &Style::new(19).bold())?;
            text(&root, &self.subtitle, (MARGIN, 48), &Style::new(13).muted())?;
            for (at, key) in rows.iter().zip(&self.legend) {
                key.draw(&root, *at)?;
            }
            let width = (WIDTH - 2 * MARGIN as u32) / self.columns as u32;
            for index in 0..self.panels {
                let column = (index % self.columns) as i32;
                let line = (index / self.columns) as i32;
                let corner = (
                    MARGIN + column * width as i32,
                    top + line * self.panel_height as i32,
                );
                panel(
                    index,
                    &root.clone().shrink(corner, (width, self.panel_height)),
                )
                .with_context(|| format!("chart {:?}", self.title))?;
            }
            root.present()?;
        }
        let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(&self.title));
        Ok(svg.replacen("<svg ", &label, 1))
    }

    /// Where the legend's entries are, and where the panels start.
    fn legend_rows(&self) -> (Vec<(i32, i32)>, i32) {
        let (mut x, mut y) = (MARGIN, 76);
        let mut places = Vec::new();
        for key in &self.legend {
            let width = 34 + extent(&key.name, 13) + 22;
            if x > MARGIN && x + width > WIDTH as i32 - MARGIN {
                (x, y) = (MARGIN, y + LEGEND_ROW);
            }
            places.push((x, y));
            x += width;
        }
        (places, y + 22)
    }
}

impl Key {
    fn draw(&self, root: &Area<'_>, (x, y): (i32, i32)) -> Result<()> {
        match self.mark {
            Mark::Bar => {
                root.draw(&Rectangle::new(
                    [(x + 6, y - 7), (x + 26, y + 7)],
                    self.color.filled(),
                ))?;
            }
            Mark::Line => line(root, vec![(x, y), (x + 26, y)], self.color, 2)?,
            Mark::Points(shape) => {
                line(root, vec![(x, y), (x + 26, y)], self.color, 2)?;
                point(root, (x + 13, y), shape, self.color)?;
            }
        }
        text(root, &self.name, (x + 34, y), &Style::new(13))
    }
}

/// How text looks, and which point of it is the one that is given.
pub(super) struct Style {
    size: u32,
    color: RGBColor,
    weight: FontStyle,
    anchor: HPos,
}

impl Style {
    /// Ink from here to the right, centred on the line.
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            color: INK,
            weight: FontStyle::Normal,
            anchor: HPos::Left,
        }
    }

    pub(super) fn bold(mut self) -> Self {
        self.weight = FontStyle::Bold;
        self
    }

    pub(super) fn muted(mut self) -> Self {
        self.color = MUTED;
        self
    }

    pub(super) fn centered(mut self) -> Self {
        self.anchor = HPos::Center;
        self
    }

    /// As plotters wants it, whose sizes are 1.24 times those of SVG.
    pub(super) fn plotters(&self) -> TextStyle<'static> {
        let size = f64::from(self.size) * 1.24;
        let font = FontDesc::new(FontFamily::SansSerif, size, self.weight);
        let mut style = TextStyle::from(font).pos(Pos::new(self.anchor, VPos::Center));
        style.color = self.color.to_backend_color();
        style
    }
}

/// Writes at a pixel of the area.
pub(super) fn text(area: &Area<'_>, words: &str, at: (i32, i32), style: &Style) -> Result<()> {
    area.draw(&Text::new(words.to_owned(), at, style.plotters()))?;
    Ok(())
}

/// Draws through pixels of the area.
pub(super) fn line(
    area: &Area<'_>,
    at: Vec<(i32, i32)>,
    color: RGBColor,
    width: u32,
) -> Result<()> {
    area.draw(&PathElement::new(at, color.stroke_width(width)))?;
    Ok(())
}

/// Draws a point; shapes differ so that colour is not all that tells series apart.
pub(super) fn point(
    area: &Area<'_>,
    (x, y): (i32, i32),
    shape: usize,
    color: RGBColor,
) -> Result<()> {
    let polygon = |corners: &[(i32, i32)]| {
        let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        Polygon::new(corners, color.filled())
    };
    match shape % 4 {
        0 => area.draw(&Circle::new((x, y), 5, color.filled()))?,
        1 => area.draw(&polygon(&[(-5, -5), (5, -5), (5, 5), (-5, 5)]))?,
        2 => area.draw(&polygon(&[(0, -6), (6, 5), (-6, 5)]))?,
        _ => area.draw(&polygon(&[(0, -7), (7, 0), (0, 7), (-7, 0)]))?,
    }
    Ok(())
}

/// Upper bound of a text's width in pixels.
pub(super) fn extent(words: &str, size: u32) -> i32 {
    (words.chars().count() as f64 * f64::from(size) * CHARACTER).ceil() as i32
}

/// Breaks text into as few lines as this width allows, unless a word is wider, and those as even as can be.
pub(super) fn wrapped(words: &str, size: u32, width: i32) -> Vec<String> {
    let lines = filled(words, size, width);
    let even = (1..width).map(|width| filled(words, size, width));
    let mut even = even.filter(|even| even.len() == lines.len());
    even.next().unwrap_or(lines)
}

fn filled(words: &str, size: u32, width: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_inclusive([' ', '-']) {
        match lines.last_mut() {
            Some(line) if extent((line.clone() + word).trim_end(), size) <= width => {
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_break_at_spaces_and_hyphens() {
        assert_eq!(wrapped("one two three", 10, 60), ["one two", "three"]);
        assert_eq!(
            wrapped("TCP stream, 8 flows", 10, 90),
            ["TCP stream,", "8 flows"]
        );
        assert_eq!(
            wrapped("udp-small-packets", 10, 70),
            ["udp-small-", "packets"]
        );
        assert_eq!(wrapped("unbreakable", 10, 10), ["unbreakable"]);
    }

    #[test]
    fn a_legend_too_long_for_a_line_takes_another() {
        let key = |index| Key {
            name: format!("contender with a long name {index}"),
            color: INK,
            mark: Mark::Bar,
        };
        let frame = Frame {
            title: String::new(),
            subtitle: String::new(),
            legend: (0..8).map(key).collect(),
            columns: 1,
            panels: 1,
            panel_height: 100,
        };
        let (places, top) = frame.legend_rows();
        assert!(places.last().unwrap().1 > places[0].1);
        assert!(top > places.last().unwrap().1);
    }
}
