//! A share between nothing and all, to a millionth.

/// A share; never more than the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

/// Millionths of the whole.
const WHOLE: u32 = 1_000_000;

impl Percent {
    /// Nothing.
    pub const ZERO: Percent = Percent(0);
    /// All.
    pub const ALL: Percent = Percent(WHOLE);

    /// `None` where it would be more than the whole.
    pub const fn from_millionths(millionths: u32) -> Option<Self> {
        if millionths <= WHOLE {
            Some(Percent(millionths))
        } else {
            None
        }
    }

    /// Whole percents; more than 100 are taken as 100.
    pub const fn of(percent: u32) -> Self {
        if percent >= 100 {
            Percent::ALL
        } else {
            Percent(percent * (WHOLE / 100))
        }
    }

    /// From a floating-point percentage as Envoy's `Percent`; `None` unless within 0 and 100.
    pub fn from_percentage(value: f64) -> Option<Self> {
        // The range check makes the conversion exact enough and never negative.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..=100 times 10,000 fits"
        )]
        (0.0..=100.0)
            .contains(&value)
            .then(|| Percent((value * 10_000.0).round() as u32))
    }

    /// Millionths of the whole.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a number drawn evenly from all of `u32` falls into the share.
    pub const fn covers(self, drawn: u32) -> bool {
        drawn % WHOLE < self.0
    }

    /// This share of a count, rounded down.
    pub fn share_of(self, count: usize) -> usize {
        let share = count as u128 * u128::from(self.0) / u128::from(WHOLE);
        usize::try_from(share).unwrap_or(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_covers_no_draw_and_all_covers_every_one() {
        for drawn in [0, 1, 999_999, 1_000_000, u32::MAX] {
            assert!(!Percent::ZERO.covers(drawn));
            assert!(Percent::ALL.covers(drawn));
        }
    }

    #[test]
    fn more_than_the_whole_is_refused() {
        assert_eq!(Percent::from_millionths(1_000_001), None);
        assert_eq!(Percent::from_percentage(100.1), None);
        assert_eq!(Percent::from_percentage(f64::NAN), None);
    }

    #[test]
    fn a_share_of_a_count_is_rounded_down() {
        assert_eq!(Percent::of(10).share_of(25), 2);
        assert_eq!(Percent::ALL.share_of(3), 3);
    }
}
