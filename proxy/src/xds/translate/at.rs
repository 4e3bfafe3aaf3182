//! Where in a resource something is, what is wrong there, and what is passed over.
//!
//! Every translation takes the place of its message along, so that a refusal names the field by its full path.
//! Fields without effect here are noted, and shown once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::{self, Debug, Display};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Name;
use weft_proto::Any;
use weft_proto::any::{type_name, unpack};

use super::control_plane::Source;
use crate::config::runtime::Runtime;
use crate::xds::kind::Kind;
use crate::xds::watch::Watched;

/// Why a resource is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Invalid {
    path: String,
    reason: String,
}

impl Invalid {
    /// What is wrong with a field, by its path from the top of the resource.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }

    /// The field's path from the top of the resource; empty for the resource itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A resource that another one names.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Of which kind it is.
    pub kind: Kind,
    /// What it is called.
    pub name: Arc<str>,
    /// Where its source stands, by the path from the top of the resource.
    pub field: String,
    /// Where it comes from.
    pub source: Source,
    /// How long it is waited for; none: as long as it takes.
    pub limit: Option<Duration>,
}

/// What accompanies a translation: runtime values, and what is found on the way.
#[derive(Debug, Default)]
pub(super) struct Notes {
    runtime: Runtime,
    found: RefCell<Found>,
}

/// What is found on the way.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Paths of fields that are set and have no effect.
    pub(super) paths: BTreeSet<String>,
    /// Resources that are named.
    pub(super) named: Vec<Named>,
    /// Files that were read.
    pub(super) files: BTreeSet<PathBuf>,
    /// Directories that are to be watched for changes of them.
    pub(super) watches: BTreeSet<Watched>,
}

impl Notes {
    /// With these runtime values.
    pub(super) fn with(runtime: &Runtime) -> Self {
        Self {
            runtime: runtime.clone(),
            ..Self::default()
        }
    }

    /// The paths, in order.
    pub(super) fn into_paths(self) -> BTreeSet<String> {
        self.into_found().paths
    }

    /// All of it.
    pub(super) fn into_found(self) -> Found {
        self.found.into_inner()
    }
}

/// A place in a resource.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    segment: Segment<'a>,
    notes: &'a Notes,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

/// Values in a refusal are cut to this many characters.
const MAX_SHOWN: usize = 120;

impl<'a> At<'a> {
    /// The resource itself.
    pub(super) fn root(notes: &'a Notes) -> Self {
        Self {
            parent: None,
            segment: Segment::Root,
            notes,
        }
    }

    /// A field of the message here.
    pub(super) fn field<'b>(&'b self, name: &'b str) -> At<'b> {
        self.child(Segment::Field(name))
    }

    /// One of the values here.
    pub(super) fn index(&self, index: usize) -> At<'_> {
        self.child(Segment::Index(index))
    }

    /// A value of the map here.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        self.child(Segment::Key(key))
    }

    fn child<'b>(&'b self, segment: Segment<'b>) -> At<'b> {
        At {
            parent: Some(self),
            segment,
            notes: self.notes,
        }
    }

    /// What is here is refused.
    pub(super) fn refuse(&self, reason: impl Display) -> Invalid {
        Invalid {
            path: self.to_string(),
            reason: reason.to_string(),
        }
    }

    /// What keys stand for.
    pub(super) fn runtime(&self) -> &'a Runtime {
        &self.notes.runtime
    }

    /// What is here has no effect.
    pub(super) fn note(&self) {
        let mut found = self.notes.found.borrow_mut();
        found.paths.insert(self.to_string());
    }

    /// Another resource is named here.
    pub(super) fn needs(&self, named: Named) {
        self.notes.found.borrow_mut().named.push(named);
    }

    /// A file is read here.
    pub(super) fn reads(&self, file: &str) {
        self.notes.found.borrow_mut().files.insert(file.into());
    }

    /// Changes in a directory mean that files have changed.
    pub(super) fn watches(&self, directory: Watched) {
        self.notes.found.borrow_mut().watches.insert(directory);
    }

    /// A value of this kind is refused.
    pub(super) fn refuse_value(&self, value: impl Debug) -> Invalid {
        let shown: String = format!("{value:?}").chars().take(MAX_SHOWN).collect();
        self.refuse(format_args!("{shown} is not supported"))
    }
}

