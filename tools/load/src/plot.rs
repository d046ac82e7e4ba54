//! A plot of lines over two logarithmic axes, as an SVG file that opens anywhere.

use std::fmt::Write;

/// Width of a letter, as far as can be known here.
const LETTER: f64 = 7.0;
/// Width of the plot itself.
const PLOT: f64 = 550.0;
/// Height of the picture, and the space around the plot for numbers and names.
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 80.0;
const RIGHT_MIN: f64 = 130.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;
/// Colours that people with every kind of sight tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/// One line: its name and its points, by rising x; all coordinates above 0.
pub struct Line {
    /// What the line is.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// What stands beside the plot.
pub struct Titles<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below the x axis.
    pub x: &'a str,
    /// Beside the y axis.
    pub y: &'a str,
}

/// Draws the lines.
#[must_use]
pub fn svg(titles: &Titles<'_>, lines: &[Line]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a name's length")]
    let longest = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0) as f64;
    let right = (longest * LETTER + 24.0).max(RIGHT_MIN);
    let width = LEFT + PLOT + right;
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_axis = Axis::over(points().map(|(x, _)| *x), LEFT, width - right);
    let y_axis = Axis::over(points().map(|(_, y)| *y), HEIGHT - BOTTOM, TOP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let middle = f64::midpoint(LEFT, width - right);
    text(&mut out, (middle, 22.0), "middle", titles.title);
    text(&mut out, (middle, HEIGHT - 14.0), "middle", titles.x);
    let up = f64::midpoint(TOP, HEIGHT - BOTTOM);
    push(
        &mut out,
        format_args!(
            "<text transform=\"translate(18 {up}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(titles.y)
        ),
    );
    for x in x_axis.decades() {
        let at = x_axis.at(x);
        rule(&mut out, (at, TOP), (at, HEIGHT - BOTTOM));
        text(&mut out, (at, HEIGHT - BOTTOM + 18.0), "middle", &short(x));
    }
    for y in y_axis.decades() {
        let at = y_axis.at(y);
        rule(&mut out, (LEFT, at), (width - right, at));
        text(&mut out, (LEFT - 8.0, at + 4.0), "end", &short(y));
    }
    for (index, (line, colour)) in lines.iter().zip(COLOURS.into_iter().cycle()).enumerate() {
        let place = |&(x, y): &(f64, f64)| format!("{:.1},{:.1}", x_axis.at(x), y_axis.at(y));
        let path: Vec<String> = line.points.iter().map(place).collect();
        push(
            &mut out,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{} points=\"{}\"/>",
                // A colour that comes again is dashed, and dotted the next time.
                ["", " stroke-dasharray=\"6 3\"", " stroke-dasharray=\"2 3\""]
                    [index / COLOURS.len() % 3],
                path.join(" ")
            ),
        );
        for point in &line.points {
            push(
                &mut out,
                format_args!(
                    "<circle r=\"3\" fill=\"{colour}\" cx=\"{:.1}\" cy=\"{:.1}\"/>",
                    x_axis.at(point.0),
                    y_axis.at(point.1)
                ),
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful of lines")]
        let at = (width - right + 12.0, TOP + 12.0 + 20.0 * index as f64);
        push(
            &mut out,
            format_args!(
                "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>",
                at.0,
                at.1,
                escaped(&line.name)
            ),
        );
    }
    out.push_str("</svg>\n");
    out
}

/// A logarithmic axis, from whole decade to whole decade.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (low, high) = values
            .map(f64::log10)
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        // Without a value, and for one alone, there is a decade to draw.
        let (low, high) = if low <= high { (low.floor(), high.ceil()) } else { (0.0, 1.0) };
        Self { low, high: high.max(low + 1.0), start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - self.low) / (self.high - self.low);
        self.start + part * (self.end - self.start)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low, self.high);
        std::iter::successors(Some(low), |power| Some(power + 1.0))
            .take_while(move |power| *power <= high)
            .map(|power| 10f64.powf(power))
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a string takes it");
}

fn rule(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    push(
        out,
        format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
            from.0, from.1, to.0, to.1
        ),
    );
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let text = escaped(text);
    push(
        out,
        format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            at.0, at.1
        ),
    );
}

/// Returns a text as it stands between tags, or in quotes within one.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Writes a power of ten as people do: 1, 10, 100, 1 k, 10 k, .. 1 M.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{:.0} M", value / 1e6),
        1e3.. => format!("{:.0} k", value / 1e3),
        1.0.. => format!("{value:.0}"),
        _ => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stand_where_their_decades_are() {
        let lines = [Line { name: "a<b".into(), points: vec![(1.0, 100.0), (100.0, 10_000.0)] }];
        let drawn = svg(&Titles { title: "t", x: "x", y: "y" }, &lines);
        // Both points are corners of the plot: whole decades.
        assert!(drawn.contains("points=\"80.0,400.0 630.0,40.0\""), "{drawn}");
        assert!(drawn.contains(">a&lt;b<") && drawn.contains(">10 k<") && drawn.contains(">10<"));
    }

    #[test]
    fn nothing_and_a_single_point_are_drawn_too() {
        let titles = Titles { title: "", x: "", y: "" };
        let one = [Line { name: String::new(), points: vec![(10.0, 10.0)] }];
        for drawn in [svg(&titles, &[]), svg(&titles, &one)] {
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }
}
