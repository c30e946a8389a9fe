//! What is counted while the broker works, and the text of a scrape.
//!
//! Invariants: what is counted is one atomic addition; everything else belongs to the scrape that asked for it, so that scrapes at
//! the same time show nothing of each other.

use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};

use super::table::{Kind, Name, ROWS};

/// Bounds of every histogram, in seconds.
const BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What this process counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    counters: BTreeMap<Name, IntCounterVec>,
    histograms: BTreeMap<Name, HistogramVec>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let (mut counters, mut histograms) = (BTreeMap::new(), BTreeMap::new());
        for row in ROWS {
            // The table's names are valid and differ, as its test says.
            match row.kind {
                Kind::Counter => {
                    if let Ok(counter) =
                        IntCounterVec::new(Opts::new(row.name, row.help), row.labels)
                    {
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
                Kind::Gauge | Kind::Total => {}
            }
        }
        Self { registry, counters, histograms }
    }

    /// A counter with its labels, to be kept by whoever counts.
    pub(crate) fn counter(&self, name: Name, labels: &[&str]) -> Option<IntCounter> {
        self.counters.get(&name)?.get_metric_with_label_values(labels).ok()
    }

    /// A histogram with its labels, to be kept by whoever measures.
    pub(crate) fn histogram(&self, name: Name, labels: &[&str]) -> Option<Histogram> {
        self.histograms.get(&name)?.get_metric_with_label_values(labels).ok()
    }

    /// The text for Prometheus: what was counted, and what one scrape found.
    pub(crate) fn text(&self, found: Scrape) -> String {
        let mut families = self.registry.gather();
        families.extend(found.families());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics can't be shown");
            String::new()
        })
    }
}

/// What one scrape finds.
#[derive(Debug, Default)]
pub(crate) struct Scrape(BTreeMap<Name, Vec<Metric>>);

impl Scrape {
    /// Shows a gauge, or a total that is counted elsewhere; each series once.
    pub(crate) fn show(&mut self, name: Name, labels: &[&str], value: f64) {
        let row = name.row();
        debug_assert_eq!(row.labels.len(), labels.len(), "labels of {}", row.name);
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut metric = Metric::from_label(row.labels.iter().zip(labels).map(pair).collect());
        if row.kind == Kind::Total {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0.entry(name).or_default().push(metric);
    }

    fn families(self) -> impl Iterator<Item = MetricFamily> {
        self.0.into_iter().map(|(name, metrics)| {
            let (row, mut family) = (name.row(), MetricFamily::default());
            family.set_name(row.name.to_owned());
            family.set_help(row.help.to_owned());
            let is_total = row.kind == Kind::Total;
            family.set_field_type(if is_total { MetricType::COUNTER } else { MetricType::GAUGE });
            family.set_metric(metrics);
            family
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_table_is_shown_once_it_has_a_value() {
        let (metrics, mut scrape) = (Metrics::new(), Scrape::default());
        for row in ROWS {
            let labels: Vec<&str> = row.labels.iter().map(|_| "x").collect();
            match row.kind {
                Kind::Gauge | Kind::Total => scrape.show(row.id, &labels, 1.0),
                Kind::Counter => metrics.counter(row.id, &labels).expect("counter").inc(),
                Kind::Histogram => {
                    metrics.histogram(row.id, &labels).expect("histogram").observe(1.0);
                }
            }
        }
        let text = metrics.text(scrape);
        for row in ROWS {
            let kind = match row.kind {
                Kind::Gauge => "gauge",
                Kind::Total | Kind::Counter => "counter",
                Kind::Histogram => "histogram",
            };
            let head = format!("# HELP {0} {1}\n# TYPE {0} {kind}\n{0}", row.name, row.help);
            assert_eq!(text.matches(&head).count(), 1, "{head}\nin\n{text}");
        }
    }

    #[test]
    fn scrapes_at_the_same_time_each_show_all_of_what_they_found() {
        let metrics = Metrics::new();
        let scrape = || {
            let mut found = Scrape::default();
            for partition in 0..3_000 {
                found.show(Name::ExporterLeader, &["t", &partition.to_string()], 1.0);
            }
            metrics.text(found).lines().filter(|line| line.starts_with("kafka_")).count()
        };
        std::thread::scope(|scope| {
            let scrapers: Vec<_> =
                (0..6).map(|_| scope.spawn(|| [scrape(), scrape(), scrape()])).collect();
            for scraper in scrapers {
                assert_eq!(scraper.join().expect("scraped"), [3_000; 3]);
            }
        });
    }
}
