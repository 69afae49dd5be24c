//! Pictures, written by hand: bars with their spread and cumulative distributions; stacked phases; a waterfall.

use std::fmt::Write;

use super::machine::Machine;
use super::report::Section;
use super::stats::{median, ms, percentile};

pub(crate) const WIDTH: f64 = 880.0;
pub(crate) const LEFT: f64 = 190.0;
pub(crate) const RIGHT: f64 = 90.0;
pub(crate) const TOP: f64 = 84.0;
const ROW: f64 = 34.0;
const CURVES: f64 = 260.0;
pub(crate) const INK: &str = "#1f2933";
pub(crate) const PALE: &str = "#6b7785";
const GRID: &str = "#e4e8ec";
const FLAME: &str = "#e4572e";
const COLOURS: [&str; 8] =
    ["#2f6fb3", "#3aa17e", "#8e6bbf", "#c9a227", "#c2578b", "#4f9bb5", "#7a8b3a", "#8c6d5a"];

/// Whether there is anything to see.
pub fn is_worth_it(section: &Section) -> bool {
    section.rows.iter().any(|row| row.samples.iter().any(|(_, samples)| samples.len() > 1))
}

pub fn picture(section: &Section, machine: &Machine) -> String {
    let mut canvas = Canvas::default();
    let is = |what: &str| section.key.contains(what);
    let end = if is("-timeline-") {
        waterfall(&mut canvas, section)
    } else if is("-phases") {
        stacked(&mut canvas, section)
    } else {
        spread(&mut canvas, section)
    };
    let about = format!("{}, {}", machine.kernel, machine.cpu);
    canvas.finish(&section.title, &about, end)
}

/// One bar: what it is of, its colour, and its samples.
struct Series<'a> {
    label: String,
    colour: &'static str,
    samples: &'a [u32],
}

fn series(section: &Section) -> Vec<Series<'_>> {
    let mut all = Vec::new();
    for (at, row) in section.rows.iter().enumerate() {
        for (label, samples) in &row.samples {
            if samples.is_empty() || !(label == "wall" || label.starts_with("beside")) {
                continue;
            }
            let label = if label == "wall" { row.name.clone() } else { format!("{} {label}", row.name) };
            all.push(Series { label, colour: colour(&row.name, at), samples });
        }
    }
    all
}

fn colour(name: &str, at: usize) -> &'static str {
    match name {
        "bare" => "#a9b4bf",
        "floor" => "#5b6b7b",
        name if name.starts_with("hearth") => FLAME,
        _ => COLOURS[at % COLOURS.len()],
    }
}

/// Bars to the median, whiskers to p90, dots at p99; below, the distributions.
fn spread(canvas: &mut Canvas, section: &Section) -> f64 {
    let all = series(section);
    let value = |series: &Series<'_>, permille| percentile(series.samples, permille).map_or(0.0, ms);
    let least = all.iter().map(|s| value(s, 0)).fold(f64::MAX, f64::min);
    let most = all.iter().map(|s| value(s, 990)).fold(0.0, f64::max);
    let axis = Axis::new(least, most);
    let bottom = TOP + ROW * all.len() as f64;
    axis.draw(canvas, TOP, bottom, "ms, bar = p50, line to p90, dot = p99");
    for (at, one) in all.iter().enumerate() {
        let y = TOP + ROW * at as f64;
        let middle = y + ROW / 2.0;
        let [p50, p90, p99] = [500, 900, 990].map(|permille| axis.x(value(one, permille)));
        canvas.text(LEFT - 12.0, middle + 5.0, "end", 14.0, INK, &one.label);
        canvas.rect(LEFT, y + 7.0, p50 - LEFT, ROW - 14.0, one.colour);
        canvas.line(p50, middle, p90, middle, one.colour, 2.5);
        canvas.circle(p99, middle, 3.5, one.colour);
        canvas.text(p99.max(p90) + 10.0, middle + 5.0, "start", 13.0, INK, &figure(value(one, 500)));
    }
    let top = bottom + 78.0;
    axis.draw(canvas, top, top + CURVES, "ms");
    for share in [0.0, 0.5, 0.9, 1.0] {
        let y = top + CURVES * (1.0 - share);
        canvas.line(LEFT, y, WIDTH - RIGHT, y, GRID, 1.0);
        canvas.text(LEFT - 12.0, y + 4.0, "end", 12.0, PALE, &format!("{:.0} %", share * 100.0));
    }
    canvas.text(LEFT, top - 12.0, "start", 13.0, INK, "Share of launches done within");
    for one in &all {
        curve(canvas, &axis, one, top);
    }
    legend(canvas, top + CURVES + 50.0, &all.iter().map(|s| (s.label.as_str(), s.colour)).collect::<Vec<_>>())
}

