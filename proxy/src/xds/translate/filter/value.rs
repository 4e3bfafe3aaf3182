//! Tests of metadata, and metadata themselves.

use std::sync::Arc;

use weft_proto::envoy::config::core::v3::Metadata as WireMetadata;
use weft_proto::envoy::r#type::matcher::v3::double_matcher::MatchPattern as NumberPattern;
use weft_proto::envoy::r#type::matcher::v3::list_matcher::MatchPattern as ListPattern;
use weft_proto::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use weft_proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use weft_proto::envoy::r#type::matcher::v3::{MetadataMatcher, ValueMatcher};
use weft_proto::envoy::r#type::metadata::v3::MetadataKey;
use weft_proto::envoy::r#type::metadata::v3::metadata_key::path_segment as key_segment;
use weft_proto::wkt::struct_to_json;

use super::super::at::{At, Invalid, nonempty, required};
use super::super::text::text_match;
use crate::config::matching::{MetadataMatch, ValueTest};
use crate::config::metadata::{Metadata, MetadataPath};

/// What is said about a route, for filters.
pub(in crate::xds::translate) fn metadata(wire: Option<&WireMetadata>) -> Metadata {
    let mut metadata = Metadata::default();
    for (namespace, fields) in wire.iter().flat_map(|wire| &wire.filter_metadata) {
        metadata.merge(namespace, struct_to_json(fields));
    }
    metadata
}

/// A test of one value.
pub(in crate::xds::translate) fn metadata_match(
    at: &At<'_>,
    wire: &MetadataMatcher,
) -> Result<MetadataMatch, Invalid> {
    let MetadataMatcher {
        filter,
        path,
        value,
        invert,
    } = wire;
    if path.is_empty() {
        return Err(at.field("path").refuse("must not be empty"));
    }
    let at_path = at.field("path");
    let path = path.iter().enumerate().map(|(index, segment)| {
        let PathSegment { segment } = segment;
        let at = at_path.index(index);
        match required(&at.field("segment"), segment.as_ref())? {
            path_segment::Segment::Key(key) => Ok(Arc::from(nonempty(&at.field("key"), key)?)),
        }
    });
    let at_value = at.field("value");
    Ok(MetadataMatch {
        namespace: nonempty(&at.field("filter"), filter)?.into(),
        path: path.collect::<Result<_, Invalid>>()?,
        test: value_test(&at_value, required(&at_value, value.as_ref())?)?,
        invert: *invert,
    })
}

fn value_test(at: &At<'_>, wire: &ValueMatcher) -> Result<ValueTest, Invalid> {
    let ValueMatcher { match_pattern } = wire;
    Ok(
        match required(&at.field("match_pattern"), match_pattern.as_ref())? {
            MatchPattern::NullMatch(_) => ValueTest::Null,
            MatchPattern::DoubleMatch(number) => {
                let at = at.field("double_match");
                match required(&at.field("match_pattern"), number.match_pattern.as_ref())? {
                    NumberPattern::Range(range) => ValueTest::Range(range.start, range.end),
                    NumberPattern::Exact(number) => ValueTest::Number(*number),
                }
            }
            MatchPattern::StringMatch(text) => {
                ValueTest::Text(text_match(&at.field("string_match"), text)?)
            }
            MatchPattern::BoolMatch(truth) => ValueTest::Bool(*truth),
            MatchPattern::PresentMatch(true) => ValueTest::Present,
            MatchPattern::PresentMatch(false) => ValueTest::Absent,
            MatchPattern::ListMatch(list) => {
                let at = at.field("list_match");
                match required(&at.field("match_pattern"), list.match_pattern.as_ref())? {
                    ListPattern::OneOf(test) => {
                        ValueTest::ListWith(Box::new(value_test(&at.field("one_of"), test)?))
                    }
                }
            }
            MatchPattern::OrMatch(or) => {
                let at = at.field("or_match");
                let at = at.field("value_matchers");
                let tests = or.value_matchers.iter().enumerate();
                let tests = tests.map(|(index, test)| value_test(&at.index(index), test));
                ValueTest::OneOf(tests.collect::<Result<_, _>>()?)
            }
        },
    )
}

/// Where a value of metadata is found.
pub(super) fn metadata_path(at: &At<'_>, wire: &MetadataKey) -> Result<MetadataPath, Invalid> {
    let MetadataKey { key, path } = wire;
    let at_path = at.field("path");
    let path = path.iter().enumerate().map(|(index, segment)| {
        let at = at_path.index(index);
        match required(&at.field("segment"), segment.segment.as_ref())? {
            key_segment::Segment::Key(key) => Ok(Arc::from(nonempty(&at.field("key"), key)?)),
            key_segment::Segment::Index(index) => Err(at.field("index").refuse_value(index)),
        }
    });
    Ok(MetadataPath {
        namespace: nonempty(&at.field("key"), key)?.into(),
        path: path.collect::<Result<_, Invalid>>()?,
    })
}
