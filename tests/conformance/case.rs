//! What a file of cases says.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A configuration, and what is sent to whoever runs it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFile {
    /// `routing/path`: from where it is.
    #[serde(skip)]
    pub(crate) name: String,
    /// What the cases are about, for who reads them.
    #[serde(rename = "about")]
    _about: String,
    #[serde(default)]
    pub(crate) configuration: Settings,
    /// A place for what several cases share, as YAML anchors.
    #[serde(default, rename = "shared")]
    _shared: Value,
    /// Expected in some case of the file; in which doesn't matter.
    #[serde(default)]
    pub(crate) differs: Vec<ExpectedDifference>,
    pub(crate) cases: Vec<Case>,
}

/// What a file changes in the configuration that all share; see `configuration.rs`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Of the one virtual host.
    pub(crate) routes: Option<Value>,
    /// Instead of the one virtual host.
    pub(crate) virtual_hosts: Option<Value>,
    /// Merged into the route configuration.
    #[serde(default)]
    pub(crate) route_config: Map<String, Value>,
    /// Merged into the HTTP connection manager.
    #[serde(default)]
    pub(crate) manager: Map<String, Value>,
    /// HTTP filters before the router.
    #[serde(default)]
    pub(crate) filters: Vec<Value>,
    /// Instead of the HTTP connection manager.
    pub(crate) network: Option<Value>,
    /// Of the listener's one filter chain.
    pub(crate) transport_socket: Option<Value>,
    /// Merged into the listener.
    #[serde(default)]
    pub(crate) listener: Map<String, Value>,
    /// More listeners, whole.
    #[serde(default)]
    pub(crate) listeners: Vec<Value>,
    /// Merged into the cluster `upstream`.
    #[serde(default)]
    pub(crate) cluster: Map<String, Value>,
    /// More clusters, whole.
    #[serde(default)]
    pub(crate) clusters: Vec<Value>,
    /// Merged into the bootstrap.
    #[serde(default)]
    pub(crate) bootstrap: Map<String, Value>,
    /// What a line of the access log says.
    pub(crate) log_format: Option<String>,
    /// SETTINGS with which the upstream begins a connection of HTTP/2, as pairs of identifier and value.
    pub(crate) upstream_settings: Option<Vec<(u16, u32)>>,
}

/// One behaviour.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub(crate) struct Case {
    pub(crate) name: String,
    /// One after the other, each on a connection of its own.
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) differs: Vec<ExpectedDifference>,
    /// Only these places are compared, where the rest is left to chance.
    pub(crate) only: Vec<String>,
    /// Counters that must be the same and must be there, besides those that both happen to have.
    pub(crate) counters: Vec<String>,
    /// Whether requests reach the upstream in an order that is left to chance: they are compared by line and port, and responses
    /// by status.
    pub(crate) any_order: bool,
    /// Whether answers of weft's own are compared with all that belongs to their bodies.
    pub(crate) own_bodies: bool,
}

/// What is sent, and what the upstream answers.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// First the admin interface is asked for this, `POST /path`, and must agree.
    pub(crate) admin: Option<String>,
    /// Then these lines are waited for in the admin interface's `/clusters`.
    #[serde(default)]
    pub(crate) until: Vec<String>,
    /// A path: short for a `GET` of it.
    pub(crate) get: Option<String>,
    /// Header lines of `get`.
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    /// A head in lines, and after an empty line the body as it is.
    pub(crate) request: Option<String>,
    /// The very bytes, each a character up to U+00FF; several are sent with a pause between them.
    pub(crate) raw: Option<OneOrMany>,
    /// HTTP/2 frames.
    pub(crate) h2: Option<Vec<Value>>,
    /// What the client does on a TCP connection.
    pub(crate) tcp: Option<Vec<Value>>,
    /// Sends no more after that.
    #[serde(default)]
    pub(crate) half_close: bool,
    /// Over TLS.
    pub(crate) tls: Option<ClientTls>,
    /// What Envoy does.
    pub(crate) expect: Option<Value>,
    /// The listener's port.
    pub(crate) port: Option<u16>,
    /// How many responses are waited for, at least.
    pub(crate) responses: Option<usize>,
    /// For how many seconds, at most.
    pub(crate) wait: Option<f64>,
    /// What the upstream answers, in order; after that 200.
    #[serde(default)]
    pub(crate) upstream: Vec<Value>,
    /// What is always answered at a port, whatever is answered elsewhere.
    #[serde(default)]
    pub(crate) upstream_at: BTreeMap<u16, Value>,
    /// What is answered to health checks (paths that begin with `/health`) at a port; else 200. They are not
    /// counted as requests.
    #[serde(default)]
    pub(crate) health: BTreeMap<u16, Value>,
    /// What the upstream does on each TCP connection.
    pub(crate) upstream_tcp: Option<Vec<Value>>,
}

