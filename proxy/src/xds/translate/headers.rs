//! Changes to headers.

use http::HeaderValue;
use weft_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use weft_proto::envoy::config::core::v3::{HeaderValue as WireHeader, HeaderValueOption};

use super::at::{At, Invalid, enumeration, required};
use super::text::header_name;
use crate::config::headers::{HeaderAction, HeaderChange, HeaderMutations, HeaderText};
use crate::telemetry::access_log::format::Template;

/// Headers to add and to remove, of the fields with these names; values may hold operators.
pub(super) fn formatted_mutations(
    at: &At<'_>,
    (adds, to_add): (&str, &[HeaderValueOption]),
    (removes, to_remove): (&str, &[String]),
) -> Result<HeaderMutations, Invalid> {
    let at_adds = at.field(adds);
    let at_removes = at.field(removes);
    let mut mutations = HeaderMutations::default();
    for (index, wire) in to_add.iter().enumerate() {
        let change = change(&at_adds.index(index), wire)?;
        mutations.changes.extend(change);
    }
    for (index, name) in to_remove.iter().enumerate() {
        let name = changeable(&at_removes.index(index), name)?;
        mutations.removals.push(name);
    }
    Ok(mutations)
}

/// The same without operators, for those who know nothing of the exchange.
pub(super) fn mutations(
    at: &At<'_>,
    (adds, to_add): (&str, &[HeaderValueOption]),
    removed: (&str, &[String]),
) -> Result<HeaderMutations, Invalid> {
    let mutations = formatted_mutations(at, (adds, to_add), removed)?;
    let is_formatted = |change: &HeaderChange| matches!(change.text, HeaderText::Formatted(_));
    match mutations.changes.iter().position(is_formatted) {
        None => Ok(mutations),
        Some(index) => {
            let value = to_add.get(index).and_then(|wire| wire.header.as_ref());
            let value = value.map_or("", |header| &header.value);
            let at = at.field(adds);
            Err(at
                .index(index)
                .field("header")
                .field("value")
                .refuse_value(value))
        }
    }
}

/// A header that routes may change: `host` is rewritten, and not changed.
fn changeable(at: &At<'_>, name: &str) -> Result<http::HeaderName, Invalid> {
    match header_name(at, name)? {
        http::header::HOST => Err(at.refuse("`host` can be rewritten, and not be changed")),
        name => Ok(name),
    }
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
    let name = changeable(&at_header.field("key"), key)?;
    let text = match (value.is_empty(), raw_value.is_empty()) {
        (true, false) => HeaderText::Literal(
            HeaderValue::from_bytes(raw_value)
                .map_err(|_| at_header.field("raw_value").refuse("no header value"))?,
        ),
        (true, true) if !keep_empty_value => return Ok(None),
        (_, true) => header_text(&at_header.field("value"), value)?,
        (false, false) => return Err(at_header.field("raw_value").refuse("`value` is set, too")),
    };
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
        name,
        text,
        action,
        keeps_empty: *keep_empty_value,
    }))
}

/// A text with Envoy's command operators, made ready.
fn header_text(at: &At<'_>, text: &str) -> Result<HeaderText, Invalid> {
    let template = template(at, text)?;
    match template.literal() {
        Some(literal) => HeaderValue::from_str(literal)
            .map(HeaderText::Literal)
            .map_err(|_| at.refuse("no header value")),
        None => Ok(HeaderText::Formatted(template)),
    }
}

/// A text with Envoy's command operators; `%%` is one percent sign.
pub(super) fn template(at: &At<'_>, text: &str) -> Result<Template, Invalid> {
    Template::parse(text).map_err(|error| at.refuse(error))
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
        let hundred = HeaderValue::from_static("100%");
        assert_eq!(percent.changes[0].text, HeaderText::Literal(hundred));
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

    #[test]
    fn the_host_is_not_changed_and_an_operator_must_be_one() {
        let notes = Notes::default();
        let at = At::root(&notes);
        let refused = |name: &str, value: &str| {
            let mut wire = option(value, None);
            wire.header.as_mut().expect("a header").key = name.into();
            let added = ("request_headers_to_add", &[wire][..]);
            let error = formatted_mutations(&at, added, ("r", &[])).expect_err("refused");
            error.to_string()
        };

        assert!(refused("Host", "a").starts_with("request_headers_to_add[0].header.key: "));
        assert!(refused("x-a", "%NONSENSE%").contains("%NONSENSE%"));
    }
}
