//! Zig-zag varints as records use them (Protocol Buffers encoding).
//!
//! Invariants: reading never passes the end and refuses more bytes than the type can hold.

/// The most bytes that a varint has.
pub(super) const VARLONG_BYTES: usize = 10;
/// The most bytes that one of an `i32` has; readers refuse more.
const VARINT_BYTES: usize = 5;

/// Splits an `i64` off the front; `None` if it is cut or longer than ten bytes.
#[inline]
pub(super) fn take_varlong(bytes: &mut &[u8]) -> Option<i64> {
    // Most are lengths and deltas of one byte or two.
    let (&first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        *bytes = rest;
        return Some(i64::from(first >> 1) ^ -i64::from(first & 1));
    }
    let (&second, rest) = rest.split_first()?;
    if second & 0x80 == 0 {
        *bytes = rest;
        let value = (u16::from(second) << 7) | u16::from(first & 0x7f);
        return Some(i64::from(value >> 1) ^ -i64::from(value & 1));
    }
    take_long_varlong(bytes)
}

fn take_long_varlong(bytes: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// Splits an `i32` off the front; `None` if it is cut, does not fit or is longer than five bytes.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<i32> {
    let before = bytes.len();
    let value = take_varlong(bytes)?;
    if before - bytes.len() > VARINT_BYTES {
        return None;
    }
    i32::try_from(value).ok()
}

/// Appends a zig-zag varint.
pub(super) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest >>= 7;
        if rest == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_varint_comes_back(value: i64) {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            let mut rest = out.as_slice();
            prop_assert_eq!(take_varlong(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn so_does_a_short_one(value in -10_000_i64..10_000) {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            out.push(7);
            let mut rest = out.as_slice();
            prop_assert_eq!(take_varlong(&mut rest), Some(value));
            prop_assert_eq!(rest, &[7]);
        }
    }

    #[test]
    fn an_endless_varint_is_refused() {
        assert_eq!(take_varlong(&mut [0xff_u8; 11].as_slice()), None);
        assert_eq!(take_varint(&mut [0x80_u8].as_slice()), None);
        assert_eq!(take_varint(&mut [0x82, 0x80, 0x80, 0x80, 0x80, 0].as_slice()), None);
        assert_eq!(take_varlong(&mut [0x82, 0x80, 0x80, 0x80, 0x80, 0].as_slice()), Some(1));
    }
}
