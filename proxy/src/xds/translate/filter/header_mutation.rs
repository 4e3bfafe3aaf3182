//! Changes of headers, trailers and queries.

use weft_proto::envoy::config::common::mutation_rules::v3::HeaderMutation as WireChange;
use weft_proto::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use weft_proto::envoy::config::core::v3::key_value_append::KeyValueAppendAction;
use weft_proto::envoy::config::core::v3::{
    HeaderValueOption, KeyValueAppend, KeyValueMutation, KeyValuePair,
};
use weft_proto::envoy::extensions::filters::http::header_mutation::v3::{
    HeaderMutation, HeaderMutationPerRoute, Mutations as WireMutations,
};

use super::super::at::{At, Invalid, enumeration, nonempty, required};
use super::super::headers::{formatted_mutations, template};
use super::super::text::{header_name, text_match};
use crate::config::filter::header_mutation::{
    Change, HeaderMutationConfig, Mutations, QueryChange,
};
use crate::config::headers::{HeaderAction, HeaderMutations};

/// The filter.
pub(super) fn header_mutation(
    at: &At<'_>,
    wire: &HeaderMutation,
) -> Result<HeaderMutationConfig, Invalid> {
    let HeaderMutation {
        mutations,
        most_specific_header_mutations_wins,
    } = wire;
    Ok(HeaderMutationConfig {
        mutations: all(&at.field("mutations"), mutations.as_ref())?,
        innermost_wins: *most_specific_header_mutations_wins,
    })
}

/// For a part of the routes.
pub(super) fn per_route(at: &At<'_>, wire: &HeaderMutationPerRoute) -> Result<Mutations, Invalid> {
    let HeaderMutationPerRoute { mutations } = wire;
    all(&at.field("mutations"), mutations.as_ref())
}

fn all(at: &At<'_>, wire: Option<&WireMutations>) -> Result<Mutations, Invalid> {
    let Some(wire) = wire else {
        return Ok(Mutations::default());
    };
    let WireMutations {
        request_mutations,
        query_parameter_mutations,
        response_mutations,
        response_trailers_mutations,
        request_trailers_mutations,
    } = wire;
    let formatted =
        |field: &'static str, wire: &[_]| changes(&at.field(field), wire, formatted_mutations);
    Ok(Mutations {
        request: formatted("request_mutations", request_mutations)?,
        request_trailers: formatted("request_trailers_mutations", request_trailers_mutations)?
            .into(),
        response: formatted("response_mutations", response_mutations)?.into(),
        response_trailers: formatted("response_trailers_mutations", response_trailers_mutations)?
            .into(),
        query: query_changes(
            &at.field("query_parameter_mutations"),
            query_parameter_mutations,
        )?,
    })
}

/// With or without operators in what is set, as `set` takes them.
pub(in crate::xds::translate) fn changes(
    at: &At<'_>,
    wire: &[WireChange],
    set: Setting,
) -> Result<Vec<Change>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| change(&at.index(index), wire, set))
        .collect()
}

/// How headers to set are translated: [`formatted_mutations`], or the same without operators.
type Setting = fn(
    &At<'_>,
    (&str, &[HeaderValueOption]),
    (&str, &[String]),
) -> Result<HeaderMutations, Invalid>;

fn change(at: &At<'_>, wire: &WireChange, set: Setting) -> Result<Change, Invalid> {
    let WireChange { action } = wire;
    Ok(match required(&at.field("action"), action.as_ref())? {
        Action::Remove(name) => Change::Remove(header_name(&at.field("remove"), name)?),
        Action::Append(option) => {
            let options = std::slice::from_ref(option);
            Change::Set(set(at, ("append", options), ("", &[]))?)
        }
        Action::RemoveOnMatch(wire) => {
            let at = at.field("remove_on_match");
            let at = at.field("key_matcher");
            Change::RemoveMatching(text_match(&at, required(&at, wire.key_matcher.as_ref())?)?)
        }
    })
}

fn query_changes(at: &At<'_>, wire: &[KeyValueMutation]) -> Result<Vec<QueryChange>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| query_change(&at.index(index), wire))
        .collect()
}

fn query_change(at: &At<'_>, wire: &KeyValueMutation) -> Result<QueryChange, Invalid> {
    let KeyValueMutation { append, remove } = wire;
    let append = match (append, remove.as_str()) {
        (None, name) => {
            return Ok(QueryChange::Remove(
                nonempty(&at.field("remove"), name)?.into(),
            ));
        }
        (Some(_), name) if !name.is_empty() => {
            return Err(at.field("remove").refuse("`append` is set, too"));
        }
        (Some(append), _) => append,
    };
    let at = at.field("append");
    let KeyValueAppend {
        entry,
        action,
        record,
    } = append;
    let (key, value) = match (record, entry) {
        (Some(KeyValuePair { key, value }), _) => {
            let at = at.field("record");
            let at = at.field("value");
            let value = required(&at, value.as_ref())?;
            match weft_proto::wkt::value_to_json(value) {
                serde_json::Value::String(text) => (key, template(&at, &text)?),
                other => return Err(at.refuse_value(other)),
            }
        }
        (None, Some(entry)) => {
            let at = at.field("entry");
            let value = std::str::from_utf8(&entry.value);
            let value = value.map_err(|_| at.field("value").refuse("no text"))?;
            (&entry.key, template(&at.field("value"), value)?)
        }
        (None, None) => return Err(at.field("record").refuse("missing")),
    };
    let action = match enumeration(&at.field("action"), *action)? {
        KeyValueAppendAction::AppendIfExistsOrAdd => HeaderAction::Append,
        KeyValueAppendAction::AddIfAbsent => HeaderAction::AddIfAbsent,
        KeyValueAppendAction::OverwriteIfExistsOrAdd => HeaderAction::Overwrite,
        KeyValueAppendAction::OverwriteIfExists => HeaderAction::OverwriteIfPresent,
    };
    Ok(QueryChange::Set {
        name: nonempty(&at.field("key"), key)?.into(),
        value,
        action,
    })
}
