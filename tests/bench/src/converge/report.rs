//! Percentiles as a table, everything as JSON, and the latencies as a plot.

#![allow(clippy::print_stdout, reason = "a person waits, and reads the figures")]

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};

use super::measure::Figures;
use crate::{median::median, percentile::percentile};

/// The figures of every site.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Figures>);

impl Report {
    pub(super) fn push(&mut self, figures: Figures) {
        self.0.push(figures);
    }

    /// Writes `converge.json` and `converge.svg`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(&self.0)?;
        for (name, text) in [("converge.json", json), ("converge.svg", self.plot())] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            println!("{}", path.display());
        }
        Ok(())
    }

    /// The share of edits that have taken effect, over the time since they were written.
    fn plot(&self) -> String {
        const W: f64 = 720.0;
        const H: f64 = 360.0;
        const MILLISECONDS: f64 = 100.0;
        const COLOURS: [&str; 6] = ["#0b6", "#06b", "#b60", "#b06", "#60b", "#6b0"];
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-50 -10 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{W}\" height=\"{H}\" fill=\"none\" stroke=\"#888\"/>\n",
            W + 70.0,
            H + 60.0
        );
        for tick in (0..=100).step_by(20) {
            let (x, y) = (f64::from(tick) / 100.0 * W, H - f64::from(tick) / 100.0 * H);
            svg.push_str(&format!(
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{tick} ms</text>\n\
                 <text x=\"-8\" y=\"{y}\" text-anchor=\"end\">{tick} %</text>\n",
                H + 18.0
            ));
        }
        let lines = self.0.iter().flat_map(|figures| {
            let name = format!("{} Ingresses, {}", figures.ingresses, figures.source);
            [
                (format!("edit: {name}"), &figures.edit_ms),
                (format!("endpoints: {name}"), &figures.endpoint_ms),
            ]
        });
        for (number, (name, latencies)) in lines.enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let dash = number / COLOURS.len() * 4;
            let point = |(at, ms): (usize, &f64)| {
                let share = (at + 1) as f64 / latencies.len() as f64;
                format!(
                    "{:.1},{:.1}",
                    (ms / MILLISECONDS).min(1.0) * W,
                    H - share * H
                )
            };
            let points: Vec<_> = latencies.iter().enumerate().map(point).collect();
            svg.push_str(&format!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-dasharray=\"{dash}\" points=\"{}\"/>\n\
                 <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>\n",
                points.join(" "),
                W - 300.0,
                H - 20.0 - 16.0 * number as f64
            ));
        }
        svg + "</svg>\n"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for figures in &self.0 {
            writeln!(
                f,
                "\n{} Ingresses, {}\n  cold start to ready      {:8.0} ms\n  memory at rest           {:8.1} MiB\n  memory after the edits   {:8.1} MiB",
                figures.ingresses,
                figures.source,
                figures.cold_start_ms,
                figures.memory_mib,
                figures.memory_after_mib
            )?;
            for (name, values) in [
                ("edit to effect", &figures.edit_ms),
                ("endpoints to effect", &figures.endpoint_ms),
                ("requests without edits", &figures.calm_ms),
                ("requests under edits", &figures.storm_ms),
            ] {
                let of = |percent| percentile(values, percent);
                if let (Some(p50), Some(p90), Some(p99), Some(max)) =
                    (of(50), of(90), of(99), of(100))
                {
                    writeln!(
                        f,
                        "  {name:24} p50 {p50:7.2}  p90 {p90:7.2}  p99 {p99:7.2}  max {max:7.2} ms"
                    )?;
                }
            }
            let ratios = figures.storm_ratios.iter().copied();
            if let Some(ratio) = median(ratios) {
                writeln!(
                    f,
                    "  p99 under edits          {ratio:8.2} × without, median of the rounds"
                )?;
            }
            writeln!(
                f,
                "  CPU per edit             {:8.0} µs\n  CPU per endpoint change  {:8.0} µs\n  hosts compiled by endpoint changes {}",
                figures.edit_cpu_us, figures.endpoint_cpu_us, figures.compiled_by_endpoints
            )?;
        }
        for source in ["api", "folder"] {
            let mut of = self.0.iter().filter(|figures| figures.source == source);
            if let (Some(small), Some(large)) = (of.next(), of.next_back()) {
                writeln!(
                    f,
                    "\n{source}: {} beside {} Ingresses: CPU per edit {:.2} ×, per endpoint change {:.2} ×",
                    large.ingresses,
                    small.ingresses,
                    large.edit_cpu_us / small.edit_cpu_us,
                    large.endpoint_cpu_us / small.endpoint_cpu_us
                )?;
            }
        }
        Ok(())
    }
}
