//! Listener addresses: `NAME://host:port`, IPv6 hosts in brackets.

use std::fmt;

use super::broker::ConfigError;

/// A named address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub name: String,
    /// Without brackets; empty means every address.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.name, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.name, self.host, self.port)
        }
    }
}

/// Parses listeners; names must differ.
pub(crate) fn parse_endpoints(items: &[&str]) -> Result<Vec<Endpoint>, ConfigError> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in items {
        let endpoint = parse(item).ok_or_else(|| {
            ConfigError::Invalid(format!("listener '{item}' is not of the form NAME://host:port"))
        })?;
        if endpoints.iter().any(|other| other.name == endpoint.name) {
            return Err(ConfigError::Invalid(format!(
                "listener name '{}' is used twice",
                endpoint.name
            )));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// Splits `host:port`; IPv6 hosts stand in brackets.
pub(crate) fn parse_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    Some((host, port.parse().ok()?))
}

fn parse(item: &str) -> Option<Endpoint> {
    let (name, address) = item.split_once("://")?;
    let (host, port) = parse_address(address)?;
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    valid.then_some(Endpoint { name: name.to_ascii_uppercase(), host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_brackets_are_taken_apart() {
        let all = parse_endpoints(&["PLAINTEXT://:9092", "inner://[::1]:0"]).expect("valid");
        assert_eq!(all[0], Endpoint { name: "PLAINTEXT".into(), host: String::new(), port: 9092 });
        assert_eq!(all[1].to_string(), "INNER://[::1]:0");
        for bad in ["localhost:9092", "A://::1:9", "A://host", "://h:1", "A://h:70000"] {
            assert!(parse_endpoints(&[bad]).is_err(), "{bad}");
        }
        assert!(parse_endpoints(&["A://h:1", "A://h:2"]).is_err());
    }
}
