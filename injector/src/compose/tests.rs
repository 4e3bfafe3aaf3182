//! Whole files: what they become, and which mistakes are told how.

use std::path::Path;

use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn options(folder: &Path) -> LoadOptions {
    LoadOptions {
        working_directory: folder.to_owned(),
        project: Some("shop".to_owned()),
        ..LoadOptions::default()
    }
}

fn load_text(text: &str) -> Result<Application, ComposeError> {
    let folder = folder(&[("compose.yaml", text)]);
    load(&options(folder.path()))
}

fn manifest(application: &Application, kind: &str, name: &str) -> Json {
    let objects = application.manifests("default", &BTreeMap::new()).unwrap();
    let found = objects
        .into_iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn container(text: &str) -> Json {
    let application = load_text(text).unwrap();
    manifest(&application, "Deployment", "a")["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn the_bookstore_becomes_a_deployment_and_a_service_each_and_one_for_the_alias() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bookstore/compose.yaml");
    let application = load(&LoadOptions {
        files: vec![file],
        ..LoadOptions::default()
    })
    .unwrap();

    let objects = application.manifests("default", &BTreeMap::new()).unwrap();

    let count = |kind: &str| {
        objects
            .iter()
            .filter(|object| object["kind"] == kind)
            .count()
    };
    assert_eq!(
        (
            count("Deployment"),
            count("Service"),
            count("ServiceAccount")
        ),
        (8, 9, 8)
    );
    assert_eq!(application.warnings, []);
    let reviews = manifest(&application, "Service", "reviews");
    assert_eq!(
        reviews["spec"]["selector"],
        json!({ "weft.dev/alias.reviews": "true" })
    );
    assert_eq!(reviews["spec"]["ports"][0]["port"], 8080);
}

#[test]
fn a_small_service_becomes_exactly_this() {
    let application = load_text(
        "services:\n  a:\n    image: nginx:1\n    ports: ['127.0.0.1:8080:80']\n    environment: [X=1]\n    user: '33'\n",
    )
    .unwrap();

    let deployment = manifest(&application, "Deployment", "a");

    assert_eq!(
        deployment,
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "a",
                "namespace": "default",
                "labels": { "app.kubernetes.io/managed-by": "weft", "weft.dev/project": "shop" },
            },
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": { "app": "a" } },
                "template": {
                    "metadata": {
                        "labels": { "app.kubernetes.io/managed-by": "weft", "weft.dev/project": "shop", "app": "a" },
                        "annotations": { "weft.dev/restart": "never" },
                    },
                    "spec": {
                        "serviceAccountName": "a",
                        "terminationGracePeriodSeconds": 10,
                        "containers": [{
                            "name": "a",
                            "image": "nginx:1",
                            "env": [{ "name": "X", "value": "1" }],
                            "ports": [{ "containerPort": 80, "protocol": "TCP", "hostPort": 8080, "hostIP": "127.0.0.1" }],
                            "securityContext": { "runAsUser": 33 },
                        }],
                    },
                },
            },
        })
    );
}

#[test]
fn a_numeric_user_is_in_the_security_context_and_a_named_one_in_an_annotation() {
    let of = |user: &str| {
        let text = format!("services:\n  a:\n    image: x\n    user: {user}\n");
        let application = load_text(&text).unwrap();
        let template = manifest(&application, "Deployment", "a")["spec"]["template"].clone();
        (
            template["spec"]["containers"][0]["securityContext"].clone(),
            template["metadata"]["annotations"]["weft.dev/user"].clone(),
        )
    };

    let numbers = json!({ "runAsUser": 1000, "runAsGroup": 100 });
    assert_eq!(of("'1000:100'"), (numbers, Json::Null));
    assert_eq!(of("1000"), (json!({ "runAsUser": 1000 }), Json::Null));
    for named in ["nginx", "nginx:100", "1000:staff"] {
        assert_eq!(of(&format!("'{named}'")), (Json::Null, json!(named)));
    }
}

#[test]
fn a_misspelt_key_is_shown_with_its_line_and_the_nearest_key() {
    let error = load_text("services:\n  books:\n    image: x\n    enviroment: {}\n").unwrap_err();

    let text = error.to_string();
    assert!(
        text.contains("compose.yaml:4:5: unknown key \"enviroment\" in services.books"),
        "{text}"
    );
    assert!(text.contains("did you mean \"environment\"?"), "{text}");
    assert!(
        text.ends_with(" 4 |     enviroment: {}\n   |     ^^^^^^^^^^"),
        "{text}"
    );
}

