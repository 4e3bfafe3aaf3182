//! Fields that the sender set and this crate does not know, found in the encoded bytes.
//!
//! Decoding drops them in silence, and a policy that is silently half applied is worse than one refused. So
//! the proxy asks here before it accepts a resource. The bytes are walked beside the table of fields, through
//! nested messages and every `Any` of known type; nothing is decoded into messages, and depth and the number
//! of answers are bounded.

use crate::any::type_name;
use crate::path::{Path, Step};
use crate::table::{self, Contents, Field, Holds, Message};

/// How deep messages may nest, counted through every `Any`; prost's own limit for one message.
const MAX_DEPTH: usize = 100;

/// How many paths are reported at most: enough to act upon, too few to be used against us.
const MAX_PATHS: usize = 32;

/// Why the bytes could not be searched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownError {
    /// No such message in this crate.
    #[error("unknown message {0}")]
    Message(String),
    /// The bytes are not a message of that type.
    #[error("malformed bytes in {0:?}")]
    Malformed(String),
    /// Messages nest deeper than 100 levels.
    #[error("nested too deeply in {0:?}")]
    TooDeep(String),
}

/// The paths of all unknown fields, such as `filter_chains[0].filters[1].typed_config.<field 99>`.
///
/// An `Any` of unknown type is passed over: whoever needs it will miss it by name. At most 32 paths are
/// reported.
pub fn fields(type_url: &str, bytes: &[u8]) -> Result<Vec<String>, UnknownError> {
    let name = type_name(type_url);
    let message = table::message(name).ok_or_else(|| UnknownError::Message(name.to_owned()))?;
    let mut search = Search { found: Vec::new() };
    search.message(message, bytes, &Path::ROOT)?;
    Ok(search.found)
}

struct Search {
    found: Vec<String>,
}

impl Search {
    fn message(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        path: &Path<'_>,
    ) -> Result<(), UnknownError> {
        if path.depth > MAX_DEPTH {
            return Err(UnknownError::TooDeep(path.to_string()));
        }
        match message.contents() {
            Contents::Any => return self.any(bytes, path),
            Contents::WellKnown => return Ok(()),
            Contents::Fields { .. } => {}
        }
        let mut seen = Occurrences::default();
        for entry in Wire(bytes) {
            let (number, value) = entry.map_err(|Malformed| path.malformed())?;
            match message.field(number) {
                None => self.report(path, number),
                Some(field) => self.field(field, value, &mut seen, path)?,
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &'static Field,
        value: WireValue<'_>,
        seen: &mut Occurrences,
        path: &Path<'_>,
    ) -> Result<(), UnknownError> {
        let holds = field.holds();
        if let Holds::Scalars = holds {
            return Ok(());
        }
        let WireValue::Bytes(bytes) = value else {
            return Err(path.malformed());
        };
        match holds {
            Holds::Scalars | Holds::ScalarMap => Ok(()),
            Holds::Map(inner) => self.map_entry(field, inner, bytes, path),
            Holds::Message(inner) => {
                self.message(inner, bytes, &path.child(Step::Field(field.name())))
            }
            Holds::List(inner) => {
                let step = Step::Element(field.name(), seen.next(field.number()));
                self.message(inner, bytes, &path.child(step))
            }
        }
    }

    fn map_entry(
        &mut self,
        field: &'static Field,
        inner: &'static Message,
        bytes: &[u8],
        path: &Path<'_>,
    ) -> Result<(), UnknownError> {
        let (mut key, mut value) = (String::new(), &[][..]);
        for entry in Wire(bytes) {
            match entry.map_err(|Malformed| path.malformed())? {
                (1, WireValue::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
                (1, WireValue::Number(number)) => key = number.to_string(),
                (2, WireValue::Bytes(bytes)) => value = bytes,
                _ => return Err(path.malformed()),
            }
        }
        self.message(inner, value, &path.child(Step::Entry(field.name(), &key)))
    }

    fn any(&mut self, bytes: &[u8], path: &Path<'_>) -> Result<(), UnknownError> {
        let (mut type_url, mut value) = ("", &[][..]);
        for entry in Wire(bytes) {
            match entry.map_err(|Malformed| path.malformed())? {
                (1, WireValue::Bytes(bytes)) => {
                    type_url = std::str::from_utf8(bytes).map_err(|_| path.malformed())?;
                }
                (2, WireValue::Bytes(bytes)) => value = bytes,
                (1 | 2, WireValue::Number(_)) => return Err(path.malformed()),
                (number, _) => self.report(path, number),
            }
        }
        match table::message(type_name(type_url)) {
            // One level more, so that an Any in an Any in an Any … ends too.
            Some(message) => self.message(message, value, &path.child(Step::Inside)),
            None => Ok(()),
        }
    }

    fn report(&mut self, path: &Path<'_>, number: u32) {
        if self.found.len() < MAX_PATHS {
            self.found.push(path.unknown(number));
        }
    }
}

/// How often each repeated field of one message was seen.
#[derive(Default)]
struct Occurrences(Vec<(u32, usize)>);

impl Occurrences {
    /// The index of this occurrence.
    fn next(&mut self, number: u32) -> usize {
        match self.0.iter_mut().find(|(seen, _)| *seen == number) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.0.push((number, 0));
                0
            }
        }
    }
}

impl Path<'_> {
    fn unknown(&self, number: u32) -> String {
        match self.to_string() {
            path if path.is_empty() => format!("<field {number}>"),
            path => format!("{path}.<field {number}>"),
        }
    }