fn curve(canvas: &mut Canvas, axis: &Axis, series: &Series<'_>, top: f64) {
    const STEPS: usize = 100;
    let mut points = String::new();
    for step in 0..=STEPS {
        let x = axis.x(percentile(series.samples, step * 1000 / STEPS).map_or(0.0, ms));
        let y = top + CURVES * (1.0 - step as f64 / STEPS as f64);
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    let _ = writeln!(
        canvas.0,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.2\" stroke-linejoin=\"round\"/>",
        series.colour
    );
}

fn stacked(canvas: &mut Canvas, section: &Section) -> f64 {
    const SHADES: [&str; 4] = [FLAME, "#f2a65a", "#a9b4bf", "#2f6fb3"];
    let rows: Vec<_> = section.rows.iter().filter(|row| row.samples("wall").is_some()).collect();
    let medians = |row: &super::report::Row| -> Vec<(String, f64)> {
        let phases = row.samples.iter().filter(|(label, _)| label != "wall");
        phases.map(|(label, samples)| (label.clone(), median(samples).map_or(0.0, ms))).collect()
    };
    let most = rows.iter().map(|row| medians(row).iter().map(|(_, value)| value).sum()).fold(0.1, f64::max);
    let axis = Axis::linear(most);
    let bottom = TOP + ROW * rows.len() as f64;
    axis.draw(canvas, TOP, bottom, "ms, medians of the phases");
    let mut names = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let y = TOP + ROW * at as f64;
        canvas.text(LEFT - 12.0, y + ROW / 2.0 + 5.0, "end", 14.0, INK, &row.name);
        let mut sum = 0.0;
        for (index, (label, value)) in medians(row).into_iter().enumerate() {
            let (from, to) = (axis.x(sum), axis.x(sum + value));
            canvas.rect(from, y + 7.0, to - from, ROW - 14.0, SHADES[index % 4]);
            sum += value;
            if at == 0 {
                names.push((label, SHADES[index % 4]));
            }
        }
        canvas.text(axis.x(sum) + 10.0, y + ROW / 2.0 + 5.0, "start", 13.0, INK, &figure(sum));
    }
    legend(
        canvas,
        bottom + 50.0,
        &names.iter().map(|(name, shade)| (name.as_str(), *shade)).collect::<Vec<_>>(),
    )
}

/// The steps of one launch, each beginning where the last one ended.
fn waterfall(canvas: &mut Canvas, section: &Section) -> f64 {
    const STEP: f64 = 26.0;
    let steps: Vec<(&str, f64)> = section
        .rows
        .iter()
        .filter_map(|row| Some((row.name.as_str(), ms(median(row.samples("step")?)?))))
        .collect();
    let axis = Axis::linear(steps.iter().map(|(_, value)| value).sum::<f64>().max(0.1));
    let bottom = TOP + STEP * steps.len() as f64;
    axis.draw(canvas, TOP, bottom, "ms, medians of the steps");
    let mut sum = 0.0;
    for (at, (name, value)) in steps.into_iter().enumerate() {
        let y = TOP + STEP * at as f64;
        let (from, to) = (axis.x(sum), axis.x(sum + value));
        canvas.text(LEFT - 12.0, y + STEP / 2.0 + 5.0, "end", 13.0, INK, name);
        canvas.rect(from, y + 5.0, (to - from).max(1.5), STEP - 10.0, FLAME);
        canvas.text(to + 8.0, y + STEP / 2.0 + 5.0, "start", 12.0, PALE, &figure(value));
        sum += value;
    }
    bottom + 48.0
}

