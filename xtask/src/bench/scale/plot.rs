//! Charts of cost and memory over the size of the work, as an SVG: a few lines on logarithmic axes need
//! no library.

use std::fmt::Write as _;

/// The size of a chart with its margins, in pixels.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 64.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 44.0;
/// Charts side by side.
const COLUMNS: usize = 2;
const COST: &str = "#1f6fb2";
const MEMORY: &str = "#c25b12";

/// What was measured at one size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) size: f64,
    /// Microseconds for a message.
    pub(super) cost: f64,
    /// MiB.
    pub(super) memory: f64,
}

/// One chart.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) points: Vec<Point>,
}

/// A logarithmic axis from one power of ten to another.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .map(exponent)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if low > high {
            return Self { low: 0, high: 1 };
        }
        let low = low.floor() as i32;
        Self {
            low,
            high: (high.ceil() as i32).max(low + 1),
        }
    }

    /// Where a value is between the ends, 0 to 1.
    fn place(self, value: f64) -> f64 {
        (exponent(value) - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| 10_f64.powi(power))
    }
}

/// The power of ten of a value; nothing at all stands where 1 does.
fn exponent(value: f64) -> f64 {
    if value > 0.0 { value.log10() } else { 0.0 }
}

/// All charts in one picture.
pub(super) fn svg(charts: &[Chart]) -> String {
    let rows = charts.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * rows as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, chart) in charts.iter().enumerate() {
        let (x, y) = (
            (index % COLUMNS) as f64 * WIDTH,
            (index / COLUMNS) as f64 * HEIGHT,
        );
        // Writing to a string does not fail.
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        draw(chart, &mut out);
        out += "</g>\n";
    }
    out += "</svg>\n";
    out
}

fn draw(chart: &Chart, out: &mut String) {
    let sizes = Axis::new(chart.points.iter().map(|point| point.size));
    let costs = Axis::new(chart.points.iter().map(|point| point.cost));
    let memories = Axis::new(chart.points.iter().map(|point| point.memory));
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = |size: f64| LEFT + sizes.place(size) * (right - LEFT);
    let y = |share: f64| bottom - share * (bottom - TOP);
    let mut text = |x: f64, y: f64, anchor: &str, colour: &str, text: &str| {
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
            escaped(text)
        );
    };
    text(WIDTH / 2.0, HEIGHT - 8.0, "middle", "black", &chart.title);
    text(LEFT, TOP - 14.0, "middle", COST, "us a message");
    text(right, TOP - 14.0, "middle", MEMORY, "MiB");
    for size in sizes.ticks() {
        text(x(size), bottom + 16.0, "middle", "black", &number(size));
    }
    for cost in costs.ticks() {
        text(
            LEFT - 6.0,
            y(costs.place(cost)) + 4.0,
            "end",
            COST,
            &number(cost),
        );
    }
    for memory in memories.ticks() {
        let height = y(memories.place(memory)) + 4.0;
        text(right + 6.0, height, "start", MEMORY, &number(memory));
    }
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#999\"/>",
        right - LEFT,
        bottom - TOP
    );
    let mut line = |colour: &str, share: &dyn Fn(&Point) -> f64| {
        let places: Vec<(f64, f64)> = chart
            .points
            .iter()
            .map(|point| (x(point.size), y(share(point))))
            .collect();
        let path: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in places {
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
    };
    line(COST, &|point| costs.place(point.cost));
    line(MEMORY, &|point| memories.place(point.memory));
}

/// A power of ten, short.
fn number(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e3..1e6 => format!("{}k", value / 1e3),
        1.0..1e3 => format!("{value:.0}"),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_powers_of_ten() {
        let axis = Axis::new([0.03, 7.0].into_iter());
        assert_eq!((axis.low, axis.high), (-2, 1));
        assert_eq!(axis.place(10.0), 1.0);
        assert_eq!(
            axis.ticks().map(number).collect::<Vec<_>>(),
            ["0.01", "0.1", "1", "10"]
        );
        let flat = Axis::new([100.0, 100.0].into_iter());
        assert_eq!((flat.low, flat.high), (2, 3));
        assert_eq!(Axis::new([0.0, 1e6].into_iter()).place(0.0), 0.0);
        assert_eq!(Axis::new(std::iter::empty()).high, 1);
    }

    #[test]
    fn every_point_is_drawn_twice() {
        let chart = |count: usize| Chart {
            title: "a < b & c".to_owned(),
            points: (0..count)
                .map(|index| Point {
                    size: 10_f64.powi(index as i32),
                    cost: 0.1,
                    memory: 20.0,
                })
                .collect(),
        };
        let svg = svg(&[chart(4), chart(0), chart(3)]);
        assert_eq!(svg.matches("<circle").count(), 14);
        assert_eq!(svg.matches("<g ").count(), 3);
        assert!(svg.contains("a &lt; b &amp; c") && !svg.contains("NaN"));
    }
}
