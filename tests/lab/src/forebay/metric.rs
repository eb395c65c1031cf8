//! Reads the Prometheus text format.

/// One scrape: version 0.0.4 of the format.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// Sum over the samples of metric `name` whose labels hold every label and value of `labels`;
    /// `None` when there is no such sample.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut total = None;
        for line in self.0.lines() {
            let Some(rest) = line
                .strip_prefix(name)
                .filter(|rest| rest.starts_with(['{', ' ']))
            else {
                continue;
            };
            let wanted = |(label, value): &(&str, &str)| {
                let pair = format!("{label}=\"{value}\"");
                [format!("{{{pair}"), format!(",{pair}")]
                    .iter()
                    .any(|pair| rest.contains(pair))
            };
            if labels.iter().all(wanted)
                && let Some(value) = rest
                    .rsplit(' ')
                    .next()
                    .and_then(|value| value.parse::<f64>().ok())
            {
                *total.get_or_insert(0.0) += value;
            }
        }
        total
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_whole_names_and_labels() {
        let text = "# TYPE a_total counter\na_total{w=\"0\",r=\"x\"} 1\na_total{w=\"1\",r=\"x\"} 2\na_totals 9\nb 3\n";
        let metrics = Metrics::new(text.to_owned());
        for (name, labels, value) in [
            ("a_total", &[("r", "x")][..], Some(3.0)),
            ("a_total", &[("w", "1")], Some(2.0)),
            ("a_total", &[("w", "2")], None),
            ("b", &[], Some(3.0)),
            ("a", &[], None),
        ] {
            assert_eq!(metrics.sum(name, labels), value, "{name} {labels:?}");
        }
    }
}
