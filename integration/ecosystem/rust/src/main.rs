//! rskafka and samsa: clients that speak the protocol by code of their own, each reading what the other wrote.

mod rs;
mod sam;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How many records each topic gets.
pub const RECORDS: usize = 3_000;

pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// The key of a record.
pub fn key(n: usize) -> String {
    format!("key {n}")
}

/// The value of a record: repetitive enough for a codec to find something, different enough to tell them apart.
pub fn value(n: usize) -> String {
    format!("value {n} ").repeat(n % 40 + 1)
}

/// Whether these are all the records, once, in order.
pub fn judge(who: &str, topic: &str, found: &[(String, String)]) -> Result<(), Failure> {
    if found.len() != RECORDS {
        return Err(format!("{who} found {} records in {topic}", found.len()).into());
    }
    for (n, (key_found, value_found)) in found.iter().enumerate() {
        if *key_found != key(n) || *value_found != value(n) {
            return Err(format!("{who} found {key_found} = {value_found} at {n} of {topic}").into());
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let phase = arguments.next().ok_or("what to do")?;
    let address = arguments.next().ok_or("an address")?;
    match phase.as_str() {
        "write" => {
            rs::write(&address).await?;
            sam::write(&address).await?;
        }
        "read" => {
            let own = CODECS.map(|codec| format!("rskafka-{codec}"));
            for topic in own.into_iter().chain(sam::WRITES.map(|codec| format!("samsa-{codec}"))) {
                judge("rskafka", &topic, &rs::read(&address, &topic).await?)?;
                if sam::READS.iter().any(|codec| topic.ends_with(codec)) {
                    judge("samsa", &topic, &sam::read(&address, &topic).await?)?;
                }
            }
            rs::ask(&address).await?;
        }
        "group" => sam::group(&address).await?,
        other => return Err(format!("{other} is nothing to do").into()),
    }
    println!("good");
    Ok(())
}
