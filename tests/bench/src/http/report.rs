//! Shows the figures: a table, JSON, and a bar chart.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};

use super::Figures;

/// Width of the longest bar, and height of one, in pixels.
const BAR: (f64, f64) = (420.0, 22.0);

/// The figures as a table for a terminal.
pub(super) fn table(figures: &[Figures]) -> String {
    let mut table = String::from(
        "\nproxy     version  protocol  CPU µs/request  × nginx  requests/s   p50 ms   p99 ms  failed\n",
    );
    let number = |value: Option<f64>, scale: f64| {
        value.map_or("-".to_owned(), |value| format!("{:.2}", value / scale))
    };
    for row in figures {
        // Writing to memory cannot fail.
        let _ = writeln!(
            table,
            "{:<9} {:<8} {:<8} {:>15.2} {:>8} {:>11.0} {:>8} {:>8} {:>7}",
            row.proxy,
            row.version,
            row.protocol,
            row.cpu_us,
            number(row.to_nginx, 1.0),
            row.rate,
            number(row.p50_us, 1e3),
            number(row.p99_us, 1e3),
            row.failed
        );
    }
    table
}

/// Writes `http.json` and `http.svg` into `folder`.
pub(super) fn write(folder: &Path, figures: &[Figures]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for (name, text) in [
        ("http.json", serde_json::to_string_pretty(figures)?),
        ("http.svg", chart(figures)),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// CPU a request as horizontal bars, Forebay's in another colour.
fn chart(figures: &[Figures]) -> String {
    let longest = figures
        .iter()
        .map(|row| row.cpu_us)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = (figures.len() as f64 + 2.0) * BAR.1;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\" font-weight=\"bold\">CPU time a request, in µs (less is better)</text>\n"
    );
    for (place, row) in figures.iter().enumerate() {
        let top = (place as f64 + 1.4) * BAR.1;
        let colour = if row.proxy == "forebay" {
            "#0b6e99"
        } else {
            "#b8c4cc"
        };
        let width = row.cpu_us / longest * BAR.0;
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{0:.1}\">{1} {2}</text><rect x=\"140\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{3}\" \
             fill=\"{colour}\"/><text x=\"{4:.1}\" y=\"{0:.1}\">{5:.1}</text>",
            top + BAR.1 * 0.65,
            row.proxy,
            row.protocol,
            BAR.1 * 0.8,
            width + 146.0,
            row.cpu_us
        );
    }
    svg.push_str("</svg>\n");
    svg
}
