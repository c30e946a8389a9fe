//! Lines of the log that anybody outside can cause: now and then one, however many there would be.

use parking_lot::Mutex;

use super::clock::uptime_ms;

/// At most so often somebody is told of the same.
const TELL_MS: i64 = 10_000;

/// When somebody was told last, by uptime, and of how many nobody was since.
#[derive(Debug, Default)]
pub(crate) struct Telling(Mutex<(Option<i64>, u64)>);

impl Telling {
    /// Whether somebody is to be told now, and of how many nobody was.
    pub(crate) fn turn(&self) -> Option<u64> {
        self.turn_at(uptime_ms())
    }

    fn turn_at(&self, now_ms: i64) -> Option<u64> {
        let mut told = self.0.lock();
        if told.0.is_some_and(|last_ms| now_ms - last_ms < TELL_MS) {
            told.1 += 1;
            return None;
        }
        told.0 = Some(now_ms);
        Some(std::mem::take(&mut told.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_one_is_told_and_later_how_many_were_not() {
        let telling = Telling::default();
        assert_eq!(telling.turn_at(5), Some(0));
        assert!((6..TELL_MS).all(|now_ms| telling.turn_at(now_ms).is_none()));
        assert_eq!(telling.turn_at(TELL_MS + 5), Some(u64::try_from(TELL_MS).expect("small") - 6));
        assert_eq!(telling.turn_at(2 * TELL_MS + 5), Some(0));
    }
}
