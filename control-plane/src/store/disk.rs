//! The store's file: objects, counters and revisions in redb. Blocking; called from the store's writer only.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::Error;
use super::object::Object;
use super::snapshot::Snapshot;
use super::transaction::Change;
use crate::kinds;
use crate::revisions::Revision;

/// `<resource>\0<namespace>\0<name>` → JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("revisions");

const RESOURCE_VERSION: &str = "resource-version";
const REVISION: &str = "revision";

/// How many revisions are kept.
const REVISIONS_KEPT: u64 = 1000;

/// The open file.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let database = open_private(path).map_err(|source| Error::Open {
            path: path.to_owned(),
            source,
        })?;
        let write = database.begin_write().map_err(storage)?;
        write.open_table(OBJECTS).map_err(storage)?;
        write.open_table(COUNTERS).map_err(storage)?;
        write.open_table(REVISIONS).map_err(storage)?;
        write.commit().map_err(storage)?;
        Ok(Self { database })
    }

    /// Everything that is stored. Objects of kinds that this version does not know stay where they are, unread.
    pub(super) fn load(&self) -> Result<Snapshot, Error> {
        let read = self.database.begin_read().map_err(storage)?;
        let counters = read.open_table(COUNTERS).map_err(storage)?;
        let counter = |name| -> Result<u64, Error> {
            Ok(counters
                .get(name)
                .map_err(storage)?
                .map_or(0, |guard| guard.value()))
        };
        let mut snapshot = Snapshot::new(counter(RESOURCE_VERSION)?, counter(REVISION)?);
        let objects = read.open_table(OBJECTS).map_err(storage)?;
        for entry in objects.iter().map_err(storage)? {
            let (key, bytes) = entry.map_err(storage)?;
            let resource = key.value().split('\0').next().unwrap_or_default();
            let Some(kind) = kinds::by_resource(resource) else {
                tracing::warn!(resource, "a stored object is of an unknown kind");
                continue;
            };
            let value: Value = serde_json::from_slice(bytes.value()).map_err(storage)?;
            snapshot.insert(Arc::new(Object::new(kind, value)));
        }
        Ok(snapshot)
    }

    /// Writes the changes and the counters, all or nothing, and returns when they are on the disk.
    pub(super) fn commit(
        &self,
        changes: &[Arc<Change>],
        snapshot: &Snapshot,
        revision: Option<&Revision>,
    ) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(storage)?;
        {
            let mut objects = write.open_table(OBJECTS).map_err(storage)?;
            for change in changes {
                write_change(&mut objects, change)?;
            }
            let mut counters = write.open_table(COUNTERS).map_err(storage)?;
            counters
                .insert(RESOURCE_VERSION, snapshot.resource_version())
                .map_err(storage)?;
            counters
                .insert(REVISION, snapshot.revision())
                .map_err(storage)?;
            if let Some(revision) = revision {
                let mut revisions = write.open_table(REVISIONS).map_err(storage)?;
                let bytes = serde_json::to_vec(revision).map_err(storage)?;
                revisions
                    .insert(revision.number, bytes.as_slice())
                    .map_err(storage)?;
                if let Some(oldest) = revision.number.checked_sub(REVISIONS_KEPT) {
                    revisions.remove(oldest).map_err(storage)?;
                }
            }
        }
        write.commit().map_err(storage)
    }

    /// The newest revisions, newest first.
    pub(super) fn revisions(&self, limit: usize) -> Result<Vec<Revision>, Error> {
        let read = self.database.begin_read().map_err(storage)?;
        let revisions = read.open_table(REVISIONS).map_err(storage)?;
        let mut found = Vec::new();
        for entry in revisions.iter().map_err(storage)?.rev().take(limit) {
            let (_, bytes) = entry.map_err(storage)?;
            found.push(serde_json::from_slice(bytes.value()).map_err(storage)?);
        }
        Ok(found)
    }

    /// One revision.
    pub(super) fn revision(&self, number: u64) -> Result<Option<Revision>, Error> {
        let read = self.database.begin_read().map_err(storage)?;
        let revisions = read.open_table(REVISIONS).map_err(storage)?;
        match revisions.get(number).map_err(storage)? {
            Some(bytes) => Ok(Some(
                serde_json::from_slice(bytes.value()).map_err(storage)?,
            )),
            None => Ok(None),
        }
    }
}

/// Secrets are in it: only its owner may read it, from the first byte on.
fn open_private(path: &Path) -> Result<Database, Box<dyn std::error::Error + Send + Sync>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    Ok(Database::builder().create_file(file)?)
}

fn write_change(
    objects: &mut redb::Table<'_, &'static str, &'static [u8]>,
    change: &Change,
) -> Result<(), Error> {
    let object = change.object();
    let name = object.name();
    let key = format!(
        "{}\0{}\0{}",
        object.kind().resource(),
        name.namespace,
        name.name
    );
    match change {
        Change::Added(_) | Change::Modified { .. } => {
            let bytes = serde_json::to_vec(object.value()).map_err(storage)?;
            objects
                .insert(key.as_str(), bytes.as_slice())
                .map_err(storage)?;
        }
        Change::Deleted { .. } => {
            objects.remove(key.as_str()).map_err(storage)?;
        }
    }
    Ok(())
}

fn storage(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Storage {
        source: Box::new(source),
    }
}