/// How the client speaks TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientTls {
    /// The server's name, as SNI.
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) alpn: Vec<String>,
    /// `client`, or `stranger`, whom nobody has vouched for.
    pub(crate) certificate: Option<String>,
    /// `1.2` or `1.3` alone.
    pub(crate) version: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Where the two differ, and the paragraph that says why.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedDifference {
    /// Places; one that ends with `*` stands for all that begin so.
    #[serde(rename = "where")]
    pub(crate) places: OneOrMany,
    /// The key of the paragraph.
    pub(crate) because: String,
    /// What weft does there, as a failure prints it; so that it goes on doing so.
    pub(crate) weft: Option<String>,
}

impl ExpectedDifference {
    pub(crate) fn places(&self) -> &[String] {
        match &self.places {
            OneOrMany::One(place) => std::slice::from_ref(place),
            OneOrMany::Many(places) => places,
        }
    }
}

impl CaseFile {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a file of cases");
        let value: Value = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut file: Self = serde_json::from_value(value)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.name = name_of(path);
        // There the body is what the file is about.
        let own_bodies = file
            .configuration
            .manager
            .contains_key("local_reply_config");
        for case in &mut file.cases {
            case.own_bodies = own_bodies;
        }
        assert!(!file.cases.is_empty(), "{}: no cases", path.display());
        file
    }

    /// `routing/path::a_prefix_matches`.
    pub(crate) fn title(&self, case: usize) -> String {
        format!("{}::{}", self.name, self.cases[case].name.replace(' ', "_"))
    }
}

impl Case {
    /// Whether a difference is expected at a place, whatever the file says of all its cases.
    pub(crate) fn expects(&self, place: &str) -> bool {
        let mut places = self.differs.iter().flat_map(ExpectedDifference::places);
        places.any(|expected| is_at(expected, place))
    }
}

/// Whether a place is the one that is expected, or one of those.
pub(crate) fn is_at(expected: &str, place: &str) -> bool {
    match expected.strip_suffix('*') {
        Some(prefix) => place.starts_with(prefix),
        None => expected == place,
    }
}

impl TryFrom<Map<String, Value>> for Case {
    type Error = serde_json::Error;

    /// `exchanges`, or the fields of the only one beside `name`.
    fn try_from(mut fields: Map<String, Value>) -> Result<Self, Self::Error> {
        let name = take(&mut fields, "name")?;
        let differs: Option<_> = take(&mut fields, "differs")?;
        let only: Option<_> = take(&mut fields, "only")?;
        let counters: Option<_> = take(&mut fields, "counters")?;
        let any_order: Option<_> = take(&mut fields, "any_order")?;
        let exchanges = match take(&mut fields, "exchanges")? {
            Some(exchanges) if fields.is_empty() => exchanges,
            _ => vec![serde_json::from_value(Value::Object(fields))?],
        };
        Ok(Self {
            name,
            exchanges,
            differs: differs.unwrap_or_default(),
            only: only.unwrap_or_default(),
            counters: counters.unwrap_or_default(),
            any_order: any_order.unwrap_or_default(),
            own_bodies: false,
        })
    }
}

fn take<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    name: &str,
) -> Result<T, serde_json::Error> {
    serde_json::from_value(fields.remove(name).unwrap_or_default())
}

fn name_of(path: &Path) -> String {
    let topic = path.parent().and_then(Path::file_name);
    let file = path.file_stem();
    [topic, file]
        .into_iter()
        .flatten()
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}
