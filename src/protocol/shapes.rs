//! The shape of every request, and a walk that checks a body against it before it is decoded.
//!
//! Invariants: the walk allocates nothing, never passes the end, and refuses a body whose decoded form could be
//! much larger than its bytes: it is their bytes that are bounded, not their number. The shapes are in `shapes.txt`,
//! made from Kafka's schemas by `integration/tools/shapes.py`.

use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::str::Chars;
use std::sync::LazyLock;

use crate::model::number::to_usize;

/// What a decoded string or byte string needs besides its bytes, which are the frame's; an array, besides its elements; and a
/// structure, for tagged fields that nobody knows.
const TEXT_BYTES: usize = size_of::<bytes::Bytes>();
const ARRAY_BYTES: usize = size_of::<Vec<u8>>();
const TAGS_BYTES: usize = size_of::<BTreeMap<i32, bytes::Bytes>>();
/// What the first tagged field that nobody knows needs, and each one after it: they are kept in a tree.
const FIRST_TAG_BYTES: usize = 512;
const TAG_BYTES: usize = 128;
/// Decoded elements may take this much whatever the size of the frame, and `FRAME_FACTOR` times the frame beyond it.
const ALWAYS_ALLOWED_BYTES: usize = 16 << 20;
const FRAME_FACTOR: usize = 16;

static SHAPES: LazyLock<HashMap<i16, Shape>> =
    LazyLock::new(|| include_str!("shapes.txt").lines().filter_map(parse_line).collect());

#[derive(Debug)]
struct Shape {
    flexible_from: i16,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    tag: Option<u32>,
    versions: (i16, i16),
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Fixed(usize),
    Str,
    Bytes,
    /// Its elements, and what one of them needs in memory when it is decoded.
    Array(Box<Kind>, usize),
    Struct {
        fields: Vec<Field>,
        nullable: bool,
    },
}

impl Kind {
    /// What one such value needs in memory when it is decoded, but for the elements of its arrays. All fields count: those that a
    /// version lacks are there with their defaults.
    fn decoded_bytes(&self) -> usize {
        match self {
            Kind::Fixed(bytes) => *bytes,
            Kind::Str | Kind::Bytes => TEXT_BYTES,
            Kind::Array(..) => ARRAY_BYTES,
            Kind::Struct { fields, nullable } => {
                let inside: usize = fields.iter().map(|field| field.kind.decoded_bytes()).sum();
                (inside + TAGS_BYTES + usize::from(*nullable)).next_multiple_of(8)
            }
        }
    }
}

