//! How much of the traffic each priority gets: Envoy's rules for fail-over, degraded endpoints and panic.
//!
//! Pure: what is usable goes in, shares in percent come out.

/// What is usable of a priority; in endpoints, or in their weights.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usable {
    /// All that could be.
    pub all: f64,
    /// Healthy.
    pub healthy: f64,
    /// Degraded.
    pub degraded: f64,
}

/// Which endpoints of a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The healthy ones; in panic all.
    Healthy,
    /// The degraded ones.
    Degraded,
}

/// Who gets how much.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loads {
    /// In order: whole percents that sum to 100, each of a part of a priority.
    pub shares: Vec<(u32, usize, Part)>,
    /// By priority: whether it is in panic.
    pub panic: Vec<bool>,
    /// By priority: how much its healthy endpoints and its degraded ones could carry, in percent of all.
    carried: (Vec<u32>, Vec<u32>),
}

impl Loads {
    /// `overprovisioning` in percent; `panic_threshold` in percent.
    pub fn new(priorities: &[Usable], overprovisioning: u32, panic_threshold: f64) -> Self {
        let carried = |usable: f64, all: f64| match all > 0.0 {
            true => percent(f64::from(overprovisioning) * usable / all),
            false => 0,
        };
        let healthy: Vec<_> = priorities
            .iter()
            .map(|each| carried(each.healthy, each.all))
            .collect();
        let degraded: Vec<_> = priorities
            .iter()
            .map(|each| carried(each.degraded, each.all))
            .collect();
        let available = available(&healthy, &degraded);
        let panic: Vec<_> = priorities
            .iter()
            .map(|each| available < 100 && is_panic(each, panic_threshold))
            .collect();
        let is_total = !panic.is_empty() && panic.iter().all(|panics| *panics);
        let shares = if is_total {
            in_total_panic(priorities)
        } else {
            shared(&healthy, &degraded, available)
        };
        Loads {
            shares,
            panic,
            carried: (healthy, degraded),
        }
    }

    /// The part that a number below 100 falls to.
    pub fn part(&self, point: u32) -> Option<(usize, Part)> {
        part_at(point, &self.shares)
    }

    /// The same without the priorities that are left out; where nothing of the others can be used, with them.
    pub fn part_without(
        &self,
        point: u32,
        is_left_out: impl Fn(usize) -> bool,
    ) -> Option<(usize, Part)> {
        let left = |carried: &[u32]| -> Vec<u32> {
            let carried = carried.iter().enumerate();
            let carried = carried.map(|(priority, carried)| match is_left_out(priority) {
                true => 0,
                false => *carried,
            });
            carried.collect()
        };
        let (healthy, degraded) = (left(&self.carried.0), left(&self.carried.1));
        let available = available(&healthy, &degraded);
        match available {
            0 => self.part(point),
            _ => part_at(point, &shared(&healthy, &degraded, available)),
        }
    }

    /// Whether anything can be used of the priorities that are not left out.
    pub fn has_others(&self, is_left_out: impl Fn(usize) -> bool) -> bool {
        let (healthy, degraded) = &self.carried;
        let mut all = healthy.iter().zip(degraded).enumerate();
        all.any(|(priority, (healthy, degraded))| !is_left_out(priority) && healthy + degraded > 0)
    }
}

/// What priorities can carry together, in percent.
fn available(healthy: &[u32], degraded: &[u32]) -> u32 {
    (healthy.iter().sum::<u32>() + degraded.iter().sum::<u32>()).min(100)
}

fn part_at(mut point: u32, shares: &[(u32, usize, Part)]) -> Option<(usize, Part)> {
    for (share, priority, part) in shares {
        if point < *share {
            return Some((*priority, *part));
        }
        point -= share;
    }
    None
}

fn is_panic(usable: &Usable, threshold: f64) -> bool {
    let share = match usable.all > 0.0 {
        true => 100.0 * (usable.healthy + usable.degraded) / usable.all,
        false => 0.0,
    };
    share < threshold
}

/// Healthy endpoints of all priorities in order, then degraded ones.
fn shared(healthy: &[u32], degraded: &[u32], available: u32) -> Vec<(u32, usize, Part)> {
    if available == 0 {
        return vec![(100, 0, Part::Healthy)];
    }
    let mut rest = 100;
    let mut shares = Vec::new();
    let parts = healthy
        .iter()
        .enumerate()
        .map(|(priority, carried)| (*carried, priority, Part::Healthy))
        .chain(
            degraded
                .iter()
                .enumerate()
                .map(|(priority, carried)| (*carried, priority, Part::Degraded)),
        );
    for (carried, priority, part) in parts {
        let share = (carried * 100 / available).min(rest);
        rest -= share;
        if share > 0 {
            shares.push((share, priority, part));
        }
    }
    // What rounding has left over goes to the first that gets anything.
    if let Some(first) = shares.first_mut() {
        first.0 += rest;
    }
    shares
}

