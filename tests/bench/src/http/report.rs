//! Shows the figures: a table, JSON, and a bar chart.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};

use super::{proxy::Proxy, summary::Figures};

/// Width of a row's longest bar, and height of one, in pixels.
const BAR: (f64, f64) = (400.0, 22.0);

/// The figures as a table for a terminal, a paragraph per row.
pub(super) fn table(figures: &[Figures]) -> String {
    let mut table = format!(
        "\n{:<12} {:<10} {:<8} {:>9} {:<17} {:>8} {:>12} {:>9} {:>8} {:>8} {:>7}\n",
        "row",
        "proxy",
        "version",
        "cost",
        "",
        "x nginx",
        "x copy loop",
        "per s",
        "p50 ms",
        "p99 ms",
        "failed"
    );
    let number = |value: Option<f64>, scale: f64| {
        value.map_or("-".to_owned(), |value| format!("{:.2}", value / scale))
    };
    let mut last = figures.first().map(|figures| &figures.row);
    for figures in figures {
        if last.replace(&figures.row) != Some(&figures.row) {
            table.push('\n');
        }
        let rate = figures
            .rate
            .map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        // Writing to memory cannot fail.
        let _ = writeln!(
            table,
            "{:<12} {:<10} {:<8} {:>9.2} {:<17} {:>8} {:>12} {:>9} {:>8} {:>8} {:>7}",
            figures.row,
            figures.proxy,
            figures.version,
            figures.cost,
            figures.unit,
            number(figures.to_nginx, 1.0),
            number(figures.to_copy_loop, 1.0),
            rate,
            number(figures.p50_us, 1e3),
            number(figures.p99_us, 1e3),
            figures.failed
        );
    }
    table
}

/// Writes `http.json` and `http.svg` into `folder`.
///
/// # Errors
/// It cannot be written to.
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

/// Costs as horizontal bars, Forebay's in another colour. Each row has a scale of its own: a MiB
/// would leave nothing to see of the rest.
fn chart(figures: &[Figures]) -> String {
    let rows: Vec<&[Figures]> = figures.chunk_by(|one, next| one.row == next.row).collect();
    let height = (figures.len() + rows.len() + 2) as f64 * BAR.1;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut line = 0.4;
    for row in rows {
        let longest = row
            .iter()
            .map(|figures| figures.cost)
            .fold(f64::MIN_POSITIVE, f64::max);
        if let Some(first) = row.first() {
            let _ = writeln!(
                svg,
                "<text x=\"10\" y=\"{:.1}\" font-weight=\"bold\">{}: {} (less is better)</text>",
                (line + 0.65) * BAR.1,
                first.row,
                first.unit
            );
        }
        for figures in row {
            line += 1.0;
            bar(&mut svg, line * BAR.1, figures, longest);
        }
        line += 1.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(svg: &mut String, top: f64, figures: &Figures, longest: f64) {
    let colour = if figures.proxy == Proxy::Forebay.to_string() {
        "#0b6e99"
    } else {
        "#b8c4cc"
    };
    let width = (figures.cost / longest * BAR.0).max(0.0);
    // Writing to memory cannot fail.
    let _ = writeln!(
        svg,
        "<text x=\"20\" y=\"{0:.1}\">{1}</text><rect x=\"140\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{2}\" \
         fill=\"{colour}\"/><text x=\"{3:.1}\" y=\"{0:.1}\">{4:.1}</text>",
        top + BAR.1 * 0.65,
        figures.proxy,
        BAR.1 * 0.8,
        width + 146.0,
        figures.cost
    );
}
