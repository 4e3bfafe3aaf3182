//! A pod's volumes as mounts of its containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeMount, VolumeProjection,
};
use weft_proto::weft::node::v1::{Mount, mount::Source};

use super::failure::Failure;
use super::quantity;
use super::sources::{Kind, Sources, pod_field};

/// Kubernetes' default for files of ConfigMaps and Secrets.
const DEFAULT_MODE: i32 = 0o644;
/// Of a memory volume without a limit.
const DEFAULT_TMPFS_BYTES: u64 = 64 * 1024 * 1024;
const TMPFS_MODE: u32 = 0o1777;

/// What a mount needs to know of its pod.
pub(super) struct Scope<'a> {
    pub(super) pod: &'a Pod,
    pub(super) sources: &'a Sources,
    /// Folders of the pod's `emptyDir` volumes, by volume.
    pub(super) scratch: &'a BTreeMap<String, PathBuf>,
}

/// The volumes that need a folder for as long as the pod lives.
pub(super) fn scratch_volumes(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter(|volume| {
            volume
                .empty_dir
                .as_ref()
                .is_some_and(|empty| empty.medium.as_deref() != Some("Memory"))
        })
        .map(|volume| volume.name.as_str())
}

/// A container's mounts.
pub(super) fn mounts(container: &Container, scope: &Scope<'_>) -> Result<Vec<Mount>, Failure> {
    let volumes = scope
        .pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let volumes: BTreeMap<&str, &Volume> = volumes
        .map(|volume| (volume.name.as_str(), volume))
        .collect();
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = volumes.get(wanted.name.as_str()).ok_or_else(|| {
            let (container, volume) = (&container.name, &wanted.name);
            Failure::Spec(format!(
                "container {container} mounts volume {volume}, which the pod has not"
            ))
        })?;
        mounts.extend(mount(volume, wanted, scope)?);
    }
    Ok(mounts)
}

fn mount(volume: &Volume, wanted: &VolumeMount, scope: &Scope<'_>) -> Result<Vec<Mount>, Failure> {
    if let Some(source) = tree(volume, wanted, scope)? {
        return Ok(vec![Mount {
            source: Some(source),
            target: wanted.mount_path.clone(),
            read_only: wanted.read_only.unwrap_or(false),
            mode: TMPFS_MODE,
            uid: 0,
        }]);
    }
    let files = files(volume, scope)?;
    let Some(path) = sub_path(wanted) else {
        return Ok(files
            .into_iter()
            .map(|file| file.mount_below(&wanted.mount_path))
            .collect());
    };
    // One file, or the files of one folder, in place of the whole volume.
    let below = format!("{path}/");
    let found: Vec<_> = files
        .into_iter()
        .filter_map(|file| {
            if file.path == path {
                return Some(file.mount_at(wanted.mount_path.clone()));
            }
            let inner = file.path.strip_prefix(&below)?.to_owned();
            Some(
                File {
                    path: inner,
                    ..file
                }
                .mount_below(&wanted.mount_path),
            )
        })
        .collect();
    if found.is_empty() {
        let volume = &volume.name;
        return Err(Failure::Spec(format!("volume {volume} has no {path}")));
    }
    Ok(found)
}

/// The source of a volume that is mounted as one directory or file; none where it consists of contents.
fn tree(
    volume: &Volume,
    wanted: &VolumeMount,
    scope: &Scope<'_>,
) -> Result<Option<Source>, Failure> {
    let joined = |path: &str| match sub_path(wanted) {
        Some(below) => format!("{}/{below}", path.trim_end_matches('/')),
        None => path.to_owned(),
    };
    let name = &volume.name;
    if let Some(host) = &volume.host_path {
        return Ok(Some(Source::HostPath(joined(&host.path))));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        if sub_path(wanted).is_some() {
            return Err(Failure::Spec(format!(
                "volume {name}: weft mounts named volumes as a whole, without subPath"
            )));
        }
        return Ok(Some(Source::Volume(claim.claim_name.clone())));
    }
    let Some(empty) = &volume.empty_dir else {
        return Ok(None);
    };
    if let Some(folder) = scope.scratch.get(name) {
        return Ok(Some(Source::HostPath(joined(&folder.to_string_lossy()))));
    }
    let limit = empty.size_limit.as_ref().and_then(quantity::bytes);
    Ok(Some(Source::TmpfsBytes(
        limit.unwrap_or(DEFAULT_TMPFS_BYTES),
    )))
}

