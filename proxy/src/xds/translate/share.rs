//! Percentages of the wire.

use weft_proto::envoy::config::core::v3::RuntimeFractionalPercent;
use weft_proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use weft_proto::envoy::r#type::v3::{FractionalPercent, Percent as WirePercent};

use super::at::{At, Invalid, enumeration, required};
use crate::config::percent::Percent;

/// From 0 to 100.
pub(super) fn percent(at: &At<'_>, wire: &WirePercent) -> Result<Percent, Invalid> {
    let WirePercent { value } = wire;
    Percent::from_percentage(*value).ok_or_else(|| {
        at.field("value")
            .refuse(format_args!("{value} is not within 0 and 100"))
    })
}

/// A fraction of one of three denominators.
pub(super) fn fraction(at: &At<'_>, wire: &FractionalPercent) -> Result<Percent, Invalid> {
    let FractionalPercent {
        numerator,
        denominator,
    } = wire;
    let scale = match enumeration(&at.field("denominator"), *denominator)? {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    // As Envoy: more than all is all.
    Ok(Percent::from_millionths(numerator.saturating_mul(scale)).unwrap_or(Percent::ALL))
}

/// A fraction, unless the runtime has another one by its key.
pub(super) fn runtime_fraction(
    at: &At<'_>,
    wire: &RuntimeFractionalPercent,
) -> Result<Percent, Invalid> {
    let RuntimeFractionalPercent {
        default_value,
        runtime_key,
    } = wire;
    let told = at.runtime().share(runtime_key);
    let at = at.field("default_value");
    let default = fraction(&at, required(&at, default_value.as_ref())?)?;
    Ok(told.unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    #[test]
    fn every_denominator_scales_to_millionths() {
        let notes = Notes::default();
        let at = At::root(&notes);
        for (denominator, millionths) in [
            (DenominatorType::Hundred, 250_000),
            (DenominatorType::TenThousand, 2_500),
            (DenominatorType::Million, 25),
        ] {
            let wire = FractionalPercent {
                numerator: 25,
                denominator: denominator.into(),
            };
            let share = fraction(&at, &wire).expect("valid");
            assert_eq!(share.millionths(), millionths);
        }
    }

    #[test]
    fn more_than_all_is_all() {
        let notes = Notes::default();
        let at = At::root(&notes);
        let wire = FractionalPercent {
            numerator: 101,
            denominator: 0,
        };

        assert_eq!(fraction(&at, &wire).expect("valid"), Percent::ALL);
    }
}
