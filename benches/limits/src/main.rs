//! What the machine allows: a bare server on one thread, clients on others, nothing that a broker needs beyond bytes.
//!
//! `limits FOLDER produce|fetch BYTES SECONDS` prints one line of JSON. Produce: frames of BYTES come in, five in flight
//! on each of eight connections; each is checked by CRC-32C and appended to a file. Fetch: requests of 64 bytes are
//! answered with BYTES of a file by sendfile. The client is plain threads and costs as little as it can.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 8;
const IN_FLIGHT: usize = 5;
const ANSWER_BYTES: usize = 64;
const FILE_BYTES: u64 = 1 << 30;
const BUFFER_BYTES: usize = 4 << 20;

fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Frames in, 64 bytes out.
async fn produce(mut stream: TcpStream, file: &File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut start, mut end, mut at) = (0, 0, 0);
    loop {
        let mut answers = Vec::new();
        while let Some(length) = buffer[start..end].first_chunk().map(|l| u32::from_be_bytes(*l) as usize) {
            let Some(body) = buffer[start..end].get(4..4 + length) else { break };
            std::hint::black_box(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body));
            file.write_all_at(body, at)?;
            at = (at + length as u64) % FILE_BYTES;
            start += 4 + length;
            answers.extend_from_slice(&[0; ANSWER_BYTES]);
        }
        stream.write_all(&answers).await?;
        buffer.copy_within(start..end, 0);
        (start, end) = (0, end - start);
        match stream.read(&mut buffer[end..]).await? {
            0 => return Ok(()),
            read => end += read,
        }
    }
}

/// 64 bytes in, a header and a range of the file out.
async fn fetch(mut stream: TcpStream, file: &File, bytes: u64) -> io::Result<()> {
    let mut request = [0; ANSWER_BYTES];
    let mut at = 0;
    while stream.read_exact(&mut request).await.is_ok() {
        if at + bytes > FILE_BYTES / 4 {
            at = 0;
        }
        stream
            .async_io(Interest::WRITABLE, || {
                Ok(rustix::net::send(&stream, &request, rustix::net::SendFlags::MORE)?)
            })
            .await?;
        let end = at + bytes;
        while at < end {
            let left = (end - at) as usize;
            stream
                .async_io(Interest::WRITABLE, || Ok(rustix::fs::sendfile(&stream, file, Some(&mut at), left)?))
                .await?;
        }
    }
    Ok(())
}

fn client(address: SocketAddr, request: &[u8], answer_bytes: usize, time: Duration) -> io::Result<(u64, Vec<f64>)> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answer = vec![0; answer_bytes];
    let (mut sent, mut took) = (VecDeque::new(), Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < time {
        while sent.len() < IN_FLIGHT {
            stream.write_all(request)?;
            sent.push_back(Instant::now());
        }
        stream.read_exact(&mut answer)?;
        took.extend(sent.pop_front().map(|at| at.elapsed().as_secs_f64()));
    }
    Ok((took.len() as u64, took))
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let [_, folder, what, bytes, seconds] = words.as_slice() else {
        eprintln!("usage: limits FOLDER produce|fetch BYTES SECONDS");
        std::process::exit(2);
    };
    let (is_fetch, bytes) = (what == "fetch", bytes.parse::<usize>().map_err(io::Error::other)?);
    let time = Duration::from_secs_f64(seconds.parse().map_err(io::Error::other)?);
    let path = std::path::Path::new(folder).join("limits.bytes");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    if is_fetch {
        for part in 0..FILE_BYTES / 4 / (1 << 20) {
            file.write_all_at(&vec![9; 1 << 20], part << 20)?;
        }
    }
    let (tell, told) = mpsc::channel();
    let server = std::thread::spawn(move || -> io::Result<f64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let file: &'static File = Box::leak(Box::new(file));
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            tell.send(listener.local_addr()?).map_err(io::Error::other)?;
            let mut tasks = Vec::new();
            for _ in 0..CONNECTIONS {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tasks.push(tokio::spawn(async move {
                    if is_fetch { fetch(stream, file, bytes as u64).await } else { produce(stream, file).await }
                }));
            }
            for task in tasks {
                // A client that is done leaves with requests in flight.
                let _ = task.await;
            }
            Ok(thread_cpu())
        })
    });
    let address = told.recv().map_err(io::Error::other)?;
    let (request, answer_bytes) = if is_fetch {
        (vec![0; ANSWER_BYTES], ANSWER_BYTES + bytes)
    } else {
        ([&(bytes as u32).to_be_bytes()[..], &vec![1; bytes]].concat(), ANSWER_BYTES)
    };
    let begun = Instant::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let request = request.clone();
            std::thread::spawn(move || client(address, &request, answer_bytes, time))
        })
        .collect();
    let (mut requests, mut took) = (0, Vec::new());
    for client in clients {
        let (count, times) = client.join().expect("a client ran")?;
        requests += count;
        took.extend(times);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let cpu = server.join().expect("the server ran")?;
    std::fs::remove_file(path)?;
    took.sort_by(f64::total_cmp);
    let total = requests as f64 * bytes as f64;
    println!(
        r#"{{"mb_per_s": {:.1}, "cpu_s_per_gb": {:.3}, "cpu_us_per_request": {:.2}, "p99_ms": {:.3}}}"#,
        total / elapsed / 1e6,
        cpu / (total / 1e9),
        cpu / requests as f64 * 1e6,
        took.get(took.len() * 99 / 100).unwrap_or(&0.0) * 1e3
    );
    Ok(())
}
