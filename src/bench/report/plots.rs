//! Plots as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Spread;
use crate::bench::systems::System;

/// Bars in groups, each with its smallest and largest value.
pub(super) struct Bars {
    /// What is drawn.
    pub(super) title: String,
    /// What the values are in.
    pub(super) unit: &'static str,
    /// Digits of the values that are written above bars.
    pub(super) digits: usize,
    /// The bars' names and colours, one for each place in a group.
    pub(super) series: Vec<(String, RGBColor)>,
    /// Groups: a name, and a value for each series, where there is one.
    pub(super) groups: Vec<(String, Vec<Option<Spread>>)>,
    /// Whether a group's bars stand on each other, or beside each other.
    pub(super) stacked: bool,
    /// Where a line is drawn across.
    pub(super) line: Option<f64>,
}

/// Lines over a few named places, on a logarithmic scale.
pub(super) struct Lines {
    /// What is drawn.
    pub(super) title: String,
    /// What the values are in.
    pub(super) unit: &'static str,
    /// The places.
    pub(super) places: Vec<&'static str>,
    /// A name, a colour, and a value for each place.
    pub(super) series: Vec<(String, RGBColor, Vec<f64>)>,
}

const SIZE: (u32, u32) = (1000, 340);
/// Room for the legend, right of the plot.
const LEGEND: u32 = 140;
const FONT: &str = "sans-serif";
/// More bars than these have no values written above them.
const LABELLED: usize = 24;

/// Colours for the parts of one thing, told apart by the colour-blind, too (Okabe and Ito).
pub(super) const PARTS: [RGBColor; 3] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(150, 150, 150),
];

/// A system's colour, the same in every plot: greys for the kernel's ways, blues and greens for
/// underpass, warm colours for what it is measured against.
pub(super) const fn colour(system: System) -> RGBColor {
    match system {
        System::Native | System::Given => RGBColor(60, 60, 60),
        System::KernelVxlan => RGBColor(130, 130, 130),
        System::KernelIpip => RGBColor(185, 185, 185),
        System::Direct => RGBColor(0, 70, 130),
        System::Ipip => RGBColor(0, 158, 115),
        System::Vxlan => RGBColor(0, 114, 178),
        System::Cross => RGBColor(86, 180, 233),
        System::CrossFar => RGBColor(150, 205, 190),
        System::Wire => RGBColor(230, 159, 0),
        System::Ovs => RGBColor(204, 121, 167),
        System::FastDirect => RGBColor(100, 60, 160),
        System::FastIpip => RGBColor(140, 100, 200),
        System::FastVxlan => RGBColor(180, 150, 230),
    }
}

