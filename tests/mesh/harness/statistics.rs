//! Is a share of what was counted the share that was asked for, as far as chance allows?

/// Quantile of the normal distribution that is exceeded, on either side, once in a million.
const ONCE_IN_A_MILLION: f64 = 4.9;

/// Fails where `count` of `total` would be that far from `share` less than once in a million runs: the normal
/// approximation of the binomial distribution, with a correction of one for its steps.
pub(crate) fn assert_share(what: &str, count: u64, total: u64, share: f64) {
    assert!(
        total >= 1000,
        "{what}: {total} are too few to judge a share by"
    );
    let (count, total) = (as_float(count), as_float(total));
    let expected = total * share;
    let bound = ONCE_IN_A_MILLION * (total * share * (1.0 - share)).sqrt() + 1.0;
    assert!(
        (count - expected).abs() <= bound,
        "{what}: {count} of {total}, where {expected} ± {bound:.0} were to be expected"
    );
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of a test are far below 2^52"
)]
fn as_float(count: u64) -> f64 {
    count as f64
}
