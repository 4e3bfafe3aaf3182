use serde_json::{Value, json};

use super::super::sources::Sources;
use super::*;

fn pod(spec: &Value, annotations: &Value) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "books-1", "namespace": "shop", "uid": "u1",
            "labels": { "weft.dev/project": "bookstore" },
            "annotations": annotations,
        },
        "spec": spec,
    }))
    .unwrap()
}

fn request_of(pod: &Pod) -> Result<CreateContainerRequest, Failure> {
    let (role, container) = all(pod.spec.as_ref().unwrap()).next().unwrap();
    let scope = Scope {
        pod,
        sources: &Sources::default(),
        scratch: &BTreeMap::new(),
    };
    request(&ObjectName::new("shop", "books-1"), role, container, &scope)
}

#[test]
fn a_container_is_named_labelled_and_limited() {
    let pod = pod(
        &json!({ "containers": [{
            "name": "books", "image": "bookstore/services:dev", "args": ["books", "$(PORT)"],
            "env": [{ "name": "PORT", "value": "8080" }],
            "resources": { "limits": { "memory": "64Mi", "cpu": "250m" } },
        }] }),
        &json!({ "weft.dev/restart": "on-failure", "weft.dev/stop-signal": "SIGQUIT" }),
    );

    let request = request_of(&pod).unwrap();

    assert_eq!(request.id, "shop.books-1.books");
    assert_eq!(request.sandbox_id, "shop.books-1");
    assert_eq!(request.arguments, ["books", "8080"]);
    assert_eq!(request.memory_bytes, 64 * 1024 * 1024);
    assert_eq!(request.cpu_millis, 250);
    assert_eq!(request.restart(), RestartPolicy::OnFailure);
    assert_eq!(request.stop_signal, "SIGQUIT");
    for (key, value) in [
        ("namespace", "shop"),
        ("pod", "books-1"),
        ("container", "books"),
        ("project", "bookstore"),
        ("uid", "u1"),
    ] {
        assert_eq!(request.labels[key], value, "{key}");
    }
}

#[test]
fn the_sidecar_is_the_hosts_own_program() {
    let mut pod = pod(
        &json!({ "containers": [{ "name": "books", "image": "x" }] }),
        &json!({ "weft.dev/user": "redis", "weft.dev/restart": "never" }),
    );
    let meta = pod.metadata.clone();
    let options = crate::inject::InjectOptions::host("/run/weft/pods".into());
    crate::inject::inject(pod.spec.as_mut().unwrap(), &meta, &options).unwrap();
    let scratch = volumes::scratch_volumes(&pod).map(|name| (name.to_owned(), "/s".into()));
    let scratch = scratch.collect();
    let scope = Scope {
        pod: &pod,
        sources: &Sources::default(),
        scratch: &scratch,
    };
    let (role, container) = all(pod.spec.as_ref().unwrap()).next().unwrap();

    let request = request(&ObjectName::new("shop", "books-1"), role, container, &scope).unwrap();

    assert!(request.host_programs);
    assert_eq!(request.image, "");
    assert_eq!(request.entrypoint, ["/weft"]);
    assert_eq!(request.user, "1337:1337");
    assert_eq!(request.restart(), RestartPolicy::Always);
    assert!(request.read_only_root);
    let targets: Vec<_> = request
        .mounts
        .iter()
        .map(|mount| mount.target.as_str())
        .collect();
    assert_eq!(
        targets,
        ["/run/weft", "/var/lib/weft", "/etc/weft/bootstrap.json"]
    );
}

#[test]
fn a_user_of_the_image_goes_by_name() {
    let pod = pod(
        &json!({ "containers": [{ "name": "c", "image": "x" }] }),
        &json!({ "weft.dev/user": "redis" }),
    );

    assert_eq!(request_of(&pod).unwrap().user, "redis");
}

#[test]
fn nobody_else_may_be_the_sidecars_user() {
    let pod = pod(
        &json!({ "containers": [{ "name": "c", "image": "x" }] }),
        &json!({ "weft.dev/user": "0:1337" }),
    );

    let error = request_of(&pod).unwrap_err();

    assert!(
        error.to_string().contains("1337 is the sidecar's"),
        "{error}"
    );
}

#[test]
fn a_privileged_container_is_refused() {
    let pod = pod(
        &json!({ "containers": [{ "name": "c", "image": "x", "securityContext": { "privileged": true } }] }),
        &json!({}),
    );

    let error = request_of(&pod).unwrap_err();

    assert!(
        error.to_string().contains("securityContext.privileged"),
        "{error}"
    );
}

#[test]
fn the_annotation_goes_before_the_pods_restart_policy() {
    for (spec, annotation, expected) in [
        (json!("Never"), json!({}), RestartPolicy::Never),
        (
            json!("Always"),
            json!({ "weft.dev/restart": "never" }),
            RestartPolicy::Never,
        ),
        (Value::Null, json!({}), RestartPolicy::Always),
    ] {
        let pod = pod(
            &json!({ "containers": [], "restartPolicy": spec }),
            &annotation,
        );
        assert_eq!(restart_policy(&pod), expected);
    }
}