/// Everybody gets what the number of its endpoints comes to.
fn in_total_panic(priorities: &[Usable]) -> Vec<(u32, usize, Part)> {
    let all: f64 = priorities.iter().map(|each| each.all).sum();
    if all <= 0.0 {
        return vec![(100, 0, Part::Healthy)];
    }
    let mut shares: Vec<_> = priorities
        .iter()
        .enumerate()
        .map(|(priority, each)| (percent(100.0 * each.all / all), priority, Part::Healthy))
        .filter(|(share, ..)| *share > 0)
        .collect();
    let sum: u32 = shares.iter().map(|(share, ..)| share).sum();
    if let Some(first) = shares.first_mut() {
        first.0 += 100 - sum.min(100);
    }
    shares
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 100"
)]
fn percent(value: f64) -> u32 {
    value.clamp(0.0, 100.0) as u32
}

#[cfg(test)]
mod tests {
    use super::Part::{Degraded, Healthy};
    use super::*;

    fn usable(all: u32, healthy: u32, degraded: u32) -> Usable {
        Usable {
            all: all.into(),
            healthy: healthy.into(),
            degraded: degraded.into(),
        }
    }

    /// The tables of Envoy's documentation of priority levels, at the overprovisioning factor of 1.4.
    #[test]
    fn what_a_priority_cannot_carry_goes_to_the_next() {
        for (first, second, expected) in [
            (100, 100, [100, 0]),
            (72, 100, [100, 0]),
            (71, 100, [99, 1]),
            (50, 100, [70, 30]),
            (25, 100, [35, 65]),
            (0, 100, [0, 100]),
            // Both fall short: what there is, is shared in proportion.
            (25, 25, [50, 50]),
        ] {
            let loads = Loads::new(&[usable(100, first, 0), usable(100, second, 0)], 140, 0.0);
            let mut shares = [0, 0];
            for (share, priority, part) in loads.shares {
                assert_eq!(part, Healthy);
                shares[priority] += share;
            }
            assert_eq!(shares, expected, "{first} {second}");
        }
    }

    #[test]
    fn degraded_endpoints_carry_what_healthy_ones_of_any_priority_cannot() {
        let loads = Loads::new(&[usable(10, 2, 8), usable(10, 2, 0)], 140, 0.0);

        assert_eq!(
            loads.shares,
            [(28, 0, Healthy), (28, 1, Healthy), (44, 0, Degraded)]
        );
    }

    #[test]
    fn what_is_left_out_is_carried_by_the_others_while_there_are_any() {
        let loads = Loads::new(
            &[usable(10, 10, 0), usable(10, 5, 0), usable(10, 0, 0)],
            140,
            0.0,
        );
        let without = |left_out: &[usize]| {
            let mut priorities: Vec<_> = (0..100)
                .filter_map(|point| loads.part_without(point, |one| left_out.contains(&one)))
                .map(|(priority, _)| priority)
                .collect();
            priorities.dedup();
            priorities
        };

        assert_eq!(without(&[]), [0]);
        assert_eq!(without(&[0]), [1]);
        assert_eq!(without(&[0, 1]), [0]);
        assert!(loads.has_others(|one| one == 0));
        assert!(!loads.has_others(|one| one < 2));
    }

    #[test]
    fn below_the_threshold_a_priority_panics_only_while_all_of_them_fall_short() {
        let with = |second| Loads::new(&[usable(10, 1, 0), usable(10, second, 0)], 140, 50.0).panic;

        assert_eq!(with(10), [false, false]);
        assert_eq!(with(5), [true, false]);
        assert_eq!(with(1), [true, true]);
    }

    #[test]
    fn in_total_panic_the_number_of_endpoints_decides() {
        let loads = Loads::new(&[usable(30, 0, 0), usable(10, 0, 0)], 140, 50.0);

        assert_eq!(loads.shares, [(75, 0, Healthy), (25, 1, Healthy)]);
    }

    #[test]
    fn shares_are_always_the_whole() {
        for healthy in 0..=20 {
            for degraded in 0..=20 - healthy {
                let priorities = [
                    usable(20, healthy, degraded),
                    usable(7, degraded % 7, 0),
                    usable(0, 0, 0),
                ];
                let loads = Loads::new(&priorities, 140, 50.0);
                let sum: u32 = loads.shares.iter().map(|(share, ..)| share).sum();
                assert_eq!(sum, 100, "{priorities:?}");
                assert!(loads.part(99).is_some());
            }
        }
    }
}