    fn malformed(&self) -> UnknownError {
        UnknownError::Malformed(self.to_string())
    }
}

/// The fields of an encoded message, one after the other.
struct Wire<'a>(&'a [u8]);

enum WireValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Malformed;

impl<'a> Iterator for Wire<'a> {
    type Item = Result<(u32, WireValue<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Wire<'a> {
    /// One field: <https://protobuf.dev/programming-guides/encoding/#structure>.
    fn field(&mut self) -> Result<(u32, WireValue<'a>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match key & 7 {
            0 => WireValue::Number(self.varint()?),
            1 => WireValue::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                WireValue::Bytes(self.take(length)?)
            }
            5 => WireValue::Bytes(self.take(4)?),
            // 3 and 4 are groups, which proto3 has not.
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }

    /// Seven bits a byte, the lowest first; ten bytes hold 64 bits.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::any::{Any, pack};
    use crate::envoy::config::core::v3::{Metadata, TypedExtensionConfig};
    use crate::envoy::config::listener::v3::filter::ConfigType;
    use crate::envoy::config::listener::v3::{Filter, FilterChain, Listener};
    use crate::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
    use crate::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
    use crate::type_urls;
    use bytes::Bytes;
    use prost::Message as _;

    /// `<field 99>` with the number 1.
    const FIELD_99: &[u8] = &[0x98, 0x06, 0x01];

    fn with_field_99(mut any: Any) -> Any {
        any.value = [&any.value[..], FIELD_99].concat().into();
        any
    }

    fn filter(config: Any) -> Filter {
        Filter {
            name: "filter".into(),
            config_type: Some(ConfigType::TypedConfig(config)),
        }
    }

    fn listener(filters: Vec<Filter>) -> Listener {
        Listener {
            name: "inbound".into(),
            filter_chains: vec![FilterChain {
                filters,
                ..FilterChain::default()
            }],
            ..Listener::default()
        }
    }

    fn fields_of(any: &Any) -> Result<Vec<String>, UnknownError> {
        fields(&any.type_url, &any.value)
    }

