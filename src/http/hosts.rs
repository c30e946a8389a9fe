//! By which names the HTTP port may be asked.
//!
//! A browser sends a page's requests to whatever address the page's name has at the time: a page from outside may so read what only
//! this machine's users are to see (DNS rebinding). What it can't change is the name that it asks by.
//! Invariants: whoever asks by an address, which no name stands for, is served; whoever asks by a name that is not on the list is not;
//! nor is a page from elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Stands for any name.
const ANY: &str = "*";

/// The names that a node is asked by.
#[derive(Debug)]
pub(crate) struct Hosts(BTreeSet<String>);

impl Hosts {
    /// `http.allowed.hosts`, and the names that clients are told anyway.
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Arc<Self> {
        Arc::new(Self(names.map(canonical).filter(|name| !name.is_empty()).collect()))
    }

    fn allows(&self, host: &str) -> bool {
        is_address(host) || self.0.contains(ANY) || self.0.contains(&canonical(host))
    }

    /// The host that a request is refused for.
    fn refused(&self, headers: &HeaderMap) -> Option<String> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = host_of(text(header::HOST).unwrap_or_default());
        if !self.allows(host) {
            return Some(host.to_owned());
        }
        let origin = text(header::ORIGIN)?;
        let from = host_of(origin.split_once("://").map_or(origin, |(_, authority)| authority));
        (!self.allows(from)).then(|| from.to_owned())
    }
}

/// A host without its port.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

fn canonical(name: &str) -> String {
    name.trim().trim_end_matches('.').to_ascii_lowercase()
}

/// Refuses requests by other names.
pub(super) async fn check(
    State(hosts): State<Arc<Hosts>>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.refused(request.headers()) {
        None => next.run(request).await,
        Some(host) => {
            let host: String = host.chars().filter(|c| !c.is_control()).take(100).collect();
            let text = format!(
                "The host '{host}' is not one that this node is asked by: add it to http.allowed.hosts, or ask by address.\n"
            );
            (StatusCode::FORBIDDEN, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_served(host: Option<&str>, origin: Option<&str>) -> bool {
        let hosts = Hosts::new(["localhost", "Broker-1.example."].into_iter());
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().expect("a value"));
            }
        }
        hosts.refused(&headers).is_none()
    }

    #[test]
    fn names_of_the_list_and_addresses_are_served_and_nothing_else() {
        for host in ["localhost", "LOCALHOST:8080", "broker-1.example:80", "127.0.0.1", "[::1]:9"] {
            assert!(is_served(Some(host), None), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8080", "", "127.0.0.1.evil.example"] {
            assert!(!is_served(Some(host), None), "{host}");
        }
        assert!(!is_served(None, None));
    }

    #[test]
    fn a_page_from_elsewhere_is_not_served_whatever_it_asks_by() {
        assert!(is_served(Some("localhost"), Some("http://localhost:3000")));
        assert!(is_served(Some("localhost"), Some("http://[::1]:3000")));
        for origin in ["https://evil.example", "null", "", "http://localhost.evil.example"] {
            assert!(!is_served(Some("127.0.0.1:8080"), Some(origin)), "{origin}");
        }
    }

    #[test]
    fn a_star_stands_for_any_name() {
        let hosts = Hosts::new(["*"].into_iter());
        assert!(hosts.allows("whatever.example"));
    }
}