#[test]
fn every_mistake_has_its_words() {
    for (text, message) in [
        ("services: [", "not YAML"),
        ("services: {}", "no services"),
        ("services: {a: {}}", "neither image nor build"),
        ("services: {A_b: {image: x}}", "lower-case"),
        ("services: {a: {image: x, image: y}}", "there twice"),
        (
            "services: {a: {image: x, privileged: true}}",
            "privileged is not supported",
        ),
        (
            "services: {a: {image: x, depends_on: [b]}}",
            "no such service",
        ),
        (
            "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}",
            "circle",
        ),
        ("services: {a: {image: x, ports: ['80:x']}}", "a port like"),
        ("services: {a: {image: x, ports: ['0:80']}}", "a port like"),
        ("services: {a: {image: x, ports: ['53:53/udp']}}", "TCP"),
        (
            "services: {a: {image: x, ports: ['80-81:80-82']}}",
            "differ in length",
        ),
        (
            "services: {a: {image: x, ports: ['1:1']}, b: {image: x, ports: ['1:2']}}",
            "published twice",
        ),
        (
            "services: {a: {image: x, stop_grace_period: soon}}",
            "a duration",
        ),
        ("services: {a: {image: x, mem_limit: much}}", "a size"),
        (
            "services: {a: {image: x, volumes: ['data:/d']}}",
            "not declared",
        ),
        ("services: {a: {image: x, configs: [c]}}", "not declared"),
        ("services: {a: {image: x, command: 'a \"b'}}", "quotes"),
        (
            "services: {a: {image: x, x-weft: {protocol: ftp}}}",
            "http, grpc or tcp",
        ),
        (
            "services: {a: {image: x, x-weft: {injct: false}}}",
            "did you mean \"inject\"?",
        ),
        ("services: {a: {image: '${X:?say which}'}}", "say which"),
        (
            "services: {a: {image: x, deploy: {replicas: 100000}}}",
            "at most",
        ),
        (
            "services: {a: {image: x, extends: {service: z}}}",
            "no service \"z\"",
        ),
        ("services: {a: {extends: a}}", "extends itself"),
        ("name: Shop!\nservices: {a: {image: x}}", "lower-case"),
        ("a: 1\n---\nb: 2", "second document"),
    ] {
        let folder = folder(&[("compose.yaml", text)]);
        let result = load(&LoadOptions {
            working_directory: folder.path().to_owned(),
            ..LoadOptions::default()
        });
        let error = result.expect_err(text);
        assert!(error.message().contains(message), "{text}: {error}");
    }
}

#[test]
fn many_paths_between_services_are_walked_once() {
    let mut text = "services:\n  s0: {image: x}\n".to_owned();
    for level in 1..60 {
        let (one, two) = (level - 1, if level > 1 { level - 2 } else { 0 });
        let below = if one == two {
            format!("s{one}")
        } else {
            format!("s{one}, s{two}")
        };
        text.push_str(&format!(
            "  s{level}: {{image: x, depends_on: [{below}]}}\n"
        ));
    }

    assert_eq!(load_text(&text).unwrap().services().count(), 60);
}

#[test]
fn what_is_ignored_is_said() {
    let application =
        load_text("version: '3'\nservices: {a: {image: x, container_name: y}}").unwrap();

    let warnings: Vec<String> = application
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("version is ignored")),
        "{warnings:?}"
    );
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("container_name is ignored")),
        "{warnings:?}"
    );
}

#[test]
fn merge_keys_give_way_to_what_is_written_out() {
    let text = "x-base: &base {image: x, command: [one]}\nservices:\n  a:\n    <<: *base\n    command: [two]\n";

    let container = container(text);

    assert_eq!(container["image"], "x");
    assert_eq!(container["args"], json!(["two"]));
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }

    let error = load_text(&text).unwrap_err();

    assert!(error.message().contains("expands to more than"), "{error}");
}

#[test]
fn deep_nesting_is_refused() {
    let error = load_text(&format!("a: {}{}", "[".repeat(5000), "]".repeat(5000))).unwrap_err();

    assert!(
        error.to_string().contains("nested") || error.to_string().contains("not YAML"),
        "{error}"
    );
}

