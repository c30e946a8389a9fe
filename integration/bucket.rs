//! A network between brokers and their bucket that gets things wrong: it refuses, answers 503, cuts bodies, is slow, and loses
//! answers to what was done.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Some of everything.
    Foul,
    /// Nobody gets through.
    Gone,
}

/// Stands between the brokers and the bucket's server.
pub(crate) struct Between {
    pub address: SocketAddr,
    weather: Arc<AtomicU8>,
}

/// What becomes of one connection.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Whole,
    Refused,
    SlowDown,
    /// Its answers end after so many bytes.
    Cut(usize),
    Slow,
}

impl Between {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let weather = Arc::new(AtomicU8::new(0));
        let (shown, count) = (Arc::clone(&weather), AtomicU64::new(0));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // The same each time: the order of connections is chance enough.
                let fate =
                    fate(shown.load(Ordering::Relaxed), count.fetch_add(1, Ordering::Relaxed));
                std::thread::spawn(move || carry(client, server, fate));
            }
        });
        Self { address, weather }
    }

    pub(crate) fn set(&self, weather: Weather) {
        let number = match weather {
            Weather::Fair => 0,
            Weather::Foul => 1,
            Weather::Gone => 2,
        };
        self.weather.store(number, Ordering::Relaxed);
    }
}

fn fate(weather: u8, number: u64) -> Fate {
    match (weather, number % 10) {
        (0, _) => Fate::Whole,
        (1, 1) => Fate::SlowDown,
        // Sent, done, and nobody hears of it.
        (1, 3) => Fate::Cut(0),
        (1, 4) => Fate::Refused,
        (1, 6) => Fate::Cut(300),
        (1, 8) => Fate::Slow,
        // Connections live on for many requests: each ends in the middle of some answer.
        (1, _) => Fate::Cut(40_000),
        _ => Fate::Refused,
    }
}

fn carry(mut client: TcpStream, server: SocketAddr, fate: Fate) {
    match fate {
        Fate::Refused => return,
        Fate::SlowDown => {
            let _ = client.read(&mut [0; 16_384]);
            let _ = client.write_all(
                b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
            return;
        }
        Fate::Slow => std::thread::sleep(Duration::from_millis(1_500)),
        Fate::Whole | Fate::Cut(_) => {}
    }
    let Ok(upstream) = TcpStream::connect(server) else { return };
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), upstream.try_clone())
    else {
        return;
    };
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut answers, mut left) = (upstream, usize::MAX);
    if let Fate::Cut(bytes) = fate {
        left = bytes;
    }
    let mut buffer = [0; 16_384];
    while let Ok(read) = answers.read(&mut buffer) {
        let passed = read.min(left);
        if read == 0 || client.write_all(&buffer[..passed]).is_err() || passed < read || left == 0 {
            break;
        }
        left -= passed;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = answers.shutdown(Shutdown::Both);
}
