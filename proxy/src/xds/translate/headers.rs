//! Changes to headers.

use http::HeaderValue;
use weft_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use weft_proto::envoy::config::core::v3::{HeaderValue as WireHeader, HeaderValueOption};

use super::at::{At, Invalid, enumeration, required};
use super::text::header_name;
use crate::config::headers::{HeaderAction, HeaderChange, HeaderMutations};

/// Headers to add and to remove, of the fields with these names.
pub(super) fn mutations(
    at: &At<'_>,
    (adds, to_add): (&str, &[HeaderValueOption]),
    (removes, to_remove): (&str, &[String]),
) -> Result<HeaderMutations, Invalid> {
    let at_adds = at.field(adds);
    let at_removes = at.field(removes);
    let mut mutations = HeaderMutations::default();
    for (index, wire) in to_add.iter().enumerate() {
        mutations
            .changes
            .extend(change(&at_adds.index(index), wire)?);
    }
    for (index, name) in to_remove.iter().enumerate() {
        mutations
            .removals
            .push(header_name(&at_removes.index(index), name)?);
    }
    Ok(mutations)
}

/// One header to set; none where its value is empty and empty ones are dropped.
fn change(at: &At<'_>, wire: &HeaderValueOption) -> Result<Option<HeaderChange>, Invalid> {
    let HeaderValueOption {
        header,
        append,
        append_action,
        keep_empty_value,
    } = wire;
    let at_header = at.field("header");
    let WireHeader {
        key,
        value,
        raw_value,
    } = required(&at_header, header.as_ref())?;
    let value = match (value.is_empty(), raw_value.is_empty()) {
        (true, false) => raw_value.to_vec(),
        (_, true) => literal(&at_header.field("value"), value)?.into_bytes(),
        (false, false) => return Err(at_header.field("raw_value").refuse("`value` is set, too")),
    };
    if value.is_empty() && !keep_empty_value {
        return Ok(None);
    }
    let action = match (
        append,
        enumeration(&at.field("append_action"), *append_action)?,
    ) {
        (Some(false), HeaderAppendAction::AppendIfExistsOrAdd) => HeaderAction::Overwrite,
        (_, HeaderAppendAction::AppendIfExistsOrAdd) => HeaderAction::Append,
        (_, HeaderAppendAction::AddIfAbsent) => HeaderAction::AddIfAbsent,
        (_, HeaderAppendAction::OverwriteIfExistsOrAdd) => HeaderAction::Overwrite,
        (_, HeaderAppendAction::OverwriteIfExists) => HeaderAction::OverwriteIfPresent,
    };
    Ok(Some(HeaderChange {
        name: header_name(&at_header.field("key"), key)?,
        value: HeaderValue::from_bytes(&value)
            .map_err(|_| at_header.field("value").refuse("no header value"))?,
        action,
    }))
}

/// A text without Envoy's command operators; `%%` is one percent sign.
pub(super) fn literal(at: &At<'_>, text: &str) -> Result<String, Invalid> {
    if text.replace("%%", "").contains('%') {
        return Err(at.refuse_value(text));
    }
    Ok(text.replace("%%", "%"))
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    fn option(value: &str, append: Option<bool>) -> HeaderValueOption {
        HeaderValueOption {
            header: Some(WireHeader {
                key: "x-a".into(),
                value: value.into(),
                ..WireHeader::default()
            }),
            append,
            ..HeaderValueOption::default()
        }
    }

    fn changes(wire: &[HeaderValueOption]) -> Result<HeaderMutations, Invalid> {
        let notes = Notes::default();
        mutations(
            &At::root(&notes),
            ("request_headers_to_add", wire),
            ("request_headers_to_remove", &[]),
        )
    }

    #[test]
    fn the_older_spelling_of_overwriting_is_understood() {
        let actions: Vec<_> = changes(&[
            option("1", None),
            option("1", Some(true)),
            option("1", Some(false)),
        ])
        .expect("valid")
        .changes
        .into_iter()
        .map(|change| change.action)
        .collect();

        assert_eq!(
            actions,
            [
                HeaderAction::Append,
                HeaderAction::Append,
                HeaderAction::Overwrite
            ]
        );
    }

    #[test]
    fn a_command_operator_is_refused_and_a_percent_sign_is_not() {
        let error = changes(&[option("%REQ(x)%", None)]).expect_err("refused");
        let percent = changes(&[option("100%%", None)]).expect("valid");

        assert_eq!(
            error.to_string(),
            "request_headers_to_add[0].header.value: \"%REQ(x)%\" is not supported"
        );
        assert_eq!(percent.changes[0].value, "100%");
    }

    #[test]
    fn an_empty_value_is_dropped() {
        assert!(
            changes(&[option("", None)])
                .expect("valid")
                .changes
                .is_empty()
        );
    }
}