#[test]
fn files_are_merged_key_by_key_and_commands_replaced() {
    let folder = folder(&[
        (
            "a.yaml",
            "services: {a: {image: x, command: [one], environment: [A=1, B=1], expose: ['1']}}",
        ),
        (
            "b.yaml",
            "services: {a: {command: [two], environment: {B: '2'}, expose: ['2']}}",
        ),
    ]);
    let files = vec!["a.yaml".into(), "b.yaml".into()];
    let application = load(&LoadOptions {
        files,
        ..options(folder.path())
    })
    .unwrap();

    let deployment = manifest(&application, "Deployment", "a");

    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["two"]));
    assert_eq!(
        container["env"],
        json!([{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }])
    );
    assert_eq!(
        manifest(&application, "Service", "a")["spec"]["ports"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_service_extends_another_and_files_include_others() {
    let folder = folder(&[
        (
            "compose.yaml",
            "include: [more.yaml]\nservices: {a: {extends: {file: base.yaml, service: base}, command: [two]}}",
        ),
        (
            "base.yaml",
            "services: {base: {image: x, command: [one], environment: {A: '1'}}}",
        ),
        ("more.yaml", "services: {b: {image: y}}"),
    ]);
    let application = load(&options(folder.path())).unwrap();

    let names: BTreeSet<&str> = application.services().map(Service::name).collect();
    assert_eq!(names, BTreeSet::from(["a", "b"]));
    let a = manifest(&application, "Deployment", "a");
    assert_eq!(a["spec"]["template"]["spec"]["containers"][0]["image"], "x");
    assert_eq!(
        a["spec"]["template"]["spec"]["containers"][0]["args"],
        json!(["two"])
    );
}

#[test]
fn profiles_leave_services_out() {
    let text = "services: {a: {image: x}, b: {image: x, profiles: [debug]}}";

    let folder = folder(&[("compose.yaml", text)]);
    let without = load(&options(folder.path())).unwrap();
    let with = load(&LoadOptions {
        profiles: vec!["debug".into()],
        ..options(folder.path())
    })
    .unwrap();

    assert_eq!(
        (without.services().count(), with.services().count()),
        (1, 2)
    );
}

#[test]
fn variables_come_from_the_environment_and_then_from_the_env_file() {
    let folder = folder(&[
        ("compose.yaml", "services: {a: {image: '$IMAGE:$TAG'}}"),
        (".env", "IMAGE=one\nTAG='2' # the second\n"),
    ]);
    let environment = [("IMAGE".to_owned(), "other".to_owned())].into();
    let application = load(&LoadOptions {
        environment,
        ..options(folder.path())
    })
    .unwrap();

    assert_eq!(application.services().next().unwrap().image(), "other:2");
}

#[test]
fn health_checks_become_probes() {
    let container = container(
        "services: {a: {image: x, healthcheck: {test: [CMD, ping], interval: 500ms, timeout: 3s, retries: 5}}}",
    );

    assert_eq!(
        container["readinessProbe"],
        json!({ "exec": { "command": ["ping"] }, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 5 })
    );
}

#[test]
fn volumes_configs_and_limits_have_their_place() {
    let application = load_text(
        "services:\n  a:\n    image: x\n    volumes: ['data:/data', './here:/there:ro', '/scratch']\n    tmpfs: /tmp\n    \
         configs: [{source: c, target: /etc/c, mode: 0440}]\n    mem_limit: 64m\n    cpus: 0.5\n    cap_drop: [ALL]\n\
         volumes: {data: {}}\nconfigs: {c: {content: hello}}\n",
    )
    .unwrap();

    let deployment = manifest(&application, "Deployment", "a");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(
        pod["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "shop_data"
    );
    assert!(
        pod["volumes"][1]["hostPath"]["path"]
            .as_str()
            .unwrap()
            .ends_with("/here")
    );
    assert_eq!(pod["volumes"][3]["emptyDir"]["medium"], "Memory");
    assert_eq!(
        pod["volumes"][4]["configMap"],
        json!({ "name": "shop-c", "defaultMode": 0o440 })
    );
    let container = &pod["containers"][0];
    assert_eq!(
        container["resources"]["limits"],
        json!({ "memory": "67108864", "cpu": "500m" })
    );
    assert_eq!(
        container["securityContext"]["capabilities"]["drop"],
        json!(["ALL"])
    );
    assert_eq!(
        manifest(&application, "ConfigMap", "shop-c")["data"]["content"],
        "hello"
    );
}

#[test]
fn the_reference_lists_every_key_of_a_service() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/compose.md");
    let reference = std::fs::read_to_string(path).unwrap();

    for (key, _) in schema::SERVICE.iter().chain(schema::FILE) {
        assert!(
            reference.contains(&format!("`{key}`")),
            "docs/reference/compose.md does not tell of {key}"
        );
    }
}

const SHOP: &str = "services:
  front: {image: i, depends_on: [books]}
  books: {image: i, depends_on: [stock]}
  stock: {image: i}
  v1: {image: i, expose: ['80'], networks: {default: {aliases: [reviews]}}}
  v2: {image: i, expose: ['81'], networks: {default: {aliases: [reviews]}}}
  tool: {image: i, profiles: [tools], depends_on: [helper]}
  helper: {image: i, profiles: [tools]}
";

fn load_services(named: &[&str]) -> Result<Application, ComposeError> {
    let folder = folder(&[("compose.yaml", SHOP)]);
    load(&LoadOptions {
        services: named.iter().map(|name| (*name).to_owned()).collect(),
        ..options(folder.path())
    })
}

fn names_of(application: &Application, kind: &str) -> Vec<String> {
    let objects = application.manifests("default", &BTreeMap::new()).unwrap();
    let mut names: Vec<String> = objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_service_that_is_named_brings_what_it_depends_on_and_nothing_else() {
    let application = load_services(&["front"]).unwrap();

    assert!(application.is_partial());
    assert_eq!(
        names_of(&application, "Deployment"),
        ["books", "front", "stock"]
    );
    assert_eq!(
        names_of(&application, "Service"),
        ["books", "front", "stock"]
    );
}

#[test]
fn without_a_name_all_services_without_a_profile_are_chosen() {
    let application = load_services(&[]).unwrap();

    assert!(!application.is_partial());
    assert_eq!(
        names_of(&application, "Deployment"),
        ["books", "front", "stock", "v1", "v2"]
    );
}

#[test]
fn naming_a_service_enables_its_profiles() {
    let application = load_services(&["tool"]).unwrap();

    assert_eq!(names_of(&application, "Deployment"), ["helper", "tool"]);
}

#[test]
fn an_alias_has_the_ports_of_all_its_members_even_where_one_is_not_chosen() {
    let application = load_services(&["v1"]).unwrap();

    assert_eq!(names_of(&application, "Deployment"), ["v1"]);
    let ports = manifest(&application, "Service", "reviews")["spec"]["ports"].clone();
    let ports: Vec<&Json> = ports
        .as_array()
        .unwrap()
        .iter()
        .map(|port| &port["port"])
        .collect();
    assert_eq!(ports, [80, 81]);
}

#[test]
fn a_service_that_is_not_there_is_told_with_the_nearest_one() {
    let error = load_services(&["stok"]).unwrap_err();
    assert!(error.message().contains("\"stok\""), "{error}");
    assert!(error.message().contains("\"stock\""), "{error}");

    assert!(error.is_not_found(), "the files are right");

    let error = load_services(&["warehouse"]).unwrap_err();
    assert!(error.message().contains("front, books"), "{error}");
}

#[test]
fn files_that_cannot_be_read_as_text_are_told_with_the_line() {
    let folder = folder(&[]);
    std::fs::write(
        folder.path().join("compose.yaml"),
        b"services:\n  a:\n    image: \xff\n",
    )
    .unwrap();

    let error = load(&options(folder.path())).unwrap_err();

    assert!(error.message().contains("compose.yaml:3:"), "{error}");
    assert!(error.message().contains("UTF-8"), "{error}");
}

#[test]
fn a_link_that_leads_nowhere_is_no_missing_file() {
    let folder = folder(&[]);
    std::os::unix::fs::symlink("nowhere", folder.path().join("compose.yaml")).unwrap();

    let error = load(&options(folder.path())).unwrap_err();

    assert!(error.message().starts_with("reading "), "{error}");
    assert!(error.message().contains("compose.yaml"), "{error}");
}

#[test]
fn mistakes_in_environment_files_are_told_with_the_line() {
    for (text, message) in [
        (
            "A=1\nB C=2\n",
            "variables.env:2: \"B C=2\" is not NAME=value",
        ),
        ("A=\"1\n", "variables.env:1: the quote of A is not closed"),
    ] {
        let compose = "services: {a: {image: i, env_file: variables.env}}";
        let folder = folder(&[("compose.yaml", compose), ("variables.env", text)]);
        let error = load(&options(folder.path())).unwrap_err();
        assert!(error.message().ends_with(message), "{error}");
    }
}
