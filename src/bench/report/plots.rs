//! Plots as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Spread;

/// Bars in groups, each with its smallest and largest value.
pub(super) struct Bars {
    /// What is drawn.
    pub(super) title: String,
    /// What the values are in.
    pub(super) unit: &'static str,
    /// The bars' names, one for each place in a group.
    pub(super) series: Vec<String>,
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
    /// A name, and a value for each place.
    pub(super) series: Vec<(String, Vec<f64>)>,
}

const SIZE: (u32, u32) = (960, 360);
const FONT: &str = "sans-serif";

/// Colours that are told apart by the colour-blind, too (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(150, 140, 20),
    RGBColor(90, 90, 90),
];

type Failed = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Bars {
    /// The plot; an empty one if it cannot be drawn.
    pub(super) fn svg(&self) -> String {
        svg(|area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Failed> {
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 16))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..self.groups.len() as f64, 0.0..self.top())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc(self.unit)
            .label_style((FONT, 13))
            .draw()?;
        for (group, (_, values)) in self.groups.iter().enumerate() {
            for (index, corners) in self.rectangles(group, values) {
                let colour = COLOURS[index % COLOURS.len()].filled();
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
        let foot = |x: usize| chart.plotting_area().map_coordinate(&(x as f64 + 0.5, 0.0));
        let names = self.groups.iter().enumerate();
        let names: Vec<_> = names
            .map(|(x, (name, _))| (foot(x), name.as_str()))
            .collect();
        place_names(area, &names)?;
        legend(area, &self.series)
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
        if highest > 0.0 { highest * 1.1 } else { 1.0 }
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
                .flat_map(|(_, values)| values.iter().copied())
        };
        let least = values().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        let most = values().fold(0.0, f64::max);
        if !least.is_finite() {
            return Ok(());
        }
        let (count, foot) = (self.places.len() as f64, least * 0.8);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 16))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..count, (foot..most * 1.3).log_scale())?;
        chart
            .configure_mesh()
            .y_desc(self.unit)
            .label_style((FONT, 13))
            .x_labels(0)
            .draw()?;
        for (index, (_, values)) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()].stroke_width(2);
            let points = values.iter().enumerate().map(|(x, y)| (x as f64 + 0.5, *y));
            chart.draw_series(LineSeries::new(points, colour))?;
        }
        let at = |x: usize| {
            chart
                .plotting_area()
                .map_coordinate(&(x as f64 + 0.5, foot))
        };
        let places = self.places.iter().enumerate();
        let places: Vec<_> = places.map(|(x, name)| (at(x), *name)).collect();
        place_names(area, &places)?;
        let names: Vec<_> = self.series.iter().map(|(name, _)| name.clone()).collect();
        legend(area, &names)
    }
}

/// Writes names below points of the lower axis.
fn place_names(area: &Area<'_>, names: &[((i32, i32), &str)]) -> Result<(), Failed> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    let style = (FONT, 13).into_text_style(area);
    let style = style.pos(Pos::new(HPos::Center, VPos::Top));
    for ((x, y), name) in names {
        area.draw(&Text::new((*name).to_owned(), (*x, *y + 8), style.clone()))?;
    }
    Ok(())
}

/// Names and colours, in the upper right corner.
fn legend(area: &Area<'_>, names: &[String]) -> Result<(), Failed> {
    if names.len() < 2 {
        return Ok(());
    }
    let x = SIZE.0 as i32 - 130;
    let height = 16 * names.len() as i32 + 8;
    let box_corners = [(x - 6, 30), (x + 122, 30 + height)];
    area.draw(&Rectangle::new(box_corners, WHITE.mix(0.85).filled()))?;
    for (index, name) in names.iter().enumerate() {
        let y = 36 + 16 * index as i32;
        let colour = COLOURS[index % COLOURS.len()];
        area.draw(&Rectangle::new([(x, y), (x + 10, y + 10)], colour.filled()))?;
        area.draw(&Text::new(name.clone(), (x + 16, y), (FONT, 13)))?;
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
