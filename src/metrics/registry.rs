//! The registry: values by name and labels, and their text.

use std::collections::BTreeMap;

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry, TextEncoder,
};

use super::table::{Kind, Name, ROWS};

/// Bounds of every histogram, in seconds.
const BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// All metrics of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    gauges: BTreeMap<Name, GaugeVec>,
    counters: BTreeMap<Name, IntCounterVec>,
    histograms: BTreeMap<Name, HistogramVec>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let (mut gauges, mut counters) = (BTreeMap::new(), BTreeMap::new());
        let mut histograms = BTreeMap::new();
        for row in ROWS {
            let opts = Opts::new(row.name, row.help);
            // The table's names are valid and differ, as its test says.
            match row.kind {
                Kind::Gauge => {
                    if let Ok(gauge) = GaugeVec::new(opts, row.labels) {
                        let _ = registry.register(Box::new(gauge.clone()));
                        gauges.insert(row.id, gauge);
                    }
                }
                Kind::Counter => {
                    if let Ok(counter) = IntCounterVec::new(opts, row.labels) {
                        let _ = registry.register(Box::new(counter.clone()));
                        counters.insert(row.id, counter);
                    }
                }
                Kind::Histogram => {
                    let opts = HistogramOpts::new(row.name, row.help).buckets(BUCKETS.to_vec());
                    if let Ok(histogram) = HistogramVec::new(opts, row.labels) {
                        let _ = registry.register(Box::new(histogram.clone()));
                        histograms.insert(row.id, histogram);
                    }
                }
            }
        }
        Self { registry, gauges, counters, histograms }
    }

    /// A counter with its labels, to be kept by whoever counts.
    pub(crate) fn counter(&self, name: Name, labels: &[&str]) -> Option<IntCounter> {
        self.counters.get(&name)?.get_metric_with_label_values(labels).ok()
    }

    /// A histogram with its labels, to be kept by whoever measures.
    pub(crate) fn histogram(&self, name: Name, labels: &[&str]) -> Option<Histogram> {
        self.histograms.get(&name)?.get_metric_with_label_values(labels).ok()
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, name: Name, labels: &[&str], value: f64) {
        if let Some(gauge) = self.gauges.get(&name)
            && let Ok(gauge) = gauge.get_metric_with_label_values(labels)
        {
            gauge.set(value);
        }
    }

    /// Forgets all gauges, so that what is gone is not shown any more.
    pub(crate) fn clear_gauges(&self) {
        self.gauges.values().for_each(GaugeVec::reset);
    }

    /// The text for Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics can't be shown");
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_table_can_be_set_and_shown() {
        let metrics = Metrics::new();
        for row in ROWS {
            let labels: Vec<&str> = row.labels.iter().map(|_| "x").collect();
            match row.kind {
                Kind::Gauge => metrics.set(row.id, &labels, 1.0),
                Kind::Counter => metrics.counter(row.id, &labels).expect("counter").inc(),
                Kind::Histogram => {
                    metrics.histogram(row.id, &labels).expect("histogram").observe(1.0);
                }
            }
        }
        let text = metrics.text();
        assert!(ROWS.iter().all(|row| text.contains(&format!("# HELP {} ", row.name))), "{text}");
    }
}