impl Display for At<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            Display::fmt(parent, formatter)?;
        }
        let is_first = self
            .parent
            .is_none_or(|parent| matches!(parent.segment, Segment::Root));
        match self.segment {
            Segment::Root => Ok(()),
            Segment::Field(name) if is_first => formatter.write_str(name),
            Segment::Field(name) => write!(formatter, ".{name}"),
            Segment::Index(index) => write!(formatter, "[{index}]"),
            Segment::Key(key) => write!(formatter, "[{key:?}]"),
        }
    }
}

/// Whether a field was set to something.
pub(super) trait IsSet: Debug {
    /// Whether it differs from what an absent field decodes to.
    fn is_set(&self) -> bool;
}

macro_rules! set_unless_default {
    ($($type:ty),*) => {
        $(impl IsSet for $type {
            fn is_set(&self) -> bool {
                *self != <$type>::default()
            }
        })*
    };
}

set_unless_default!(String, bool, i32, u32, i64, u64, f64, Bytes);

impl<T: Debug> IsSet for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}

impl<T: Debug> IsSet for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<K: Debug, V: Debug> IsSet for BTreeMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

/// Refuses the message where one of these fields is set: leaving it out would change what is asked for.
macro_rules! unsupported {
    ($at:expr; $($field:ident),+ $(,)?) => {
        $($crate::xds::translate::at::refuse_set(&$at.field(stringify!($field)), $field)?;)+
    };
}

/// Notes these fields where they are set: what they ask for is done in any case, or changes nothing for traffic.
macro_rules! harmless {
    ($at:expr; $($field:ident),+ $(,)?) => {
        $($crate::xds::translate::at::note_set(&$at.field(stringify!($field)), $field);)+
    };
}

pub(super) use {harmless, unsupported};

/// Refuses a field that is set.
pub(super) fn refuse_set(at: &At<'_>, field: &impl IsSet) -> Result<(), Invalid> {
    if field.is_set() {
        Err(at.refuse_value(field))
    } else {
        Ok(())
    }
}

/// Notes a field that is set.
pub(super) fn note_set(at: &At<'_>, field: &impl IsSet) {
    if field.is_set() {
        at.note();
    }
}

/// What must be there.
pub(super) fn required<'field, T>(
    at: &At<'_>,
    field: Option<&'field T>,
) -> Result<&'field T, Invalid> {
    field.ok_or_else(|| at.refuse("missing"))
}

/// A text that must not be empty.
pub(super) fn nonempty<'field>(at: &At<'_>, text: &'field str) -> Result<&'field str, Invalid> {
    if text.is_empty() {
        Err(at.refuse("must not be empty"))
    } else {
        Ok(text)
    }
}

/// A duration where there is one.
pub(super) fn duration(
    at: &At<'_>,
    field: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, Invalid> {
    field
        .map(|duration| {
            weft_proto::wkt::from_wire(duration)
                .map_err(|error| at.refuse(format_args!("no duration: {error}")))
        })
        .transpose()
}

/// A duration of which zero means none, and a default where it is absent.
pub(super) fn limit(
    at: &At<'_>,
    field: Option<&prost_types::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, Invalid> {
    Ok(match duration(at, field)? {
        None => default,
        Some(Duration::ZERO) => None,
        limit => limit,
    })
}

/// The value of an enum that this crate knows.
pub(super) fn enumeration<E: TryFrom<i32>>(at: &At<'_>, number: i32) -> Result<E, Invalid> {
    E::try_from(number).map_err(|_| at.refuse_value(number))
}

/// The message in an `Any`.
pub(super) fn opened<T: Name + Default>(at: &At<'_>, any: &Any) -> Result<T, Invalid> {
    unpack(any).map_err(|error| at.refuse(chain(&error)))
}

/// Whether an `Any` holds a message of type `T`.
pub(super) fn holds<T: Name>(any: &Any) -> bool {
    type_name(&any.type_url) == T::full_name()
}

/// An error with its sources, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_whole_path_and_the_value() {
        let notes = Notes::default();
        let root = At::root(&notes);
        let chains = root.field("filter_chains");
        let chain = chains.index(2);
        let options = chain.field("options");
        let place = options.key("a.b");

        let error = place.refuse_value("RING_HASH");

        assert_eq!(
            error.to_string(),
            "filter_chains[2].options[\"a.b\"]: \"RING_HASH\" is not supported"
        );
    }

    #[test]
    fn notes_are_kept_once_each() {
        let notes = Notes::default();
        let root = At::root(&notes);
        note_set(&root.field("flag"), &true);
        note_set(&root.field("flag"), &true);
        note_set(&root.field("unset"), &Some(1).filter(|_| false));

        assert_eq!(notes.into_paths(), BTreeSet::from(["flag".to_owned()]));
    }
}
