//! Archives, contexts and a store for the tests of images.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use weft_runtime::image::{BuildRequest, ImageError, ImageRecord, ImageStore, RunCommand, RunStep};

/// Images give files to root. Where the test does not run as root, it runs again as root of a
/// user namespace of its own; true means that it did and there is nothing left to do.
pub(crate) fn ran_as_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    run_in_namespace(test);
    true
}

/// Runs the test in a user namespace with a single id, root, whoever runs it; true means that it
/// did and there is nothing left to do.
pub(crate) fn ran_with_one_id(test: &str) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    if map.split_whitespace().nth(2) == Some("1") {
        return false;
    }
    run_in_namespace(test);
    true
}

fn run_in_namespace(test: &str) {
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .status()
        .expect("unshare of util-linux runs: apt-get install util-linux");
    assert!(status.success(), "{test} failed in its user namespace");
}

pub(crate) struct Store {
    folder: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

impl Store {
    pub(crate) fn new() -> Store {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path()).unwrap();
        Store { folder, store }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn import(&self, archive: &[u8]) -> Result<ImageRecord, ImageError> {
        self.store.import(archive, None, &mut |_| {})
    }

    pub(crate) fn build(&self, context: &[u8]) -> Result<(ImageRecord, Vec<String>), ImageError> {
        self.build_with(context, BuildRequest::default(), &NoRun)
    }

    pub(crate) fn build_with(
        &self,
        context: &[u8],
        request: BuildRequest,
        runner: &dyn RunStep,
    ) -> Result<(ImageRecord, Vec<String>), ImageError> {
        let mut lines = Vec::new();
        let image = self
            .store
            .build(context, request, runner, &mut |line| lines.push(line))?;
        Ok((image, lines))
    }
}

/// For builds without `RUN`.
pub(crate) struct NoRun;

impl RunStep for NoRun {
    fn run(&self, step: &mut RunCommand<'_>) -> Result<i32, ImageError> {
        panic!("a command was run: {:?}", step.command);
    }
}

/// A runner that is a function.
pub(crate) struct Run<F>(pub(crate) F);

impl<F: Fn(&mut RunCommand<'_>) -> i32> RunStep for Run<F> {
    fn run(&self, step: &mut RunCommand<'_>) -> Result<i32, ImageError> {
        Ok(self.0(step))
    }
}

/// A tar archive under construction.
pub(crate) struct Tar {
    builder: tar::Builder<Vec<u8>>,
}

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar {
            builder: tar::Builder::new(Vec::new()),
        }
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Tar {
        self.entry(path, tar::EntryType::Regular, 0o644, "", content.as_ref())
    }

    pub(crate) fn folder(self, path: &str, mode: u32) -> Tar {
        self.entry(path, tar::EntryType::Directory, mode, "", b"")
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Tar {
        self.entry(path, tar::EntryType::Symlink, 0o777, target, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Tar {
        self.entry(path, tar::EntryType::Link, 0o644, target, b"")
    }

    /// Writes the path as it is, whatever it says.
    pub(crate) fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        target: &str,
        content: &[u8],
    ) -> Tar {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        if !target.is_empty() {
            header.set_link_name_literal(target).unwrap();
        }
        header.set_cksum();
        self.builder.append(&header, content).unwrap();
        self
    }

    pub(crate) fn owned(mut self, path: &str, uid: u64) -> Tar {
        let mut header = tar::Header::new_gnu();
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mode(0o644);
        header.set_size(0);
        self.builder
            .append_data(&mut header, path, std::io::empty())
            .unwrap();
        self
    }

    pub(crate) fn xattr(mut self, name: &str, value: &[u8]) -> Tar {
        let key = format!("SCHILY.xattr.{name}");
        self.builder
            .append_pax_extensions([(key.as_str(), value)])
            .unwrap();
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.builder.into_inner().unwrap()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI archive with one image of these layers. `damage` may change blobs before they are written.
pub(crate) struct Oci {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) name: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) compress: fn(&[u8]) -> Vec<u8>,
}

pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Oci {
    pub(crate) fn of(layers: &[Vec<u8>]) -> Oci {
        Oci {
            layers: layers.to_vec(),
            name: "docker.io/library/test:1",
            architecture: host_architecture(),
            compress: gzip,
        }
    }

    /// Blobs by digest, and the descriptor of the manifest.
    pub(crate) fn blobs(&self) -> (BTreeMap<String, Vec<u8>>, serde_json::Value) {
        let mut blobs = BTreeMap::new();
        let mut add = |bytes: Vec<u8>| {
            let (digest, size) = (sha256(&bytes), bytes.len());
            blobs.insert(digest.clone(), bytes);
            serde_json::json!({"digest": format!("sha256:{digest}"), "size": size})
        };
        let diffs: Vec<String> = self
            .layers
            .iter()
            .map(|layer| format!("sha256:{}", sha256(layer)))
            .collect();
        let config = serde_json::json!({
            "architecture": self.architecture, "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/app"], "Env": ["PATH=/bin"], "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let mut config = add(config.to_string().into_bytes());
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let layers: Vec<serde_json::Value> = self
            .layers
            .iter()
            .map(|layer| {
                let mut layer = add((self.compress)(layer));
                layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
                layer
            })
            .collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
        let mut manifest = add(manifest.to_string().into_bytes());
        manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
        (blobs, manifest)
    }

    pub(crate) fn archive(&self) -> Vec<u8> {
        let (blobs, mut manifest) = self.blobs();
        manifest["annotations"] = serde_json::json!({"io.containerd.image.name": self.name});
        archive(&blobs, &[manifest])
    }
}

pub(crate) fn archive(
    blobs: &BTreeMap<String, Vec<u8>>,
    manifests: &[serde_json::Value],
) -> Vec<u8> {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    let mut tar = Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    for (digest, bytes) in blobs {
        tar = tar.file(&format!("blobs/sha256/{digest}"), bytes);
    }
    tar.file("index.json", index.to_string()).done()
}

/// What `docker save` wrote before version 25.
pub(crate) fn docker_archive(layer: &[u8]) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": host_architecture(), "os": "linux", "config": {"Entrypoint": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer)), format!("sha256:{}", sha256(layer))]},
    }).to_string();
    let name = format!("{}.json", sha256(config.as_bytes()));
    let manifest = serde_json::json!([{"Config": name, "RepoTags": ["shop:2"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    Tar::new()
        .file("a/layer.tar", layer)
        .link("b/layer.tar", "../a/layer.tar")
        .file(&name, config)
        .file("manifest.json", manifest.to_string())
        .done()
}

/// The whole chain of an error's messages.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
