//! Which descriptors some JSON needs: those of the message that it stands for, and of the messages that it names by `@type`.
//!
//! Building the descriptors of everything was most of what a proxy did until it served; a bootstrap needs half of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost_reflect::DescriptorPool;
use serde_json::Value;

use crate::any::type_name;
use crate::{DESCRIPTOR_SET, descriptors_in_use};

/// A `google.protobuf.FileDescriptorSet` whose files stay encoded.
#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

/// What tells whether a file is needed: a part of `google.protobuf.FileDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    imports: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Declared>,
}

/// The name of a message: a part of `google.protobuf.DescriptorProto`.
#[derive(Clone, PartialEq, Message)]
struct Declared {
    #[prost(string, tag = "1")]
    name: String,
}

impl File {
    /// Whether a message of this full name, or the one that it is nested in, is declared here.
    fn declares(&self, full_name: &str) -> bool {
        let inside = full_name
            .strip_prefix(&*self.package)
            .and_then(|rest| rest.strip_prefix('.'));
        let outermost = inside.and_then(|inside| inside.split('.').next());
        let mut messages = self.messages.iter();
        outermost.is_some_and(|name| messages.any(|message| message.name == name))
    }
}

/// The descriptors with which JSON is read as the message of this name. Those of everything, where somebody has them.
pub(crate) fn for_json(name: &str, json: &Value) -> Arc<DescriptorPool> {
    if let Some(all) = descriptors_in_use() {
        return all;
    }
    let mut names = BTreeSet::from([name]);
    named(json, &mut names);
    Arc::new(of(&names))
}

/// The full names behind all `@type` of a value.
fn named<'a>(json: &'a Value, names: &mut BTreeSet<&'a str>) {
    match json {
        Value::Object(fields) => {
            if let Some(Value::String(url)) = fields.get("@type") {
                names.insert(type_name(url));
            }
            fields.values().for_each(|value| named(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| named(value, names)),
        _ => {}
    }
}

/// The files that declare these messages, and all that they import. What nobody declares is not there.
fn of(names: &BTreeSet<&str>) -> DescriptorPool {
    const VALID: &str = "the build script wrote a valid descriptor set";
    let all = Encoded::decode(Bytes::from_static(DESCRIPTOR_SET)).expect(VALID);
    let read = |file: &Bytes| File::decode(file.clone()).expect(VALID);
    let files: Vec<File> = all.files.iter().map(read).collect();
    let is_needed = needed(&files, names);
    let files = all.files.into_iter().zip(is_needed);
    let chosen = Encoded {
        files: files
            .filter_map(|(file, is_needed)| is_needed.then_some(file))
            .collect(),
    };
    DescriptorPool::decode(chosen.encode_to_vec().as_slice()).expect(VALID)
}

fn needed(files: &[File], names: &BTreeSet<&str>) -> Vec<bool> {
    let by_name = files.iter().enumerate();
    let by_name: BTreeMap<&str, usize> = by_name.map(|(at, file)| (&*file.name, at)).collect();
    let declares = |file: &File| names.iter().any(|name| file.declares(name));
    let mut waiting: Vec<usize> = (0..files.len())
        .filter(|at| declares(&files[*at]))
        .collect();
    let mut is_needed = vec![false; files.len()];
    while let Some(at) = waiting.pop() {
        if !std::mem::replace(&mut is_needed[at], true) {
            let imports = files[at].imports.iter();
            waiting.extend(imports.filter_map(|import| by_name.get(&**import)));
        }
    }
    is_needed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn files(pool: &DescriptorPool) -> usize {
        pool.files().len()
    }

    #[test]
    fn a_message_of_each_file_can_be_had_with_all_that_it_refers_to() {
        let all = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
        for file in all.files() {
            let Some(message) = file.messages().next() else {
                continue;
            };
            let pool = of(&BTreeSet::from([message.full_name()]));
            let found = pool.get_message_by_name(message.full_name());
            assert!(found.is_some(), "{}", message.full_name());
        }
    }

    #[test]
    fn what_is_neither_meant_nor_named_is_left_out() {
        let hcm =
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let json =
            json!({"filters": [{"typed_config": {"@type": format!("type.googleapis.com/{hcm}")}}]});
        let mut names = BTreeSet::from(["envoy.config.listener.v3.Listener"]);
        named(&json, &mut names);

        let pool = of(&names);

        assert!(pool.get_message_by_name(hcm).is_some());
        let jwt = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
        assert!(pool.get_message_by_name(jwt).is_none());
        let all = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
        assert!(files(&pool) * 2 < files(&all));
    }

    #[test]
    fn a_nested_message_is_found_by_the_one_around_it() {
        let nested = "envoy.config.cluster.v3.Cluster.OutlierDetectionNone";
        assert!(
            of(&BTreeSet::from([nested]))
                .get_message_by_name("envoy.config.cluster.v3.Cluster")
                .is_some()
        );
        assert_eq!(
            files(&of(&BTreeSet::from(["nobody.Knows"]))),
            files(&of(&BTreeSet::new()))
        );
    }
}
