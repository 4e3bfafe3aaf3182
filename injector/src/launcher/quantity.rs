//! Amounts as Kubernetes writes them: `250m`, `64Mi`, `1e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Suffixes and their factors; two letters before one.
const SUFFIXES: [(&str, f64); 14] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
];

/// The amount in units (bytes, cores); `None` for what is no amount.
pub(super) fn amount(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1.0));
    let amount = number.parse::<f64>().ok()? * factor;
    (amount.is_finite() && amount >= 0.0).then_some(amount)
}

/// As bytes, rounded up.
pub(super) fn bytes(quantity: &Quantity) -> Option<u64> {
    whole(amount(quantity)?)
}

/// As thousandths, rounded up.
pub(super) fn millis(quantity: &Quantity) -> Option<u64> {
    whole(amount(quantity)? * 1000.0)
}

fn whole(amount: f64) -> Option<u64> {
    const MAX: f64 = 9e18;
    // Binary fractions: 0.1 * 1000 must not become 101.
    let rounded = (amount - 1e-6).ceil().max(0.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked"
    )]
    (rounded <= MAX).then_some(rounded as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn suffixes_are_binary_and_decimal() {
        for (text, expected) in [
            ("64Mi", 67_108_864),
            ("1Gi", 1_073_741_824),
            ("1k", 1000),
            ("1500", 1500),
            ("1e3", 1000),
            ("0.5Ki", 512),
        ] {
            assert_eq!(bytes(&quantity(text)), Some(expected), "{text}");
        }
    }

    #[test]
    fn cores_are_counted_in_thousandths() {
        for (text, expected) in [("250m", 250), ("2", 2000), ("0.1", 100), ("0.0001", 1)] {
            assert_eq!(millis(&quantity(text)), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_none() {
        for text in ["", "many", "-1", "Mi", "inf", "NaN", "1e400"] {
            assert_eq!(bytes(&quantity(text)), None, "{text}");
        }
    }
}
