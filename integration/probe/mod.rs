//! Asks a broker the questions that re-implementations get wrong, and writes down what it answers.
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::default_trait_access,
    clippy::items_after_statements,
    clippy::unnecessary_wraps,
    clippy::unreadable_literal,
    clippy::too_many_arguments,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "a list of questions, written down as they are asked"
)]
macro_rules! say {
    ($($arg:tt)*) => {
        {
            let line = format!($($arg)*);
            OUT.with_borrow_mut(|out| { out.push_str(&line); out.push('\n'); });
        }
    };
}

mod admin;
pub(crate) mod client;
mod fetch;
mod groups;
mod produce;
mod topics;
mod transactions;

use std::cell::RefCell;

use anyhow::Result;
use client::{Asking, C, Z};

thread_local! {
    static ADDRESS: RefCell<String> = const { RefCell::new(String::new()) };
    static OUT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Where the next connections go.
pub(crate) fn ask_at(address: &str) {
    ADDRESS.set(address.to_owned());
}

/// Asks everything; returns questions (`## …`) and answers.
pub(crate) fn ask(address: &str) -> Result<String> {
    ask_at(address);
    OUT.take();
    // Seven digits at any time of day: the comparison takes them out of names by their number.
    let stamp = 1_000_000
        + std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis()
            % 9_000_000;
    let name = |what: &str| format!("{what}-{stamp}");
    let (t1, t2, t3) = (name("t1"), name("compact"), name("lat"));
    let mut asking = Asking { c: C::new(), stamp, t1, t2, t3, tid: Z };
    topics::api_versions(&mut asking)?;
    topics::topics(&mut asking)?;
    topics::metadata(&mut asking)?;
    produce::empty_partition(&mut asking)?;
    produce::produces(&mut asking)?;
    fetch::fetches(&mut asking)?;
    groups::groups(&mut asking)?;
    transactions::transactions(&mut asking)?;
    admin::configs(&mut asking)?;
    admin::the_rest(&mut asking)?;
    Ok(OUT.take())
}
