//! Values as text: what a setting takes, and the one form that it is kept and shown in.
//!
//! Invariants: a canonical text is its own canonical text; whoever reads it needs no other spelling.

use super::table::Kind::{self, Bool, Double, Int, List, Long, Pairs, Str, Word, Words};
use super::throttled::ThrottledReplicas;

/// `-1` stands for the codec's own level; 0 would be no compression.
const GZIP_LEVEL: &str = "compression.gzip.level";
/// Zero would delete everything at once, on a whole broker.
const RETENTION_MS: &str = "log.retention.ms";

/// Checks a value against a row's type and bounds, and gives it as it is kept; the error is Kafka's text.
pub(super) fn canonical(
    name: &str,
    kind: Kind,
    bounds: (i64, i64),
    value: &str,
) -> Result<String, String> {
    let invalid = |value: &str, why: &str| {
        Err(format!("Invalid value {value} for configuration {name}: {why}"))
    };
    let trimmed = value.trim();
    match kind {
        Bool => match trimmed.to_ascii_lowercase().as_str() {
            word @ ("true" | "false") => Ok(word.to_owned()),
            _ => invalid(value, "Expected value to be either true or false"),
        },
        Int | Long => {
            let number = trimmed.parse::<i64>().ok();
            match number.filter(|number| kind == Long || i32::try_from(*number).is_ok()) {
                Some(number) => check_number(name, number, bounds).map(|()| number.to_string()),
                None if kind == Int => invalid(value, "Not a number of type INT"),
                None => invalid(value, "Not a number of type LONG"),
            }
        }
        Double => match fraction(trimmed) {
            Some(number) => check_fraction(name, number, bounds).map(|()| written(number)),
            None => invalid(value, "Not a number of type DOUBLE"),
        },
        Word(words) if !words.contains(&trimmed) => {
            invalid(trimmed, &format!("String must be one of: {}", words.join(", ")))
        }
        Words(words) => listed(name, words, trimmed),
        Pairs if ThrottledReplicas::parse(trimmed).is_none() => invalid(
            &format!("[{}]", items(trimmed).join(", ")),
            &format!(
                "{name} must be the literal '*' or a list of replicas in the following format: \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],..."
            ),
        ),
        Pairs => Ok(items(trimmed).join(",")),
        Str | List | Word(_) => Ok(trimmed.to_owned()),
    }
}

fn check_number(name: &str, number: i64, (low, high): (i64, i64)) -> Result<(), String> {
    let why = if name == GZIP_LEVEL && (number == 0 || number < low || number > high) {
        "Value must be between 1 and 9 or equal to -1".to_owned()
    } else if name == RETENTION_MS && number == 0 {
        return Err(format!(
            "requirement failed: {name} must be unlimited (-1) or, greater than or equal to 1"
        ));
    } else if name.starts_with("log.roll.") && number < low {
        return Err(format!("requirement failed: {name} must be greater than or equal to {low}"));
    } else if number < low {
        format!("Value must be at least {low}")
    } else if number > high {
        format!("Value must be no more than {high}")
    } else {
        return Ok(());
    };
    Err(format!("Invalid value {number} for configuration {name}: {why}"))
}

fn check_fraction(name: &str, number: f64, bounds: (i64, i64)) -> Result<(), String> {
    let why = if number.is_nan() {
        "Value must be a number"
    } else if number < 0.0 {
        "Value must be at least 0"
    } else if bounds == (0, 1) && number > 1.0 {
        "Value must be no more than 1"
    } else {
        return Ok(());
    };
    Err(format!("Invalid value {} for configuration {name}: {why}", written(number)))
}

/// A list of words, each once. Kafka drops what a topic's list has twice, and refuses it in a broker's.
fn listed(name: &str, words: &[&str], text: &str) -> Result<String, String> {
    let mut found: Vec<&str> = Vec::new();
    let all = items(text);
    let is_twice = |(at, item): (usize, &&str)| all.iter().take(at).any(|other| other == item);
    if name.starts_with("log.") && all.iter().enumerate().any(is_twice) {
        return Err(format!("Configuration '{name}' values must not be duplicated."));
    }
    for item in all {
        let is_new = !found.contains(&item);
        if item.is_empty() {
            return Err(format!("Configuration '{name}' values must not be empty."));
        }
        if !words.contains(&item) {
            return Err(format!(
                "Invalid value {item} for configuration {name}: String must be one of: {}",
                words.join(", ")
            ));
        }
        if is_new {
            found.push(item);
        }
    }
    Ok(found.join(","))
}

/// The items of a list; of an empty text there are none.
pub(super) fn items(text: &str) -> Vec<&str> {
    match text.trim() {
        "" => Vec::new(),
        text => text.split(',').map(str::trim).collect(),
    }
}

/// Reads a number as Java does, but for its hexadecimal form.
pub(super) fn fraction(text: &str) -> Option<f64> {
    match text.trim_start_matches(['+', '-']) {
        "NaN" => return Some(f64::NAN),
        "Infinity" if text.len() <= "+Infinity".len() => {
            return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        _ => {}
    }
    let plain = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    let is_plain = plain.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    plain.parse().ok().filter(|_| is_plain)
}

/// Writes a number as Java does: `0.5`, `1.0E-4`.
fn written(number: f64) -> String {
    let size = number.abs();
    if number.is_infinite() {
        return if number < 0.0 { "-Infinity" } else { "Infinity" }.to_owned();
    }
    if size == 0.0 || number.is_nan() || (1e-3..1e7).contains(&size) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let point = if digits.contains('.') { "" } else { ".0" };
    format!("{digits}{point}E{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_has_one_form_and_that_form_is_its_own() {
        const POLICIES: &[&str] = &["compact", "delete"];
        let max = i64::MAX;
        let cases: &[(Kind, (i64, i64), &str, &str)] = &[
            (Long, (-1, max), " +0042 ", "42"),
            (Int, (0, max), "-0", "0"),
            (Bool, (0, 0), " fALSE ", "false"),
            (Double, (0, 1), "25E-3", "0.025"),
            (Double, (0, 1), "2e-4", "2.0E-4"),
            (Double, (0, 1), ".75d", "0.75"),
            (Double, (0, max), "123456789", "1.23456789E8"),
            (Double, (0, max), "1.7976931348623157E308", "1.7976931348623157E308"),
            (Double, (0, 1), "-0.0", "-0.0"),
            (Words(POLICIES), (0, 0), " delete ,compact,delete", "delete,compact"),
            (Words(POLICIES), (0, 0), "  ", ""),
            (Pairs, (0, 0), "3:1, 4:2", "3:1,4:2"),
            (Str, (0, 0), " a b ", "a b"),
        ];
        for (kind, bounds, text, form) in cases {
            assert_eq!(canonical("x", *kind, *bounds, text).as_deref(), Ok(*form), "{text:?}");
            assert_eq!(canonical("x", *kind, *bounds, form).as_deref(), Ok(*form), "{form:?}");
        }
        let wrong: &[(Kind, &str)] = &[
            (Double, "inf"),
            (Double, "nan"),
            (Double, "NaN"),
            (Double, "0x1p-1"),
            (Double, "1,5"),
            (Double, "++Infinity"),
            (Words(POLICIES), "delete,"),
            (Words(POLICIES), "Delete"),
            (Int, "2147483648"),
            (Long, "1_000"),
            (Bool, "yes"),
            (Pairs, "none"),
        ];
        for (kind, text) in wrong {
            assert!(canonical("x", *kind, (0, 1), text).is_err(), "{text:?}");
        }
    }
}
