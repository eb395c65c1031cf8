//! Sums the rounds up: a line of figures per row and proxy.

use serde::Serialize;

use super::{proxy::Proxy, row::Row, sample::Sample};
use crate::median::median;

/// All samples of one proxy in one row, in the order of the rounds.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) row: Row,
    pub(super) proxy: Proxy,
    pub(super) version: String,
    pub(super) samples: Vec<Sample>,
}

/// Median figures of one proxy in one row.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    /// What was measured.
    pub(super) row: String,
    /// Name of the proxy.
    pub(super) proxy: String,
    /// Version as the proxy says it.
    pub(super) version: String,
    /// CPU time, user and system, of all threads; or memory.
    pub(super) cost: f64,
    /// What the cost is given in.
    pub(super) unit: &'static str,
    /// Cost as a ratio to nginx: the median of the rounds' own ratios, since both share a round's
    /// weather.
    pub(super) to_nginx: Option<f64>,
    /// Cost as a ratio to the copy loop, likewise.
    pub(super) to_copy_loop: Option<f64>,
    /// Requests, connections or messages per second.
    pub(super) rate: Option<f64>,
    /// Median latency, in microseconds.
    pub(super) p50_us: Option<f64>,
    /// 99th percentile of the latency, in microseconds.
    pub(super) p99_us: Option<f64>,
    /// What failed or was answered otherwise than it should be, over all rounds.
    pub(super) failed: u64,
}

/// Figures in the order of the cells.
pub(super) fn summarise(cells: &[Cell]) -> Vec<Figures> {
    let of = |cell: &Cell, peer| {
        let base = cells
            .iter()
            .find(|base| base.row == cell.row && base.proxy == peer)?;
        ratio(&cell.samples, &base.samples)
    };
    let figures = |cell: &Cell| {
        let samples = &cell.samples;
        Figures {
            row: cell.row.to_string(),
            proxy: cell.proxy.to_string(),
            version: cell.version.clone(),
            cost: median(samples.iter().map(|sample| sample.cost)).unwrap_or(f64::NAN),
            unit: cell.row.unit(),
            to_nginx: of(cell, Proxy::Nginx),
            to_copy_loop: of(cell, Proxy::CopyLoop),
            rate: median(samples.iter().filter_map(|sample| sample.rate)),
            p50_us: median(samples.iter().filter_map(|sample| sample.p50_us)),
            p99_us: median(samples.iter().filter_map(|sample| sample.p99_us)),
            failed: samples.iter().map(|sample| sample.failed).sum(),
        }
    };
    cells.iter().map(figures).collect()
}

fn ratio(own: &[Sample], base: &[Sample]) -> Option<f64> {
    median(own.iter().zip(base).map(|(own, base)| own.cost / base.cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(row: Row, proxy: Proxy, costs: &[f64]) -> Cell {
        let sample = |&cost: &f64| Sample {
            cost,
            rate: Some(1.0),
            p50_us: None,
            p99_us: None,
            failed: 1,
        };
        Cell {
            row,
            proxy,
            version: String::new(),
            samples: costs.iter().map(sample).collect(),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_a_row() {
        // Each round is twice as slow as the last, for everybody.
        let cells = [
            cell(Row::Http1, Proxy::CopyLoop, &[1.0, 2.0, 4.0]),
            cell(Row::Http1, Proxy::Nginx, &[4.0, 8.0, 16.0]),
            cell(Row::Http1, Proxy::Forebay, &[2.0, 4.0, 8.0]),
            cell(Row::Idle, Proxy::Nginx, &[10.0]),
            cell(Row::Idle, Proxy::Forebay, &[5.0]),
        ];
        let figures = summarise(&cells);
        let ratios: Vec<_> = figures
            .iter()
            .map(|figures| (figures.cost, figures.to_nginx, figures.to_copy_loop))
            .collect();
        assert_eq!(
            ratios,
            [
                (2.0, Some(0.25), Some(1.0)),
                (8.0, Some(1.0), Some(4.0)),
                (4.0, Some(0.5), Some(2.0)),
                (10.0, Some(1.0), None),
                (5.0, Some(0.5), None),
            ]
        );
        assert_eq!(figures[0].failed, 3);
    }
}
