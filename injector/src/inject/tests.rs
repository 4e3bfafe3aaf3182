use k8s_openapi::api::core::v1::PodSecurityContext;

use super::*;

fn options() -> InjectOptions {
    InjectOptions::host("/run/weft/pods".into())
}

fn pod() -> PodSpec {
    PodSpec {
        containers: vec![Container {
            name: "books".to_owned(),
            ports: Some(vec![port("http", 8080)]),
            ..Container::default()
        }],
        init_containers: Some(vec![Container {
            name: "migrate".to_owned(),
            ..Container::default()
        }]),
        ..PodSpec::default()
    }
}

fn meta() -> ObjectMeta {
    ObjectMeta {
        name: Some("books-1".to_owned()),
        namespace: Some("shop".to_owned()),
        ..ObjectMeta::default()
    }
}

#[test]
fn the_sidecar_is_the_first_init_container_and_never_ends() {
    let mut pod = pod();

    let injected = inject(&mut pod, &meta(), &options()).unwrap();

    let init = pod.init_containers.as_ref().unwrap();
    let names: Vec<_> = init
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    assert_eq!(names, ["weft-proxy", "migrate"]);
    assert_eq!(init[0].restart_policy.as_deref(), Some("Always"));
    let arguments = init[0].args.as_ref().unwrap().join(" ");
    assert_eq!(arguments, "proxy --sidecar -c /etc/weft/bootstrap.json");
    let Injected::Added { annotations } = injected else {
        panic!("not added");
    };
    assert!(annotations[BOOTSTRAP].contains("sidecar~books-1.shop"));
}

#[test]
fn every_mount_of_the_sidecar_has_its_volume() {
    let mut pod = pod();
    inject(&mut pod, &meta(), &options()).unwrap();

    let volumes: Vec<_> = pod
        .volumes
        .iter()
        .flatten()
        .map(|volume| &volume.name)
        .collect();
    let sidecar = &pod.init_containers.as_ref().unwrap()[0];
    for mount in sidecar.volume_mounts.iter().flatten() {
        assert!(volumes.contains(&&mount.name), "{}", mount.name);
    }
}

#[test]
fn the_sidecar_may_do_nothing_it_does_not_need() {
    let mut pod = pod();
    inject(&mut pod, &meta(), &options()).unwrap();

    let context = pod.init_containers.unwrap()[0]
        .security_context
        .clone()
        .unwrap();
    assert_eq!(context.run_as_user, Some(1337));
    assert_eq!(context.read_only_root_filesystem, Some(true));
    assert_eq!(
        context.capabilities.unwrap().drop,
        Some(vec!["ALL".to_owned()])
    );
}

#[test]
fn a_second_injection_changes_nothing() {
    let mut pod = pod();
    inject(&mut pod, &meta(), &options()).unwrap();
    let before = pod.clone();

    let again = inject(&mut pod, &meta(), &options()).unwrap();

    assert_eq!(again, Injected::Present);
    assert_eq!(pod, before);
}

#[test]
fn a_pod_that_opted_out_is_left_alone() {
    let mut pod = pod();
    let mut meta = meta();
    meta.annotations = Some([(INJECT.to_owned(), "false".to_owned())].into());

    let injected = inject(&mut pod, &meta, &options()).unwrap();

    assert_eq!(injected, Injected::OptedOut);
    assert!(!is_injected(&pod));
}

#[test]
fn the_hosts_network_is_refused() {
    let mut pod = pod();
    pod.host_network = Some(true);

    let error = inject(&mut pod, &meta(), &options()).unwrap_err();

    assert_eq!(error, InjectError::HostNetwork);
}

#[test]
fn containers_with_the_sidecars_user_or_group_are_refused() {
    for (user, group) in [(Some(1337), None), (None, Some(1337))] {
        let mut pod = pod();
        pod.security_context = Some(PodSecurityContext {
            run_as_user: user,
            run_as_group: group,
            ..PodSecurityContext::default()
        });

        let error = inject(&mut pod, &meta(), &options()).unwrap_err();

        let container = "migrate".to_owned();
        assert_eq!(error, InjectError::SidecarUser { container });
    }
}

#[test]
fn ports_of_the_sidecar_are_refused() {
    for number in [15000, 15006, 15021] {
        let mut pod = pod();
        pod.containers[0].ports = Some(vec![port("mine", number)]);
        let before = pod.clone();

        let error = inject(&mut pod, &meta(), &options()).unwrap_err();

        assert!(
            error
                .to_string()
                .contains(&format!("books uses port {number}"))
        );
        assert_eq!(pod, before, "a refused pod is unchanged");
    }
}
