//! The tests of a suite that do not pass, each with the reason: `TEST => REASON`, one a line.
//!
//! A reason that begins with `flaky:` says why a test passes now and then; one that begins with `not run:` says why it is
//! left out of every run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Outcome, Outcomes};

const MISSING: &str = "REASON MISSING";
const FLAKY: &str = "flaky:";
const NOT_RUN: &str = "not run:";

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Comments at the top of the file.
    head: String,
    reasons: BTreeMap<String, String>,
}

fn path(folder: &Path, suite: &str) -> PathBuf {
    folder.join("findings").join(format!("{suite}.txt"))
}

impl Findings {
    pub(crate) fn read(folder: &Path, suite: &str) -> Self {
        Self::parse(&std::fs::read_to_string(path(folder, suite)).unwrap_or_default())
    }

    pub(crate) fn write(&self, folder: &Path, suite: &str) {
        std::fs::write(path(folder, suite), self.text()).expect("the findings are writable");
    }

    fn parse(text: &str) -> Self {
        let mut findings = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with('#') {
                findings.head += line;
                findings.head.push('\n');
                continue;
            }
            let (name, reason) = line.rsplit_once(" => ").expect("TEST => REASON");
            findings.reasons.insert(name.to_owned(), reason.to_owned());
        }
        findings
    }

    fn text(&self) -> String {
        let line = |(name, reason): (&String, &String)| format!("{name} => {reason}\n");
        self.head.clone() + &self.reasons.iter().map(line).collect::<String>()
    }

    pub(crate) fn not_run(&self) -> Vec<String> {
        let left_out = self.reasons.iter().filter(|(_, reason)| reason.starts_with(NOT_RUN));
        left_out.map(|(name, _)| name.clone()).collect()
    }

    /// Whether a finding may stand beside what a run showed of its test; a test that did not run shows nothing unless
    /// everything ran.
    fn stands(reason: &str, outcome: Option<&Outcome>, is_whole: bool) -> bool {
        match outcome {
            Some(Outcome::Failed) => !reason.starts_with(NOT_RUN),
            Some(Outcome::Passed | Outcome::Skipped) => reason.starts_with(FLAKY),
            None => !is_whole || reason.starts_with(NOT_RUN),
        }
    }

    /// What is wrong: a failure without a finding, a finding without a failure, a finding without a reason.
    pub(crate) fn compare(&self, outcomes: &Outcomes, is_whole: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, outcome) in outcomes {
            if *outcome == Outcome::Failed && !self.reasons.contains_key(name) {
                wrong.push(format!("{name} fails"));
            }
        }
        for (name, reason) in &self.reasons {
            let bare = reason.trim_start_matches(FLAKY).trim_start_matches(NOT_RUN).trim();
            if bare.is_empty() || bare == MISSING {
                wrong.push(format!("{name} has no reason"));
            }
            let outcome = outcomes.get(name);
            if !Self::stands(reason, outcome, is_whole) {
                let now = outcome.map_or("is not there".to_owned(), |now| format!("{now:?}"));
                wrong.push(format!("{name} is a stale finding: {now}"));
            }
        }
        wrong
    }

    /// Takes what a run showed; known reasons stay.
    pub(crate) fn update(&mut self, outcomes: &Outcomes, is_whole: bool) {
        self.reasons.retain(|name, reason| Self::stands(reason, outcomes.get(name), is_whole));
        for (name, outcome) in outcomes {
            if *outcome == Outcome::Failed {
                self.reasons.entry(name.clone()).or_insert_with(|| MISSING.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(of: &[(&str, Outcome)]) -> Outcomes {
        of.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
    }

    fn findings() -> Findings {
        Findings::parse(
            "# head\na => It cannot.\nb => flaky: It races.\nc => not run: It waits for hours.\n",
        )
    }

    #[test]
    fn a_failure_without_a_finding_and_a_finding_without_a_failure_are_wrong() {
        let ran =
            outcomes(&[("a", Outcome::Failed), ("b", Outcome::Passed), ("d", Outcome::Passed)]);
        assert_eq!(findings().compare(&ran, true), Vec::<String>::new());
        let ran =
            outcomes(&[("a", Outcome::Passed), ("b", Outcome::Failed), ("d", Outcome::Failed)]);
        let wrong = findings().compare(&ran, true);
        assert_eq!(wrong, ["d fails", "a is a stale finding: Passed"]);
    }

    #[test]
    fn a_finding_whose_test_is_gone_is_wrong_only_where_everything_ran() {
        let ran = outcomes(&[("d", Outcome::Passed)]);
        assert_eq!(findings().compare(&ran, false), Vec::<String>::new());
        let wrong = findings().compare(&ran, true);
        assert_eq!(
            wrong,
            ["a is a stale finding: is not there", "b is a stale finding: is not there"]
        );
    }

    #[test]
    fn an_update_keeps_known_reasons_and_asks_for_new_ones() {
        let mut updated = findings();
        let ran =
            outcomes(&[("a", Outcome::Failed), ("b", Outcome::Passed), ("d", Outcome::Failed)]);
        updated.update(&ran, true);
        assert_eq!(updated.compare(&ran, true), ["d has no reason"]);
        let text = updated.text();
        assert_eq!(
            text,
            "# head\na => It cannot.\nb => flaky: It races.\nc => not run: It waits for hours.\nd => REASON MISSING\n"
        );
        assert_eq!(Findings::parse(&text), updated);
    }
}
