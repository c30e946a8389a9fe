//! Tables for people, JSON for programs.
//!
//! Invariants: what a broker or a client named something reaches a terminal as text, never as something that the terminal obeys.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal as _, Write as _, stderr, stdout};

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

/// Writes a line to stdout. Where nobody reads it any more it is nobody's loss; another failure is told.
pub(super) fn say(line: &str) {
    let mut out = stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    if let Err(error) = written.as_ref()
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = writeln!(stderr(), "strandline: stdout: {error}");
    }
}

/// Progress of long work on a terminal's stderr.
pub(super) fn spinner(template: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// A text as it may be shown: what a terminal would obey, or what would break a line, is spelled out.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| {
        // Controls, ends of lines and paragraphs, and what turns the direction of writing.
        c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_obeyed(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
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
                say!("{}", Value::Array(self.rows.into_iter().map(object).collect()));
            }
            Format::Table => {
                let mut table = Table::new();
                table.load_style(presets::NOTHING);
                table.set_header(self.columns.iter().map(|name| name.to_uppercase()));
                for row in self.rows {
                    table.add_row(row.iter().map(cell));
                }
                for line in table.to_string().lines() {
                    say!("{}", line.trim_end());
                }
            }
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text).into_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{cell, plain};

    #[test]
    fn a_name_can_not_tell_the_terminal_anything() {
        assert_eq!(plain("orders-1 für ü"), "orders-1 für ü");
        let nasty = "a\x1b[31mred\r\nline\ttab\u{7f}\u{9b}2J\u{202e}txt";
        let shown = "a\\u{1b}[31mred\\r\\nline\\ttab\\u{7f}\\u{9b}2J\\u{202e}txt";
        assert_eq!(plain(nasty), shown);
        assert_eq!(cell(&json!([nasty, 1, null])), format!("{shown},1,-"));
    }
}
