//! Small text files that survive crashes: `name version`, lines, and a CRC-32C of all before it.
//!
//! Invariants: replaced whole (write-tmp, flush, rename, flush-directory); a file that does not verify is an error,
//! never an empty answer.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::record::batch::crc32c;
use crate::system::Disk;
use crate::system::disk::{read_file, replace_file};

/// Writes `lines` under a kind and version.
pub(crate) fn write(
    disk: &dyn Disk,
    path: &Path,
    kind: &str,
    version: u32,
    lines: &[String],
) -> io::Result<()> {
    replace_file(disk, path, encode(kind, version, lines).as_bytes())
}

/// The file's text.
pub(crate) fn encode(kind: &str, version: u32, lines: &[String]) -> String {
    let mut text = format!("{kind} {version}\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let crc = crc32c(text.as_bytes());
    let _ = writeln!(text, "crc32c {crc:08x}");
    text
}

/// Reads the lines of a file of this kind and version; `None` if there is no file.
pub(crate) fn read(
    disk: &dyn Disk,
    path: &Path,
    kind: &str,
    version: u32,
) -> io::Result<Option<Vec<String>>> {
    let bytes = match read_file(disk, path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let name = path.display();
    let text = String::from_utf8(bytes).map_err(|_| damaged(format!("{name} is not text")))?;
    decode(&text, kind, version).map(Some).map_err(|why| damaged(format!("{name} {why}")))
}

/// Checks and splits the file's text.
pub(crate) fn decode(text: &str, kind: &str, version: u32) -> Result<Vec<String>, String> {
    let end = text.trim_end_matches('\n').rfind('\n').ok_or("is cut")? + 1;
    let (body, last) = text.split_at(end);
    let stored =
        last.trim().strip_prefix("crc32c ").and_then(|hex| u32::from_str_radix(hex, 16).ok());
    if stored != Some(crc32c(body.as_bytes())) {
        return Err("does not match its checksum".to_owned());
    }
    let mut lines = body.lines();
    let header = lines.next().unwrap_or_default();
    if header != format!("{kind} {version}") {
        return Err(format!("is '{header}', not '{kind} {version}'"));
    }
    Ok(lines.map(str::to_owned).collect())
}

fn damaged(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_or_cut_is_noticed() {
        let text = encode("points", 1, &["a 1".to_owned(), "b 2".to_owned()]);
        assert_eq!(decode(&text, "points", 1), Ok(vec!["a 1".to_owned(), "b 2".to_owned()]));
        assert!(decode(&text, "points", 2).is_err());
        for at in 0..text.len() - 1 {
            assert!(decode(&text[..at], "points", 1).is_err(), "cut at {at}");
            let mut flipped = text.clone().into_bytes();
            flipped[at] ^= 1;
            let flipped = String::from_utf8(flipped).expect("ascii");
            assert!(decode(&flipped, "points", 1).is_err(), "flip at {at}");
        }
    }
}
