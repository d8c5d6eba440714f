//! Curves: one a series, with a band or points, side by side or above one another.

use anyhow::Result;
use plotters::prelude::*;

use super::chart::{Area, Frame, GRID, INK, Key, MARGIN, Mark, Style, extent, line, point, text};
use super::figures::{axis, grouped};

/// Panels of curves that share a legend.
pub(super) struct Curves {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) panels: Vec<Panel>,
    pub(super) columns: usize,
    pub(super) panel_height: u32,
    /// Whether panels side by side have the same vertical axis.
    pub(super) one_scale: bool,
}

pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x_axis: String,
    pub(super) y_axis: String,
    pub(super) scale: Scale,
    pub(super) series: Vec<Series>,
}

/// How the horizontal axis is divided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Decades, with zero one decade left of one.
    Log,
}

pub(super) struct Series {
    pub(super) name: String,
    pub(super) color: RGBColor,
    /// Shape of the points, if there are any.
    pub(super) shape: Option<usize>,
    pub(super) points: Vec<Point>,
}

/// A point, and between what values most of the samples it stands for are.
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) band: (f64, f64),
}

impl Curves {
    /// Draws it.
    pub(super) fn svg(&self) -> Result<String> {
        let frame = Frame {
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            legend: self.legend(),
            columns: self.columns,
            panels: self.panels.len(),
            panel_height: self.panel_height,
        };
        frame.draw(|index, area| {
            let panel = &self.panels[index];
            let line = &self.panels[index / self.columns * self.columns..];
            let beside = line.iter().take(self.columns).map(Panel::highest);
            let top = if self.one_scale {
                beside.fold(0.0, f64::max)
            } else {
                panel.highest()
            };
            panel.draw(area, top)
        })
    }

    /// Each series once, though several panels have it.
    fn legend(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            if keys.iter().all(|key| key.name != series.name) {
                keys.push(Key {
                    name: series.name.clone(),
                    color: series.color,
                    mark: series.shape.map_or(Mark::Line, Mark::Points),
                });
            }
        }
        keys
    }
}

impl Scale {
    fn position(self, x: f64) -> f64 {
        match self {
            Self::Linear => x,
            Self::Log if x < 1.0 => -1.0,
            Self::Log => x.log10(),
        }
    }
}

impl Panel {
    fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flat_map(|series| &series.points)
    }

    fn highest(&self) -> f64 {
        let tops = self.points().map(|point| point.band.1.max(point.y));
        tops.fold(0.0, f64::max)
    }

    /// The horizontal extent, with room for points at its ends.
    fn extent(&self) -> (f64, f64) {
        let positions = || self.points().map(|point| self.scale.position(point.x));
        let (low, high) = (
            positions().fold(f64::MAX, f64::min),
            positions().fold(f64::MIN, f64::max),
        );
        match self.scale {
            Scale::Linear => (0.0, high.max(8.0)),
            Scale::Log => (low - 0.3, high + 0.4),
        }
    }

    fn draw(&self, area: &Area<'_>, highest: f64) -> Result<()> {
        text(area, &self.title, (0, 10), &Style::new(14).bold())?;
        let (low, high) = self.extent();
        // Noise may make a difference of two measurements negative.
        let bottom = self.points().map(|point| point.band.0).fold(0.0, f64::min);
        let mut chart = ChartBuilder::on(area)
            .margin_top(24)
            .margin_right(MARGIN)
            .x_label_area_size(50)
            .y_label_area_size(64)
            .build_cartesian_2d(low..high, bottom..highest.max(f64::MIN_POSITIVE) * 1.06)?;
        let linear = self.scale == Scale::Linear;
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .x_labels(if linear { 8 } else { 0 })
            .y_labels(8)
            .y_max_light_lines(0)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(Style::new(12).plotters())
            .y_label_formatter(&|value| axis(*value))
            .x_label_formatter(&|value| grouped(*value as i64))
            .y_desc(&self.y_axis)
            .axis_desc_style(Style::new(12).plotters());
        mesh.draw()?;

        let (left, above) = area.get_base_pixel();
        let plot = chart.plotting_area();
        let pixel = |x: f64, y: f64| {
            let (x, y) = plot.map_coordinate(&(self.scale.position(x), y));
            (x - left, y - above)
        };
        if !linear {
            self.ticks(area, &|x| pixel(x, bottom))?;
        }
        let (ends, height) = (plot.get_x_axis_pixel_range(), area.dim_in_pixel().1 as i32);
        let middle = ((ends.start + ends.end) / 2 - left, height - 12);
        text(area, &self.x_axis, middle, &Style::new(12).centered())?;
        for series in &self.series {
            series.draw_band(area, &pixel)?;
        }
        for series in &self.series {
            series.draw(area, &pixel)?;
        }
        Ok(())
    }

    /// Marks the sizes that were measured rather than round decades.
    fn ticks(&self, area: &Area<'_>, pixel: &dyn Fn(f64) -> (i32, i32)) -> Result<()> {
        let mut sizes: Vec<_> = self.points().map(|point| point.x).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        let mut free = i32::MIN;
        for size in sizes {
            let (x, y) = pixel(size);
            line(area, vec![(x, y), (x, y + 5)], INK, 1)?;
            let words = grouped(size as i64);
            let half = extent(&words, 12) / 2;
            // Two sizes may be too near for both to be named.
            if x - half >= free {
                text(area, &words, (x, y + 15), &Style::new(12).centered())?;
                free = x + half;
            }
        }
        Ok(())
    }
}

impl Series {
    fn draw_band(&self, area: &Area<'_>, pixel: &dyn Fn(f64, f64) -> (i32, i32)) -> Result<()> {
        let upper = self.points.iter().map(|point| pixel(point.x, point.band.1));
        let lower = self
            .points
            .iter()
            .rev()
            .map(|point| pixel(point.x, point.band.0));
        let outline: Vec<_> = upper.chain(lower).collect();
        if self.shape.is_none() && self.points.len() > 1 {
            area.draw(&Polygon::new(outline, self.color.mix(0.22).filled()))?;
        }
        Ok(())
    }

    fn draw(&self, area: &Area<'_>, pixel: &dyn Fn(f64, f64) -> (i32, i32)) -> Result<()> {
        let path = self.points.iter().map(|point| pixel(point.x, point.y));
        line(area, path.collect(), self.color, 2)?;
        for one in &self.points {
            if let Some(shape) = self.shape {
                point(area, pixel(one.x, one.y), shape, self.color)?;
            }
        }
        Ok(())
    }
}