pub(crate) fn legend(canvas: &mut Canvas, top: f64, entries: &[(&str, &str)]) -> f64 {
    let mut x = LEFT;
    let mut y = top;
    for (name, colour) in entries {
        let width = 34.0 + 8.0 * name.len() as f64;
        if x + width > WIDTH - 20.0 {
            x = LEFT;
            y += 22.0;
        }
        canvas.rect(x, y, 14.0, 14.0, colour);
        canvas.text(x + 20.0, y + 12.0, "start", 13.0, INK, name);
        x += width;
    }
    y + 30.0
}

fn figure(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.1} ms") }
}

pub(crate) struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// Logarithmic where the values span more than a factor of eight.
    pub(crate) fn new(least: f64, most: f64) -> Self {
        let least = least.max(0.01);
        if most / least <= 8.0 {
            return Self::linear(most);
        }
        let low = ticks(least / 10.0, least).last().copied().unwrap_or(least);
        Self { low, high: most * 1.1, log: true }
    }

    fn linear(most: f64) -> Self {
        Self { low: 0.0, high: most * 1.08, log: false }
    }

    pub(crate) fn x(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            value / self.high
        };
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    pub(crate) fn draw(&self, canvas: &mut Canvas, top: f64, bottom: f64, unit: &str) {
        let marks = if self.log { ticks(self.low, self.high) } else { even_ticks(self.high) };
        for mark in marks {
            let x = self.x(mark);
            canvas.line(x, top, x, bottom, GRID, 1.0);
            let digits = if mark == 0.0 || mark >= 1.0 && mark.fract() < 1e-9 { 0 } else { 2 };
            let text = format!("{mark:.digits$}");
            let text = if text.contains('.') { text.trim_end_matches('0') } else { &text };
            canvas.text(x, bottom + 18.0, "middle", 12.0, PALE, text);
        }
        canvas.text(
            WIDTH - RIGHT,
            bottom + 36.0,
            "end",
            12.0,
            PALE,
            &if self.log { format!("{unit}; log scale") } else { unit.into() },
        );
    }
}

/// 1, 2 and 5 of each decade.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let steps = (-3..6).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    steps.filter(|tick| *tick >= low * 0.999 && *tick <= high * 1.001).collect()
}

fn even_ticks(high: f64) -> Vec<f64> {
    let step = ticks(high / 10.0, high).first().copied().unwrap_or(high);
    (0..=10).map(|at| f64::from(at) * step).filter(|tick| *tick <= high).collect()
}

#[derive(Default)]
pub(crate) struct Canvas(String);

impl Canvas {
    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        let width = width.max(0.5);
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" fill=\"{colour}\"/>"
        );
    }

    pub(crate) fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, colour: &str, width: f64) {
        let _ = writeln!(
            self.0,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        );
    }

    pub(crate) fn circle(&mut self, x: f64, y: f64, radius: f64, colour: &str) {
        let _ = writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>");
    }

    pub(crate) fn text(&mut self, x: f64, y: f64, anchor: &str, size: f64, colour: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"{colour}\">{text}</text>"
        );
    }

    pub(crate) fn finish(mut self, title: &str, about: &str, height: f64) -> String {
        self.text(28.0, 36.0, "start", 19.0, INK, title);
        self.text(28.0, 58.0, "start", 12.5, PALE, about);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
             height=\"{height:.0}\" font-family=\"system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, \
             sans-serif\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.0
        )
    }
}
