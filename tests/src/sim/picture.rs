//! Hit rate against memory, a line a contender.

use super::figure;
use crate::bench::report::Section;
use crate::bench::svg::{Axis, Canvas, INK, LEFT, PALE, RIGHT, TOP, WIDTH, legend};

const HEIGHT: f64 = 320.0;
const LINES: [(&str, &str); 3] = [("hearth", "#e4572e"), ("keep 10 min", "#2f6fb3"), ("fixed", "#8e6bbf")];

pub fn draw(section: &Section) -> String {
    let points = |name: &str| -> Vec<(f64, f64)> {
        let rows = section.rows.iter().filter(|row| row.name.starts_with(name));
        rows.filter_map(|row| Some((figure(section, row, "mean MiB")?, figure(section, row, "hits %")?)))
            .collect()
    };
    let all: Vec<(f64, f64)> = LINES.iter().flat_map(|(name, _)| points(name)).collect();
    let least = all.iter().map(|(mib, _)| *mib).fold(f64::MAX, f64::min);
    let most = all.iter().map(|(mib, _)| *mib).fold(0.0, f64::max);
    let mut canvas = Canvas::default();
    let axis = Axis::new(least, most);
    axis.draw(&mut canvas, TOP, TOP + HEIGHT, "MiB parked, on the average");
    for percent in [0.0, 25.0, 50.0, 75.0, 90.0, 100.0] {
        canvas.line(LEFT, height(percent), WIDTH - RIGHT, height(percent), "#e4e8ec", 1.0);
        canvas.text(LEFT - 12.0, height(percent) + 4.0, "end", 12.0, PALE, &format!("{percent:.0} %"));
    }
    canvas.text(LEFT, TOP - 10.0, "start", 13.0, INK, "Launches that found a sandbox");
    for (name, colour) in LINES {
        let mut points = points(name);
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        for pair in points.windows(2) {
            let [from, to] = [pair[0], pair[1]].map(|(mib, percent)| (axis.x(mib), height(percent)));
            canvas.line(from.0, from.1, to.0, to.1, colour, 2.2);
        }
        for (mib, percent) in points {
            canvas.circle(axis.x(mib), height(percent), 3.5, colour);
        }
    }
    let names = [
        ("hearth, by budget", LINES[0].1),
        ("10 min keep-alive, by budget", LINES[1].1),
        ("fixed size a pool", LINES[2].1),
    ];
    let end = legend(&mut canvas, TOP + HEIGHT + 52.0, &names);
    canvas.finish(&section.title, &section.note, end)
}

fn height(percent: f64) -> f64 {
    TOP + HEIGHT * (1.0 - percent / 100.0)
}
