//! Tables for people, JSON for programs.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

/// Progress of long work on a terminal's stderr.
pub(super) fn spinner(template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Rows under named columns.
pub(super) struct Rows {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    pub(super) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Vec<Value>) {
        self.rows.push(row);
    }

    pub(super) fn print(self, format: Format) {
        match format {
            Format::Json => {
                let object = |row: Vec<Value>| {
                    let fields = self.columns.iter().map(|name| (*name).to_owned()).zip(row);
                    Value::Object(fields.collect::<Map<_, _>>())
                };
                println!("{}", Value::Array(self.rows.into_iter().map(object).collect()));
            }
            Format::Table => {
                let mut table = Table::new();
                table.load_style(presets::NOTHING);
                table.set_header(self.columns.iter().map(|name| name.to_uppercase()));
                for row in self.rows {
                    table.add_row(row.iter().map(cell));
                }
                for line in table.to_string().lines() {
                    println!("{}", line.trim_end());
                }
            }
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