    #[test]
    fn a_known_message_has_none() {
        let any = pack(&listener(vec![filter(pack(&TcpProxy::default()))]));

        assert_eq!(fields_of(&any).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_field_at_the_top_is_found() {
        let any = with_field_99(pack(&Listener::default()));

        assert_eq!(fields_of(&any).unwrap(), ["<field 99>"]);
    }

    #[test]
    fn a_field_inside_an_any_inside_lists_is_found() {
        let any = pack(&listener(vec![
            filter(pack(&TcpProxy::default())),
            filter(with_field_99(pack(&TcpProxy::default()))),
        ]));

        assert_eq!(
            fields_of(&any).unwrap(),
            ["filter_chains[0].filters[1].typed_config.<field 99>"]
        );
    }

    #[test]
    fn a_field_inside_a_map_is_found_by_its_key() {
        let mut routes = RouteConfiguration::default();
        let mut host = VirtualHost::default();
        let config = with_field_99(pack(&TcpProxy::default()));
        host.typed_per_filter_config.insert("fault".into(), config);
        routes.virtual_hosts = vec![VirtualHost::default(), host];

        assert_eq!(
            fields(type_urls::ROUTE_CONFIGURATION, &routes.encode_to_vec()).unwrap(),
            ["virtual_hosts[1].typed_per_filter_config[\"fault\"].<field 99>"]
        );
    }

    #[test]
    fn an_any_of_unknown_type_is_passed_over() {
        let foreign = Any {
            type_url: "type.googleapis.com/foreign.Type".into(),
            value: Bytes::from_static(FIELD_99),
        };
        let any = pack(&listener(vec![filter(foreign)]));

        assert!(fields_of(&any).unwrap().is_empty());
    }

    #[test]
    fn a_struct_is_not_searched() {
        let mut metadata = Metadata::default();
        let object = serde_json::json!({"a": {"b": [1, {"c": null}]}});
        let fields_of_a = crate::wkt::struct_from_json(object.as_object().unwrap());
        metadata.filter_metadata.insert("weft".into(), fields_of_a);

        assert!(fields_of(&pack(&metadata)).unwrap().is_empty());
    }

    #[test]
    fn an_unknown_type_is_an_error() {
        let error = fields("type.googleapis.com/foreign.Type", &[]).unwrap_err();

        assert_eq!(error, UnknownError::Message("foreign.Type".into()));
    }

    #[test]
    fn anys_inside_anys_end_at_a_limit() {
        let mut any = pack(&TypedExtensionConfig::default());
        for _ in 0..10_000 {
            any = pack(&TypedExtensionConfig {
                name: String::new(),
                typed_config: Some(any),
            });
        }

        assert!(matches!(fields_of(&any), Err(UnknownError::TooDeep(_))));
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let bytes = FIELD_99.repeat(1000);

        assert_eq!(
            fields(type_urls::LISTENER, &bytes).unwrap().len(),
            MAX_PATHS
        );
    }

    #[test]
    fn no_damage_to_a_message_makes_it_panic() {
        let message = listener(vec![filter(pack(&TcpProxy {
            stat_prefix: "tcp".into(),
            ..TcpProxy::default()
        }))]);
        let bytes = message.encode_to_vec();
        for position in 0..bytes.len() {
            for replacement in 0..=u8::MAX {
                let mut damaged = bytes.clone();
                damaged[position] = replacement;
                let _ = fields(type_urls::LISTENER, &damaged);
                let _ = fields(type_urls::LISTENER, &damaged[..position]);
            }
        }
    }

    #[test]
    fn what_prost_refuses_to_nest_is_refused_here() {
        use crate::envoy::config::rbac::v3::{Permission, permission::Rule};
        let mut permission = Permission::default();
        for _ in 0..MAX_DEPTH + 1 {
            permission = Permission {
                rule: Some(Rule::NotRule(Box::new(permission))),
            };
        }

        assert!(matches!(
            fields_of(&pack(&permission)),
            Err(UnknownError::TooDeep(_))
        ));
        assert!(Permission::decode(permission.encode_to_vec().as_slice()).is_err());
    }
}