type Failed = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Bars {
    /// The plot; an empty one if it cannot be drawn.
    pub(super) fn svg(&self) -> String {
        svg(|area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Failed> {
        let mut chart = builder(area, &self.title)
            .build_cartesian_2d(0.0..self.groups.len() as f64, 0.0..self.top())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .x_labels(0)
            .y_labels(6)
            .y_desc(self.unit)
            .label_style((FONT, 13))
            .draw()?;
        for (group, (_, values)) in self.groups.iter().enumerate() {
            for (index, corners) in self.rectangles(group, values) {
                let colour = self.series[index].1.filled();
                chart.draw_series([Rectangle::new(corners, colour)])?;
            }
            if !self.stacked {
                chart.draw_series(self.whiskers(group, values))?;
            }
        }
        if let Some(line) = self.line {
            let ends = vec![(0.0, line), (self.groups.len() as f64, line)];
            chart.draw_series([PathElement::new(ends, BLACK.stroke_width(1))])?;
        }
        let at = |place: (f64, f64)| chart.plotting_area().map_coordinate(&place);
        for (place, text) in self.labels() {
            let (x, y) = at(place);
            area.draw(&Text::new(
                text,
                (x, y - 4),
                centred(area, 11, VPos::Bottom),
            ))?;
        }
        for (x, (name, _)) in self.groups.iter().enumerate() {
            let (x, y) = at((x as f64 + 0.5, 0.0));
            let style = centred(area, 13, VPos::Top);
            area.draw(&Text::new(name.clone(), (x, y + 8), style))?;
        }
        legend(area, &self.series)
    }

    /// Values, and where they are written: above each bar, or above a stack their sum.
    fn labels(&self) -> Vec<((f64, f64), String)> {
        let digits = self.digits;
        let mut labels = Vec::new();
        for (group, (_, values)) in self.groups.iter().enumerate() {
            let sum: f64 = values.iter().flatten().map(|value| value.median).sum();
            if self.stacked {
                let label = ((group as f64 + 0.5, sum), format!("{sum:.digits$}"));
                labels.extend((sum > 0.0).then_some(label));
                continue;
            }
            for (index, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                let (left, right) = self.sides(group, index);
                let place = (f64::midpoint(left, right), value.most);
                labels.push((place, format!("{:.digits$}", value.median)));
            }
        }
        if labels.len() > LABELLED {
            labels.clear();
        }
        labels
    }

    /// The corners of a group's bars, each with the number of its series.
    fn rectangles(&self, group: usize, values: &[Option<Spread>]) -> Vec<(usize, [(f64, f64); 2])> {
        let mut base = 0.0;
        let mut rectangles = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (left, right) = self.sides(group, index);
            let foot = if self.stacked { base } else { 0.0 };
            base = foot + value.median;
            rectangles.push((index, [(left, foot), (right, base)]));
        }
        rectangles
    }

    /// A line from the smallest to the largest value over each of a group's bars.
    fn whiskers(&self, group: usize, values: &[Option<Spread>]) -> Vec<PathElement<(f64, f64)>> {
        let whisker = |(index, value): (usize, &Option<Spread>)| {
            let value = (*value).filter(|value| value.most > value.least)?;
            let (left, right) = self.sides(group, index);
            let middle = f64::midpoint(left, right);
            let ends = vec![(middle, value.least), (middle, value.most)];
            Some(PathElement::new(ends, BLACK.stroke_width(1)))
        };
        values.iter().enumerate().filter_map(whisker).collect()
    }

    fn sides(&self, group: usize, index: usize) -> (f64, f64) {
        let (count, index) = if self.stacked {
            (1, 0)
        } else {
            (self.series.len().max(1), index)
        };
        let width = 0.8 / count as f64;
        let left = group as f64 + 0.1 + width * index as f64;
        (left, left + width * 0.94)
    }

    fn top(&self) -> f64 {
        let height = |values: &Vec<Option<Spread>>| {
            let values = values.iter().flatten();
            if self.stacked {
                values.map(|spread| spread.median).sum()
            } else {
                values.map(|spread| spread.most).fold(0.0, f64::max)
            }
        };
        let highest = self.groups.iter().map(|(_, values)| height(values));
        let highest = highest.chain(self.line).fold(0.0, f64::max);
        if highest > 0.0 { highest * 1.12 } else { 1.0 }
    }
}

impl Lines {
    /// The plot; an empty one if it cannot be drawn.
    pub(super) fn svg(&self) -> String {
        svg(|area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Failed> {
        let values = || {
            self.series
                .iter()
                .flat_map(|(_, _, values)| values.iter().copied())
        };
        let least = values().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        let most = values().fold(0.0, f64::max);
        if !least.is_finite() {
            return Ok(());
        }
        let (count, foot) = (self.places.len() as f64, least * 0.8);
        let mut chart = builder(area, &self.title)
            .build_cartesian_2d(0.0..count, (foot..most * 1.3).log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .y_desc(self.unit)
            .y_label_formatter(&|value| format!("{value}"))
            .label_style((FONT, 13))
            .x_labels(0)
            .draw()?;
        for (_, colour, values) in &self.series {
            let points = values.iter().enumerate().map(|(x, y)| (x as f64 + 0.5, *y));
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
            chart.draw_series(points.map(|at| Circle::new(at, 3, colour.filled())))?;
        }
        for (x, name) in self.places.iter().enumerate() {
            let place = (x as f64 + 0.5, foot);
            let (x, y) = chart.plotting_area().map_coordinate(&place);
            let style = centred(area, 13, VPos::Top);
            area.draw(&Text::new((*name).to_owned(), (x, y + 8), style))?;
        }
        let names = self.series.iter();
        let names: Vec<_> = names
            .map(|(name, colour, _)| (name.clone(), *colour))
            .collect();
        legend(area, &names)
    }
}

const GRID: RGBColor = RGBColor(225, 225, 225);
const AXIS: RGBColor = RGBColor(120, 120, 120);

/// What both kinds of plot have in common.
fn builder<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(title, (FONT, 16))
        .margin(8)
        .margin_right(LEGEND)
        .x_label_area_size(32)
        .y_label_area_size(64);
    builder
}

fn centred<'a>(area: &Area<'_>, size: u32, vertical: VPos) -> TextStyle<'a> {
    let style = (FONT, size).into_text_style(area);
    style.pos(Pos::new(HPos::Center, vertical))
}

/// Names and colours, right of the plot.
fn legend(area: &Area<'_>, names: &[(String, RGBColor)]) -> Result<(), Failed> {
    let x = (SIZE.0 - LEGEND) as i32 + 12;
    for (index, (name, colour)) in names.iter().enumerate() {
        let y = 36 + 20 * index as i32;
        area.draw(&Rectangle::new([(x, y), (x + 11, y + 11)], colour.filled()))?;
        area.draw(&Text::new(name.clone(), (x + 18, y), (FONT, 13)))?;
    }
    Ok(())
}

fn svg(draw: impl FnOnce(&Area<'_>) -> Result<(), Failed>) -> String {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let drawn = area
            .fill(&WHITE)
            .map_err(Failed::from)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present().map_err(Failed::from));
        if let Err(error) = drawn {
            log::warn!("a plot is left out: {error}");
            return String::new();
        }
    }
    text
}
