//! Sandboxes: their records, and what is made and undone for each.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weft_proto::names::SIDECAR_UID;
use weft_proto::weft::node::v1::{ApplyRulesRequest, CreateSandboxRequest, Sandbox};

use super::failure::{Failure, check_id};
use super::{Shared, containers};
use crate::files;
use crate::network::Attachment;
use crate::network::rules::{self, RuleSet};

/// The label that says in which namespace short names of the mesh DNS are looked up.
const NAMESPACE_LABEL: &str = "namespace";
/// Key, certificate and configuration of a sidecar.
const SIDECAR_STATE_BYTES: &str = "16m";

/// What is known of a sandbox, as it is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) hostname: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) attachment: Attachment,
}

impl Record {
    fn to_wire(&self) -> Sandbox {
        Sandbox {
            id: self.id.clone(),
            ipv4: self.attachment.addresses.ipv4().to_string(),
            ipv6: self.attachment.addresses.ipv6().to_string(),
            network_namespace: self.attachment.inode,
            labels: self.labels.clone(),
        }
    }

    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        let addresses = self.attachment.addresses;
        [addresses.ipv4().into(), addresses.ipv6().into()]
    }
}

/// All sandboxes. One that is being made has a place and no record.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    records: Mutex<HashMap<String, Option<Record>>>,
    /// Rules are applied one after the other: each has to know the tables of the one before.
    applying: tokio::sync::Mutex<()>,
}

impl Sandboxes {
    pub(super) fn find(&self, id: &str) -> Result<Record, Failure> {
        let found = self.records.lock().get(id).cloned().flatten();
        found.ok_or_else(|| Failure::NotFound {
            kind: "sandbox",
            id: id.to_owned(),
        })
    }

    pub(super) fn list(&self) -> Vec<Sandbox> {
        let mut sandboxes: Vec<Sandbox> = self
            .records
            .lock()
            .values()
            .flatten()
            .map(Record::to_wire)
            .collect();
        sandboxes.sort_by(|a, b| a.id.cmp(&b.id));
        sandboxes
    }

    fn reserve(&self, id: &str) -> Result<(), Failure> {
        let mut records = self.records.lock();
        if records.contains_key(id) {
            return Err(Failure::Exists {
                kind: "sandbox",
                id: id.to_owned(),
            });
        }
        records.insert(id.to_owned(), None);
        Ok(())
    }
}

/// Makes a sandbox; what was made before a failure is undone.
pub(super) async fn create(
    shared: &Shared,
    request: CreateSandboxRequest,
) -> Result<Sandbox, Failure> {
    check_id("id", &request.id)?;
    if request.hostname.len() > 64 || request.hostname.contains('\0') {
        return Err(Failure::invalid(
            "hostname",
            "longer than 64 bytes, or no text",
        ));
    }
    shared.sandboxes.reserve(&request.id)?;
    let id = request.id.clone();
    let made = make(shared, request).await;
    if made.is_err() {
        shared.sandboxes.records.lock().remove(&id);
    }
    made
}

async fn make(shared: &Shared, request: CreateSandboxRequest) -> Result<Sandbox, Failure> {
    let rules = RuleSet {
        ipv4: request.ipv4_rules,
        ipv6: request.ipv6_rules,
    };
    let attachment = shared.network.attach(&request.id, rules).await?;
    let hostname = if request.hostname.is_empty() {
        request.id.clone()
    } else {
        request.hostname
    };
    let record = Record {
        id: request.id,
        hostname,
        labels: request.labels,
        attachment,
    };
    if let Err(failure) = write(shared, &record) {
        shared.network.detach(&record.attachment).await;
        return Err(failure);
    }
    let wire = record.to_wire();
    admit(shared, record);
    Ok(wire)
}

fn write(shared: &Shared, record: &Record) -> Result<(), Failure> {
    let directory = directory(shared, &record.id);
    fs::create_dir_all(&directory)
        .and_then(|()| files::replace_json(&directory.join("record.json"), record))
        .map_err(Failure::system("writing the sandbox's record"))
}

