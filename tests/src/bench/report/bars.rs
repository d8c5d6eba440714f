//! Grouped bars: a group a case, a bar a contender, with whiskers for the spread and the figure on top.

use anyhow::Result;
use plotters::prelude::*;

use super::chart::{Area, Frame, GRID, INK, Key, Mark, Style, extent, text, wrapped};
use super::contenders;
use super::figures::{axis, short};
use super::stats::Summary;

/// All panels of one chart share the contenders' places in a group.
pub(super) struct Bars<'a> {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) contenders: Vec<&'a str>,
    /// The contender that is 1 by definition: a line, not a bar.
    pub(super) limit: Option<&'a str>,
    pub(super) panels: Vec<Panel<'a>>,
}

pub(super) struct Panel<'a> {
    pub(super) title: String,
    /// What the bars measure, with its unit.
    pub(super) axis: String,
    pub(super) groups: Vec<Group<'a>>,
}

pub(super) struct Group<'a> {
    pub(super) name: String,
    pub(super) bars: Vec<(&'a str, Summary)>,
}

const PANEL_HEIGHT: u32 = 270;
const AXIS_WIDTH: u32 = 74;
const NAME_SIZE: u32 = 12;
const NAME_ROW: i32 = 15;
const FIGURE_SIZE: u32 = 11;
/// Of a group's width, what bars may fill.
const FILL: f64 = 0.86;
const WIDEST_BAR: f64 = 46.0;

impl Bars<'_> {
    /// Draws it.
    pub(super) fn svg(&self) -> Result<String> {
        let key = |name: &&str| Key {
            name: (*name).to_owned(),
            color: contenders::color(name),
            mark: Mark::Bar,
        };
        let mut legend: Vec<_> = self.contenders.iter().map(key).collect();
        legend.extend(self.limit.map(|limit| Key {
            name: format!("{limit}: the limit, 1 by definition"),
            color: INK,
            mark: Mark::Line,
        }));
        let frame = Frame {
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            legend,
            columns: 1,
            panels: self.panels.len(),
            panel_height: PANEL_HEIGHT,
        };
        frame.draw(|index, area| self.panel(&self.panels[index], area))
    }

    fn panel(&self, panel: &Panel<'_>, area: &Area<'_>) -> Result<()> {
        let (width, _) = area.dim_in_pixel();
        let slot = f64::from(width - AXIS_WIDTH) / panel.groups.len().max(1) as f64;
        let names: Vec<_> = panel
            .groups
            .iter()
            .map(|group| wrapped(&group.name, NAME_SIZE, slot as i32 - 8))
            .collect();
        let rows = names.iter().map(Vec::len).max().unwrap_or(1) as i32;

        text(area, &panel.title, (0, 10), &Style::new(14).bold())?;
        let bars = panel.groups.iter().flat_map(|group| &group.bars);
        let highest = bars.map(|(_, value)| value.max).fold(0.0, f64::max);
        let floor = if self.limit.is_some() {
            1.0
        } else {
            f64::MIN_POSITIVE
        };
        // Room for the figure above the highest whisker.
        let top = highest.max(floor) * 1.14;
        let mut chart = ChartBuilder::on(area)
            .margin_top(24)
            .x_label_area_size(rows * NAME_ROW + 12)
            .y_label_area_size(AXIS_WIDTH)
            .build_cartesian_2d(0.0..panel.groups.len() as f64, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(6)
            .y_max_light_lines(0)
            .bold_line_style(GRID)
            .axis_style(INK)
            .y_label_style(Style::new(12).plotters())
            .y_label_formatter(&|value| axis(*value))
            .y_desc(&panel.axis)
            .axis_desc_style(Style::new(12).plotters())
            .draw()?;

        let plot = chart.plotting_area();
        let (corner, _) = area.get_base_pixel();
        let pixel = |x: f64, y: f64| {
            let (x, y) = plot.map_coordinate(&(x, y));
            (x - corner, y - area.get_base_pixel().1)
        };
        for (index, (group, lines)) in panel.groups.iter().zip(&names).enumerate() {
            let middle = index as f64 + 0.5;
            self.group(group, middle, slot, area, &pixel)?;
            for (row, words) in lines.iter().enumerate() {
                let (x, y) = pixel(middle, 0.0);
                let at = (x, y + 14 + row as i32 * NAME_ROW);
                text(area, words, at, &Style::new(NAME_SIZE).centered())?;
            }
        }
        if self.limit.is_some() {
            let ends = vec![pixel(0.0, 1.0), pixel(panel.groups.len() as f64, 1.0)];
            super::chart::line(area, ends, INK, 2)?;
        }
        Ok(())
    }

    fn group(
        &self,
        group: &Group<'_>,
        middle: f64,
        slot: f64,
        area: &Area<'_>,
        pixel: &dyn Fn(f64, f64) -> (i32, i32),
    ) -> Result<()> {
        let count = self.contenders.len() as f64;
        let width = (slot * FILL / count).min(WIDEST_BAR) / slot;
        for (name, value) in &group.bars {
            let Some(place) = self.contenders.iter().position(|known| known == name) else {
                continue;
            };
            let left = middle + (place as f64 - count / 2.0) * width;
            let (from, to) = (pixel(left, value.median), pixel(left + width, 0.0));
            let bar = [(from.0 + 1, from.1), (to.0 - 1, to.1)];
            area.draw(&Rectangle::new(bar, contenders::color(name).filled()))?;
            let center = (from.0 + to.0) / 2;
            let (high, low) = (pixel(left, value.max).1, pixel(left, value.min).1);
            if low - high > 2 {
                super::chart::line(area, vec![(center, high), (center, low)], INK, 1)?;
            }
            let figure = short(value.median);
            // Below that width neighbours would touch; the figures are in the tables.
            if extent(&figure, FIGURE_SIZE) as f64 <= width * slot + 4.0 {
                let limit = self.limit.map(|_| pixel(left, 1.0).1);
                let at = (center, figure_row(high.min(from.1), limit));
                text(area, &figure, at, &Style::new(FIGURE_SIZE).centered())?;
            }
        }
        Ok(())
    }
}

/// Where the figure of a bar goes: on top of it, or of the limit's line if that would strike the figure through.
fn figure_row(top: i32, limit: Option<i32>) -> i32 {
    let row = top - 8;
    let struck = limit.filter(|limit| (row - limit).abs() < 9);
    struck.map_or(row, |limit| limit - 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_limit_does_not_strike_figures_through() {
        assert_eq!(figure_row(100, None), 92);
        assert_eq!(figure_row(100, Some(60)), 92);
        assert_eq!(figure_row(100, Some(90)), 81);
    }
}
