//! Saturating conversions between integer widths.
//!
//! Invariants: no conversion wraps; a value that does not fit becomes the nearest one that does.

/// `usize` from any integer; negative becomes 0, too large becomes the maximum.
pub(crate) fn to_usize<T: TryInto<usize> + PartialOrd + Default>(value: T) -> usize {
    let negative = value < T::default();
    value.try_into().unwrap_or(if negative { 0 } else { usize::MAX })
}

/// `i64` from any unsigned integer, saturating.
pub(crate) fn to_i64<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// `i32` from any unsigned integer, saturating.
pub(crate) fn to_i32<T: TryInto<i32>>(value: T) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// `u64` from any integer; negative becomes 0.
pub(crate) fn to_u64<T: TryInto<u64> + PartialOrd + Default>(value: T) -> u64 {
    let negative = value < T::default();
    value.try_into().unwrap_or(if negative { 0 } else { u64::MAX })
}

/// `u32` from any integer; negative becomes 0.
pub(crate) fn to_u32<T: TryInto<u32> + PartialOrd + Default>(value: T) -> u32 {
    let negative = value < T::default();
    value.try_into().unwrap_or(if negative { 0 } else { u32::MAX })
}

/// `f64` from an integer, for ratios and metrics only: above 2^53 it rounds.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "the only place that rounds"
)]
pub(crate) fn to_f64(value: i64) -> f64 {
    value as f64
}

/// `i64` from a float, rounded towards zero and saturating (Rust's cast rules).
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "saturates by definition"
)]
pub(crate) fn from_f64(value: f64) -> i64 {
    value as i64
}

/// Reads a big-endian `i16` at `at`; the caller has checked the bounds.
pub(crate) fn be16(bytes: &[u8], at: usize) -> i16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, i16::from_be_bytes)
}

/// Reads a big-endian `i32` at `at`; the caller has checked the bounds.
pub(crate) fn be32(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes)
}

/// Reads a big-endian `i64` at `at`; the caller has checked the bounds.
pub(crate) fn be64(bytes: &[u8], at: usize) -> i64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_saturate_instead_of_wrapping() {
        assert_eq!(to_usize(-1_i32), 0);
        assert_eq!(to_u32(-5_i64), 0);
        assert_eq!(to_u32(1_i64 << 40), u32::MAX);
        assert_eq!(to_i32(usize::MAX), i32::MAX);
        assert_eq!(to_i64(u64::MAX), i64::MAX);
        assert_eq!(from_f64(f64::NAN), 0);
    }
}