/// Checks the body of a request of this key and version; how many bytes its elements take decoded, and how many come after it.
/// What comes after it is nobody's, as in Apache Kafka: librdkafka
/// 2.16 asks for the metadata of all topics with three bytes too many.
pub(super) fn check(key: i16, version: i16, body: &[u8]) -> Result<(usize, usize), &'static str> {
    let shape = SHAPES.get(&key).ok_or("no shape for this request")?;
    let flexible = version >= shape.flexible_from;
    let budget = body.len().saturating_mul(FRAME_FACTOR).max(ALWAYS_ALLOWED_BYTES);
    let mut walk = Walk { rest: body, version, flexible, budget };
    walk.fields(&shape.fields)?;
    Ok((budget - walk.budget, walk.rest.len()))
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    budget: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field]) -> Result<(), &'static str> {
        for field in fields {
            if field.tag.is_none() && (field.versions.0..=field.versions.1).contains(&self.version)
            {
                self.value(&field.kind)?;
            }
        }
        if self.flexible { self.tags(fields) } else { Ok(()) }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), &'static str> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Str => {
                let length = self.length(2)?;
                self.text(length)
            }
            Kind::Bytes => {
                let length = self.length(4)?;
                self.skip(length.unwrap_or(0))
            }
            Kind::Array(inner, element_bytes) => {
                let count = self.length(4)?.unwrap_or(0);
                if count > self.rest.len() {
                    return Err("array is longer than the request");
                }
                self.take(count.saturating_mul(*element_bytes))?;
                (0..count).try_for_each(|_| self.value(inner))
            }
            Kind::Struct { fields, nullable } => {
                if *nullable && self.byte()?.cast_signed() < 0 {
                    return Ok(());
                }
                self.fields(fields)
            }
        }
    }

    /// Counts what is about to be allocated.
    fn take(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.budget = self
            .budget
            .checked_sub(bytes)
            .ok_or("its elements would need too much memory for the bytes that it has")?;
        Ok(())
    }

    /// Tagged fields (KIP-482): known ones are walked, unknown ones skipped.
    fn tags(&mut self, fields: &[Field]) -> Result<(), &'static str> {
        let count = to_usize(self.varint()?);
        if count > self.rest.len() {
            return Err("more tagged fields than bytes");
        }
        let mut is_first = true;
        for _ in 0..count {
            let tag = self.varint()?;
            let length = to_usize(self.varint()?);
            let (inside, after) =
                self.rest.split_at_checked(length).ok_or("tagged field is cut")?;
            let known = fields.iter().find(|f| {
                f.tag == Some(tag) && (f.versions.0..=f.versions.1).contains(&self.version)
            });
            if let Some(field) = known {
                let mut walk = Walk {
                    rest: inside,
                    version: self.version,
                    flexible: true,
                    budget: self.budget,
                };
                walk.value(&field.kind)?;
                // A decoder reads on after the value, whatever its length says: what it reads then would be nobody's.
                if !walk.rest.is_empty() {
                    return Err("tagged field is longer than its value");
                }
                self.budget = walk.budget;
            } else {
                self.take(if is_first { FIRST_TAG_BYTES } else { TAG_BYTES })?;
                is_first = false;
            }
            self.rest = after;
        }
        Ok(())
    }

    /// The length before a string, bytes or array; `None` is null. `width` is that of the inflexible form.
    fn length(&mut self, width: usize) -> Result<Option<usize>, &'static str> {
        if self.flexible {
            return Ok(to_usize(self.varint()?).checked_sub(1));
        }
        let (bytes, rest) = self.rest.split_at_checked(width).ok_or("length is cut")?;
        self.rest = rest;
        let length = if width == 2 {
            i32::from(crate::model::number::be16(bytes, 0))
        } else {
            crate::model::number::be32(bytes, 0)
        };
        if length < -1 { Err("negative length") } else { Ok(usize::try_from(length).ok()) }
    }

    fn text(&mut self, length: Option<usize>) -> Result<(), &'static str> {
        let (bytes, rest) =
            self.rest.split_at_checked(length.unwrap_or(0)).ok_or("string is cut")?;
        self.rest = rest;
        std::str::from_utf8(bytes).map(|_| ()).map_err(|_| "string is not UTF-8")
    }

    fn skip(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.rest = self.rest.get(bytes..).ok_or("request is cut")?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&byte, rest) = self.rest.split_first().ok_or("request is cut")?;
        self.rest = rest;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u32, &'static str> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            let low = u32::from(byte & 0x7f);
            if shift == 28 && low > 15 {
                return Err("varint is too long");
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("varint is too long")
    }
}

fn parse_line(line: &str) -> Option<(i16, Shape)> {
    let mut parts = line.splitn(4, ' ');
    let key = parts.next()?.parse().ok()?;
    let _name = parts.next()?;
    let flexible_from = parts.next()?.parse().unwrap_or(i16::MAX);
    let mut chars = parts.next().unwrap_or_default().chars().peekable();
    Some((key, Shape { flexible_from, fields: parse_fields(&mut chars)? }))
}

fn parse_fields(chars: &mut Peekable<Chars<'_>>) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    loop {
        match chars.peek() {
            None | Some('}') => return Some(fields),
            Some(' ') => {
                chars.next();
            }
            Some(_) => fields.push(parse_field(chars)?),
        }
    }
}

fn parse_field(chars: &mut Peekable<Chars<'_>>) -> Option<Field> {
    let mut tag = None;
    if chars.next_if_eq(&'@').is_some() {
        tag = parse_number(chars).and_then(|n| u32::try_from(n).ok());
        chars.next_if_eq(&':')?;
    }
    let low = parse_number(chars)?;
    chars.next_if_eq(&'-')?;
    let high = parse_number(chars).unwrap_or(i16::MAX);
    Some(Field { tag, versions: (low, high), kind: parse_kind(chars)? })
}

fn parse_kind(chars: &mut Peekable<Chars<'_>>) -> Option<Kind> {
    Some(match chars.next()? {
        'b' => Kind::Fixed(1),
        'w' => Kind::Fixed(2),
        'i' => Kind::Fixed(4),
        'l' => Kind::Fixed(8),
        'u' => Kind::Fixed(16),
        's' => Kind::Str,
        'y' => Kind::Bytes,
        '[' => {
            let inner = parse_kind(chars)?;
            chars.next_if_eq(&']')?;
            let element_bytes = inner.decoded_bytes();
            Kind::Array(Box::new(inner), element_bytes)
        }
        '{' => parse_struct(chars, false)?,
        '?' => {
            chars.next_if_eq(&'{')?;
            parse_struct(chars, true)?
        }
        _ => return None,
    })
}

fn parse_struct(chars: &mut Peekable<Chars<'_>>, nullable: bool) -> Option<Kind> {
    let fields = parse_fields(chars)?;
    chars.next_if_eq(&'}')?;
    Some(Kind::Struct { fields, nullable })
}

