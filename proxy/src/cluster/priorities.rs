//! Priorities that a request keeps away from, while there are others.

/// No priority is higher in Envoy.
const MAX: u32 = 127;

/// A set of priorities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Priorities(u128);

impl Priorities {
    /// Of none.
    pub const NONE: Priorities = Priorities(0);

    /// With one more. One that is higher than any may be is not taken in.
    pub fn and(self, priority: u32) -> Self {
        match priority <= MAX {
            true => Priorities(self.0 | (1 << priority)),
            false => self,
        }
    }

    /// Whether a priority is one of them.
    pub fn has(self, priority: u32) -> bool {
        priority <= MAX && self.0 & (1 << priority) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_in_it_and_what_cannot_be_a_priority_is_not() {
        let some = Priorities::NONE.and(0).and(127).and(128).and(u32::MAX);

        assert!(some.has(0) && some.has(127));
        assert!(!some.has(1) && !some.has(128) && !some.has(u32::MAX));
        assert!(Priorities::NONE.is_empty() && !some.is_empty());
    }
}
