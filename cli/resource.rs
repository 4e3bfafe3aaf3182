//! Resource kinds, as the API's own discovery lists them: from what people type, and from what files hold, to a path.

use serde_json::Value;

use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::suggest;

/// One kind of resource.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) kind: String,
    pub(crate) plural: String,
    group_version: String,
    singular: String,
    short_names: Vec<String>,
    is_namespaced: bool,
}

/// All kinds of the API.
#[derive(Debug)]
pub(crate) struct Kinds(Vec<Kind>);

impl Kinds {
    /// Asks the API.
    pub(crate) async fn discover(mesh: &Mesh) -> Result<Self, Failure> {
        let mut kinds = kinds_of("v1", &mesh.get("/api/v1").await?);
        let groups = mesh.get("/apis").await?;
        for group in groups["groups"].as_array().into_iter().flatten() {
            let version = text(&group["preferredVersion"]["groupVersion"]);
            kinds.extend(kinds_of(
                &version,
                &mesh.get(&format!("/apis/{version}")).await?,
            ));
        }
        Ok(Self(kinds))
    }

    /// The kind behind a word: plural, singular, short name, or kind, with or without its group.
    pub(crate) fn find(&self, word: &str) -> Result<&Kind, Failure> {
        let word = word.to_lowercase();
        let name = word.split('.').next().unwrap_or_default();
        let found = self.0.iter().find(|kind| {
            kind.plural == name
                || kind.singular == name
                || kind.kind.to_lowercase() == name
                || kind.short_names.iter().any(|short| short == name)
        });
        found.ok_or_else(|| {
            let known: Vec<&str> = self.0.iter().map(|kind| kind.plural.as_str()).collect();
            let hint = suggest::hint(&word, known.iter().copied());
            Failure::not_found(format!(
                "there is no kind {word:?}{hint}; kinds are: {}",
                known.join(", ")
            ))
        })
    }

    /// The kind of an object.
    pub(crate) fn of(&self, object: &Value) -> Result<&Kind, Failure> {
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let found = self
            .0
            .iter()
            .find(|known| known.kind == kind && known.group_version == version);
        found.ok_or_else(|| {
            Failure::refused(format!(
                "the API knows no kind {kind:?} of apiVersion {version:?}"
            ))
        })
    }
}

impl Kind {
    /// The path of a collection.
    pub(crate) fn collection(&self, namespace: &str) -> String {
        let root = match self.group_version.as_str() {
            "v1" => "/api/v1".to_owned(),
            version => format!("/apis/{version}"),
        };
        match self.is_namespaced {
            true => format!("{root}/namespaces/{namespace}/{}", self.plural),
            false => format!("{root}/{}", self.plural),
        }
    }

    /// The path of one object.
    pub(crate) fn path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection(namespace))
    }

    /// `httproute.gateway.networking.k8s.io/reviews`, as kubectl names an object.
    pub(crate) fn title(&self, name: &str) -> String {
        match self.group_version.split_once('/') {
            Some((group, _)) => format!("{}.{group}/{name}", self.singular),
            None => format!("{}/{name}", self.singular),
        }
    }
}

/// The name of an object.
pub(crate) fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

/// A string of a JSON value, or nothing.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn kinds_of(group_version: &str, list: &Value) -> Vec<Kind> {
    let resources = list["resources"].as_array().into_iter().flatten();
    let whole = resources.filter(|resource| !text(&resource["name"]).contains('/'));
    whole
        .map(|resource| Kind {
            kind: text(&resource["kind"]),
            plural: text(&resource["name"]),
            group_version: group_version.to_owned(),
            singular: match text(&resource["singularName"]) {
                singular if singular.is_empty() => text(&resource["kind"]).to_lowercase(),
                singular => singular,
            },
            short_names: resource["shortNames"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect(),
            is_namespaced: resource["namespaced"].as_bool().unwrap_or_default(),
        })
        .collect()
}
