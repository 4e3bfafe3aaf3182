use k8s_openapi::api::core::v1::{ConfigMap, PodSpec};
use serde_json::{Value, json};

use super::*;

fn sources() -> Sources {
    let mut sources = Sources::default();
    let data = [("a.conf", "alpha"), ("b.conf", "beta")];
    sources.add_config_map(
        "settings".to_owned(),
        ConfigMap {
            data: Some(
                data.map(|(key, text)| (key.to_owned(), text.to_owned()))
                    .into(),
            ),
            ..ConfigMap::default()
        },
    );
    sources
}

/// The mounts of a container with one mount of one volume.
fn mounts_of(volume: &Value, mount: &Value) -> Result<Vec<Mount>, Failure> {
    let mut volume = volume.clone();
    volume["name"] = json!("v");
    let mut mount = mount.clone();
    mount["name"] = json!("v");
    let container = json!({ "name": "c", "volumeMounts": [mount] });
    let spec: PodSpec =
        serde_json::from_value(json!({ "containers": [container], "volumes": [volume] })).unwrap();
    let container = spec.containers[0].clone();
    let mut pod = Pod {
        spec: Some(spec),
        ..Pod::default()
    };
    pod.metadata.annotations = Some([("weft.dev/bootstrap".to_owned(), "{}".to_owned())].into());
    let scratch = scratch_volumes(&pod)
        .map(|name| (name.to_owned(), format!("/scratch/{name}").into()))
        .collect();
    let scope = Scope {
        pod: &pod,
        sources: &sources(),
        scratch: &scratch,
    };
    mounts(&container, &scope)
}

fn summary(mounts: Vec<Mount>) -> Vec<(String, String)> {
    let text = |source: Option<Source>| match source {
        Some(Source::Content(bytes)) => String::from_utf8(bytes.into()).unwrap(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    };
    mounts
        .into_iter()
        .map(|mount| (mount.target, text(mount.source)))
        .collect()
}

fn pair(target: &str, content: &str) -> (String, String) {
    (target.to_owned(), content.to_owned())
}

#[test]
fn a_config_map_becomes_files() {
    let mounts = mounts_of(
        &json!({ "configMap": { "name": "settings" } }),
        &json!({ "mountPath": "/etc/app/" }),
    );

    let expected = vec![
        pair("/etc/app/a.conf", "alpha"),
        pair("/etc/app/b.conf", "beta"),
    ];
    assert_eq!(summary(mounts.unwrap()), expected);
}

#[test]
fn a_sub_path_is_one_file_at_the_mount_path() {
    let mounts = mounts_of(
        &json!({ "configMap": { "name": "settings", "defaultMode": 0o400 } }),
        &json!({ "mountPath": "/etc/app.conf", "subPath": "b.conf" }),
    )
    .unwrap();

    assert_eq!(mounts[0].mode, 0o400);
    assert_eq!(summary(mounts), vec![pair("/etc/app.conf", "beta")]);
}

#[test]
fn items_choose_and_rename() {
    let mounts = mounts_of(
        &json!({ "configMap": { "name": "settings", "items": [{ "key": "a.conf", "path": "x/y" }] } }),
        &json!({ "mountPath": "/etc" }),
    );

    assert_eq!(summary(mounts.unwrap()), vec![pair("/etc/x/y", "alpha")]);
}

#[test]
fn the_sidecars_bootstrap_comes_out_of_its_annotation() {
    let item = json!({
        "path": "bootstrap.json",
        "fieldRef": { "fieldPath": "metadata.annotations['weft.dev/bootstrap']" },
    });
    let mounts = mounts_of(
        &json!({ "downwardAPI": { "items": [item] } }),
        &json!({ "mountPath": "/etc/weft" }),
    );

    assert_eq!(
        summary(mounts.unwrap()),
        vec![pair("/etc/weft/bootstrap.json", "{}")]
    );
}

#[test]
fn an_empty_dir_is_a_folder_of_the_pod_and_in_memory_a_tmpfs() {
    let folder = mounts_of(&json!({ "emptyDir": {} }), &json!({ "mountPath": "/data" })).unwrap();
    let memory = mounts_of(
        &json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
        &json!({ "mountPath": "/data" }),
    )
    .unwrap();

    assert_eq!(
        folder[0].source,
        Some(Source::HostPath("/scratch/v".to_owned()))
    );
    assert_eq!(memory[0].source, Some(Source::TmpfsBytes(1024 * 1024)));
    assert_eq!(memory[0].mode, 0o1777);
}

#[test]
fn a_claim_is_a_named_volume() {
    let mounts = mounts_of(
        &json!({ "persistentVolumeClaim": { "claimName": "shop_data" } }),
        &json!({ "mountPath": "/data" }),
    )
    .unwrap();

    assert_eq!(
        mounts[0].source,
        Some(Source::Volume("shop_data".to_owned()))
    );
}

#[test]
fn paths_cannot_leave_their_volume() {
    let error = mounts_of(
        &json!({ "configMap": { "name": "settings", "items": [{ "key": "a.conf", "path": "../x" }] } }),
        &json!({ "mountPath": "/etc" }),
    )
    .unwrap_err();

    assert!(
        error.to_string().contains("no path within a volume"),
        "{error}"
    );
}

#[test]
fn a_kind_of_volume_that_weft_has_not_is_refused_by_name() {
    let error = mounts_of(
        &json!({ "nfs": { "server": "a", "path": "/" } }),
        &json!({ "mountPath": "/data" }),
    )
    .unwrap_err();

    assert!(
        error.to_string().contains("volume v is of a kind"),
        "{error}"
    );
}
