//! Names that a client asks by: those of pages from outside are not served.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::good::Quiet;
use crate::broker::{Broker, folder};

/// The answer to a request with these headers.
fn asked(broker: &Broker, headers: &str) -> String {
    let mut stream = TcpStream::connect(&broker.http).expect("it listens");
    let request =
        format!("GET /v1/config/effective HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

#[test]
fn http_is_served_by_address_and_by_names_of_the_list_only() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    for good in [
        "Host: localhost\r\n",
        "Host: 127.0.0.1:8080\r\n",
        "Host: localhost\r\nOrigin: http://localhost:3000\r\n",
    ] {
        assert!(asked(&broker, good).starts_with("HTTP/1.1 200"), "{good}");
    }
    let quiet = Quiet::of(&broker);
    let bad = ["Host: evil.example\r\n", "Host: localhost\r\nOrigin: https://evil.example\r\n"];
    for bad in bad.into_iter().cycle().take(300) {
        let answer = asked(&broker, bad);
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("http.allowed.hosts"),
            "{answer}"
        );
        assert!(!answer.contains("log.dirs"), "{answer}");
    }
    quiet.comes_back(&broker, 20);
    assert!(broker.terminate().success());
    let more = [
        "http.allowed.hosts=metrics.example",
        "advertised.listeners=PLAINTEXT://kafka-0.example:9092",
    ];
    let broker = Broker::start_with(&data, &more);
    for name in ["metrics.example:80", "KAFKA-0.example"] {
        assert!(asked(&broker, &format!("Host: {name}\r\n")).starts_with("HTTP/1.1 200"), "{name}");
    }
    assert!(asked(&broker, "Host: localhost\r\n").starts_with("HTTP/1.1 403"));
    assert!(broker.terminate().success());
}