fn admit(shared: &Shared, record: Record) {
    let namespace = record
        .labels
        .get(NAMESPACE_LABEL)
        .map_or("default", String::as_str);
    shared.dns.names.add_client(record.addresses(), namespace);
    shared
        .sandboxes
        .records
        .lock()
        .insert(record.id.clone(), Some(record));
}

/// Replaces the rules of a sandbox.
pub(super) async fn apply_rules(
    shared: &Shared,
    request: ApplyRulesRequest,
) -> Result<(), Failure> {
    let _alone = shared.sandboxes.applying.lock().await;
    let mut record = shared.sandboxes.find(&request.id)?;
    let rules = RuleSet {
        ipv4: request.ipv4_rules,
        ipv6: request.ipv6_rules,
    };
    let attachment = &record.attachment;
    let tables = rules::apply(&attachment.namespace, rules, attachment.tables.clone()).await?;
    record.attachment.tables = tables;
    write(shared, &record)?;
    let mut records = shared.sandboxes.records.lock();
    // Removed meanwhile: it stays removed.
    if let Some(known) = records.get_mut(&request.id) {
        *known = Some(record);
    }
    Ok(())
}

/// Removes a sandbox with all that runs in it; there may be none.
pub(super) async fn remove(shared: &Arc<Shared>, id: &str) -> Result<(), Failure> {
    let Ok(record) = shared.sandboxes.find(id) else {
        return Ok(());
    };
    containers::remove_all_of(shared, id).await?;
    shared.dns.names.remove_client(record.addresses());
    shared.network.detach(&record.attachment).await;
    let directory = directory(shared, id);
    // Nothing is mounted where no sidecar was.
    let _ = umount2(&sidecar_state(&directory), MntFlags::MNT_DETACH);
    files::remove_tree(&directory).map_err(Failure::system("removing the sandbox's record"))?;
    shared.sandboxes.records.lock().remove(id);
    Ok(())
}

/// A sidecar's own directory: survives its restart, not its sandbox; in memory, since it holds a key.
pub(super) fn mount_sidecar_state(shared: &Shared, id: &str) -> Result<PathBuf, Failure> {
    let path = sidecar_state(&directory(shared, id));
    let doing = || Failure::system("making the sidecar's state directory");
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&path).map_err(doing())?;
    let options =
        format!("size={SIDECAR_STATE_BYTES},mode=0700,uid={SIDECAR_UID},gid={SIDECAR_UID}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        &path,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .map_err(|errno| doing()(errno.into()))?;
    Ok(path)
}

fn directory(shared: &Shared, id: &str) -> PathBuf {
    shared.options.runtime_dir.join("sandboxes").join(id)
}

fn sidecar_state(directory: &Path) -> PathBuf {
    directory.join("sidecar")
}

/// Takes over what an earlier server made.
pub(super) async fn adopt(shared: &Shared) {
    let place = shared.options.runtime_dir.join("sandboxes");
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        match files::read_json::<Record>(&entry.path().join("record.json")) {
            Ok(Some(record)) => {
                shared.network.adopt(&record.attachment);
                admit(shared, record);
            }
            // The earlier server died while it made this one: nobody was told of it.
            Ok(None) => {
                let _ = files::remove_tree(&entry.path());
            }
            Err(error) => {
                tracing::error!(path = %entry.path().display(), %error, "sandbox not adopted")
            }
        }
    }
    forget_unrecorded(shared);
}

/// Network namespaces that were made for a sandbox which never got a record.
fn forget_unrecorded(shared: &Shared) {
    let records = shared.sandboxes.records.lock();
    let place = shared.options.runtime_dir.join("namespaces");
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if !records.contains_key(entry.file_name().to_string_lossy().as_ref()) {
            crate::network::namespace::unmake(&entry.path());
        }
    }
}