fn parse_number(chars: &mut Peekable<Chars<'_>>) -> Option<i16> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        assert_eq!(SHAPES.len(), include_str!("shapes.txt").lines().count());
    }

    #[test]
    fn a_count_that_lies_is_refused_before_anything_is_allocated() {
        let lie = 0x7fff_ffff_i32.to_be_bytes();
        assert!(check(3, 1, &lie).is_err());
        assert!(check(3, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]).is_err());
        assert!(check(3, 1, &(-1_i32).to_be_bytes()).is_ok());
        assert!(check(3, 1, &[0, 0, 0]).is_err());
    }

    #[test]
    fn bytes_after_a_request_are_ignored_as_apache_kafka_does() {
        // Metadata 13 of librdkafka 2.16 for all topics.
        assert_eq!(check(3, 13, &[0, 0, 0, 0, 1, 0, 0]), Ok((0, 3)));
    }

    #[test]
    fn what_is_bounded_is_memory_and_not_a_number_of_elements() {
        let metadata = |count: i32, name: &[u8]| {
            let length = i16::try_from(name.len()).expect("short").to_be_bytes();
            let one = [&length[..], name].concat();
            let names = one.repeat(usize::try_from(count).expect("positive"));
            [&count.to_be_bytes()[..], &names].concat()
        };
        assert!(check(3, 1, &metadata(100_000, b"topic-00001")).is_ok());
        assert!(check(3, 1, &metadata(2_000_000, b"topic-00001")).is_ok());
        // Two bytes each.
        assert!(check(3, 1, &metadata(100_000, b"")).is_ok());
        let refused = check(3, 1, &metadata(900_000, b"")).expect_err("forty times its bytes");
        assert!(refused.contains("too much memory"), "{refused}");
    }

    #[test]
    fn tagged_fields_that_nobody_knows_are_counted_by_what_a_tree_of_them_needs() {
        // Metadata 9: no topics, three booleans, and a million tagged fields of no bytes.
        let tags = |count: u32| {
            let mut body = vec![1, 0, 0, 0];
            let mut varint = |mut value: u32| {
                while value >= 0x80 {
                    body.push(u8::try_from(value & 0x7f | 0x80).expect("a byte"));
                    value >>= 7;
                }
                body.push(u8::try_from(value).expect("a byte"));
            };
            varint(count);
            for tag in 0..count {
                varint(tag + 100);
                varint(0);
            }
            body
        };
        assert!(check(3, 9, &tags(100_000)).is_ok());
        assert!(check(3, 9, &tags(2_000_000)).is_err());
    }

    #[test]
    fn a_tagged_field_whose_length_is_not_its_values_is_refused() {
        // Fetch 12: eleven fields of no interest, no topics, and the cluster id (tag 0), "a".
        let fetch = |length: u8, after: &[u8]| {
            let tags: [&[u8]; 3] = [&[1, 0, length], &[2, b'a'], after];
            [&[0; 25][..], &[1, 1, 1], &tags.concat()].concat()
        };
        assert!(check(1, 12, &fetch(2, &[])).is_ok());
        assert!(check(1, 12, &fetch(1, &[])).is_err(), "a decoder would read on behind it");
        let longer = check(1, 12, &fetch(7, b"bcdef")).expect_err("a decoder would read these");
        assert_eq!(longer, "tagged field is longer than its value");
    }

    #[test]
    fn an_element_is_taken_to_need_at_least_what_it_needs() {
        use kafka_protocol::messages as m;
        /// What the first array of a request is taken to need for each element.
        fn element(key: i16) -> usize {
            fn first(fields: &[Field]) -> Option<usize> {
                fields.iter().find_map(|field| match &field.kind {
                    Kind::Array(_, bytes) => Some(*bytes),
                    _ => None,
                })
            }
            SHAPES.get(&key).and_then(|shape| first(&shape.fields)).expect("an array")
        }
        let sizes = [
            (0, size_of::<m::produce_request::TopicProduceData>()),
            (2, size_of::<m::list_offsets_request::ListOffsetsTopic>()),
            (3, size_of::<m::metadata_request::MetadataRequestTopic>()),
            (8, size_of::<m::offset_commit_request::OffsetCommitRequestTopic>()),
            (10, size_of::<super::super::StrBytes>()),
            (13, size_of::<m::leave_group_request::MemberIdentity>()),
            (19, size_of::<m::create_topics_request::CreatableTopic>()),
            (20, size_of::<m::delete_topics_request::DeleteTopicState>()),
            (32, size_of::<m::describe_configs_request::DescribeConfigsResource>()),
            (37, size_of::<m::create_partitions_request::CreatePartitionsTopic>()),
            (44, size_of::<m::incremental_alter_configs_request::AlterConfigsResource>()),
        ];
        for (key, size) in sizes {
            let taken = element(key);
            assert!(
                (size..=2 * size).contains(&taken),
                "key {key}: {size} bytes, taken for {taken}"
            );
        }
    }
}