fn sub_path(wanted: &VolumeMount) -> Option<&str> {
    wanted.sub_path.as_deref().filter(|path| !path.is_empty())
}

/// A file of a volume.
struct File {
    path: String,
    content: Vec<u8>,
    mode: i32,
}

impl File {
    fn mount_below(self, folder: &str) -> Mount {
        let target = format!("{}/{}", folder.trim_end_matches('/'), self.path);
        self.mount_at(target)
    }

    fn mount_at(self, target: String) -> Mount {
        Mount {
            target,
            // Nobody could write it back.
            read_only: true,
            mode: u32::try_from(self.mode & 0o777).unwrap_or(0o444),
            uid: 0,
            source: Some(Source::Content(self.content.into())),
        }
    }
}

fn files(volume: &Volume, scope: &Scope<'_>) -> Result<Vec<File>, Failure> {
    if let Some(source) = &volume.config_map {
        let entries = scope
            .sources
            .entries(Kind::ConfigMap, &source.name, source.optional)?;
        return chosen(entries, source.items.as_deref(), source.default_mode);
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let entries = scope.sources.entries(Kind::Secret, name, source.optional)?;
        return chosen(entries, source.items.as_deref(), source.default_mode);
    }
    if let Some(source) = &volume.downward_api {
        return fields(source.items.as_deref(), source.default_mode, scope.pod);
    }
    if let Some(source) = &volume.projected {
        let mut files = Vec::new();
        for projection in source.sources.iter().flatten() {
            files.extend(projected(projection, source.default_mode, scope)?);
        }
        return Ok(files);
    }
    let name = &volume.name;
    Err(Failure::Spec(format!(
        "volume {name} is of a kind that weft does not have: use emptyDir, hostPath, configMap, secret, downwardAPI, projected or persistentVolumeClaim"
    )))
}

fn projected(
    projection: &VolumeProjection,
    mode: Option<i32>,
    scope: &Scope<'_>,
) -> Result<Vec<File>, Failure> {
    if let Some(source) = &projection.config_map {
        let entries = scope
            .sources
            .entries(Kind::ConfigMap, &source.name, source.optional)?;
        return chosen(entries, source.items.as_deref(), mode);
    }
    if let Some(source) = &projection.secret {
        let entries = scope
            .sources
            .entries(Kind::Secret, &source.name, source.optional)?;
        return chosen(entries, source.items.as_deref(), mode);
    }
    if let Some(source) = &projection.downward_api {
        return fields(source.items.as_deref(), mode, scope.pod);
    }
    // Service-account tokens are for the Kubernetes API: here the kernel says who somebody is.
    Ok(Vec::new())
}

fn chosen(
    entries: Option<&BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
) -> Result<Vec<File>, Failure> {
    let Some(entries) = entries else {
        return Ok(Vec::new());
    };
    let mode = mode.unwrap_or(DEFAULT_MODE);
    let Some(items) = items else {
        let all = entries.iter();
        return Ok(all
            .map(|(key, content)| File {
                path: key.clone(),
                content: content.clone(),
                mode,
            })
            .collect());
    };
    items
        .iter()
        .map(|item| {
            let content = entries.get(&item.key);
            let content =
                content.ok_or_else(|| Failure::Spec(format!("there is no key {}", item.key)))?;
            file(&item.path, content.clone(), item.mode.unwrap_or(mode))
        })
        .collect()
}

fn fields(
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
    pod: &Pod,
) -> Result<Vec<File>, Failure> {
    let items = items.unwrap_or_default().iter();
    items
        .filter_map(|item| Some((item, item.field_ref.as_ref()?)))
        .map(|(item, field)| {
            let content = pod_field(pod, &field.field_path)?.into_bytes();
            file(
                &item.path,
                content,
                item.mode.or(mode).unwrap_or(DEFAULT_MODE),
            )
        })
        .collect()
}

/// Paths stay within their volume.
fn file(path: &str, content: Vec<u8>, mode: i32) -> Result<File, Failure> {
    let leaves = path.starts_with('/') || path.split('/').any(|part| part == "..");
    if leaves || path.is_empty() {
        return Err(Failure::Spec(format!(
            "{path:?} is no path within a volume"
        )));
    }
    Ok(File {
        path: path.to_owned(),
        content,
        mode,
    })
}

#[cfg(test)]
mod tests;
