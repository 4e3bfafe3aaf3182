//! The rules of a sandbox, loaded into a real network namespace, with real connections through them.
//!
//! Each test is one sandbox: a network namespace of its own, with a neighbour at the other end of a veth pair.
//! Ordinary users run each test again in a user namespace of their own, where they may do that.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "rules/sandbox.rs"]
mod sandbox;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use sandbox::{GATEWAY, GATEWAY_IPV6, OWN, OWN_IPV6, Sandbox, as_sidecar, connect, in_sandbox};
use weft_injector::rules::{self, Redirect};

fn open() -> rules::Rules {
    rules::open(&Redirect {
        dns_ipv4: GATEWAY,
        dns_ipv6: GATEWAY_IPV6,
        exclude_outbound_ports: [5432].into(),
        exclude_inbound_ports: [9000].into(),
    })
}

fn families<T>(ipv4: T, ipv6: T) -> [T; 2] {
    [ipv4, ipv6]
}

fn own(port: u16) -> [SocketAddr; 2] {
    families((OWN, port).into(), (OWN_IPV6, port).into())
}

fn neighbour(port: u16) -> [SocketAddr; 2] {
    families((GATEWAY, port).into(), (GATEWAY_IPV6, port).into())
}

fn virtual_service() -> [SocketAddr; 2] {
    families(
        "240.240.0.9:8080".parse().unwrap(),
        "[fd57:f0f0::9]:8080".parse().unwrap(),
    )
}

fn loopback(port: u16) -> [SocketAddr; 2] {
    families(
        SocketAddr::from(([127, 0, 0, 1], port)),
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
    )
}

#[test]
fn closed_rules_let_nobody_in_or_out() {
    in_sandbox("closed_rules_let_nobody_in_or_out", |sandbox: Sandbox| {
        sandbox.apply(&rules::closed());
        let _inside = sandbox.listen(8080);
        let _outside = sandbox.neighbour_listens(8080);

        for (inside, outside) in own(8080).into_iter().zip(neighbour(8080)) {
            assert!(sandbox.neighbour_connects(inside).is_err());
            assert!(connect(outside).is_err());
            assert!(as_sidecar(|| connect(outside)).is_err());
        }
        for address in loopback(8080) {
            assert!(
                connect(address).is_ok(),
                "the hand-off must reach the sidecar"
            );
        }
    });
}

#[test]
fn applications_are_led_to_the_sidecar_which_learns_where_they_wanted_to_go() {
    let name = "applications_are_led_to_the_sidecar_which_learns_where_they_wanted_to_go";
    in_sandbox(name, |sandbox: Sandbox| {
        sandbox.apply(&open());
        let outbound = sandbox.listen(15001);

        for wanted in virtual_service().into_iter().chain(neighbour(443)) {
            let _client = connect(wanted).unwrap();
            assert_eq!(outbound.accept_original(), wanted);
        }
    });
}

#[test]
fn the_sidecar_reaches_other_pods_itself() {
    in_sandbox(
        "the_sidecar_reaches_other_pods_itself",
        |sandbox: Sandbox| {
            sandbox.apply(&open());
            let _outbound = sandbox.listen(15001);
            let other = sandbox.neighbour_listens(8080);

            for address in neighbour(8080) {
                let _client = as_sidecar(|| connect(address)).unwrap();
                assert!(other.accepts());
            }
        },
    );
}

#[test]
fn callers_are_led_to_the_sidecar() {
    in_sandbox("callers_are_led_to_the_sidecar", |sandbox: Sandbox| {
        sandbox.apply(&open());
        let inbound = sandbox.listen(15006);
        let application = sandbox.listen(8080);

        for wanted in own(8080) {
            let _client = sandbox.neighbour_connects(wanted).unwrap();
            assert_eq!(inbound.accept_original(), wanted);
        }
        assert!(!application.accepts());
    });
}

#[test]
fn callers_cannot_choose_a_side_of_the_sidecar() {
    in_sandbox(
        "callers_cannot_choose_a_side_of_the_sidecar",
        |sandbox: Sandbox| {
            sandbox.apply(&open());
            let _inbound = sandbox.listen(15006);
            let _outbound = sandbox.listen(15001);

            for address in [15001, 15006].into_iter().flat_map(own) {
                let error = sandbox.neighbour_connects(address).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
            }
            for address in [15001, 15006].into_iter().flat_map(loopback) {
                let error = connect(address).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
            }
        },
    );
}

#[test]
fn health_metrics_and_excluded_ports_are_reached_directly() {
    let name = "health_metrics_and_excluded_ports_are_reached_directly";
    in_sandbox(name, |sandbox: Sandbox| {
        sandbox.apply(&open());
        let _inbound = sandbox.listen(15006);
        for port in [15020, 15021, 9000] {
            let direct = sandbox.listen(port);
            for address in own(port) {
                let _client = sandbox.neighbour_connects(address).unwrap();
                assert!(direct.accepts(), "{address}");
            }
        }
    });
}

#[test]
fn excluded_destinations_are_reached_directly() {
    in_sandbox(
        "excluded_destinations_are_reached_directly",
        |sandbox: Sandbox| {
            sandbox.apply(&open());
            let database = sandbox.neighbour_listens(5432);

            for address in neighbour(5432) {
                let _client = connect(address).unwrap();
                assert!(database.accepts());
            }
        },
    );
}

#[test]
fn the_sidecar_reaches_its_own_application() {
    in_sandbox(
        "the_sidecar_reaches_its_own_application",
        |sandbox: Sandbox| {
            sandbox.apply(&open());
            let application = sandbox.listen(8080);
            let sources = families(
                "127.0.0.6".parse::<IpAddr>().unwrap(),
                "fd57::6".parse().unwrap(),
            );

            for (source, address) in sources.into_iter().zip(own(8080)) {
                let _client = as_sidecar(|| sandbox::connect_from(source, address)).unwrap();
                assert!(application.accepts(), "{address}");
            }
        },
    );
}

#[test]
fn a_pod_that_is_its_own_endpoint_is_called_through_its_inbound_side() {
    let name = "a_pod_that_is_its_own_endpoint_is_called_through_its_inbound_side";
    in_sandbox(name, |sandbox: Sandbox| {
        sandbox.apply(&open());
        let inbound = sandbox.listen(15006);

        for address in own(8080) {
            let _client = as_sidecar(|| connect(address)).unwrap();
            assert_eq!(inbound.accept_original(), address);
        }
    });
}

#[test]
fn an_application_speaks_to_itself_without_the_sidecar() {
    let name = "an_application_speaks_to_itself_without_the_sidecar";
    in_sandbox(name, |sandbox: Sandbox| {
        sandbox.apply(&open());
        let application = sandbox.listen(8080);

        for address in own(8080).into_iter().chain(loopback(8080)) {
            let _client = connect(address).unwrap();
            assert!(application.accepts(), "{address}");
        }
    });
}

#[test]
fn datagrams_leave_only_as_dns() {
    in_sandbox("datagrams_leave_only_as_dns", |sandbox: Sandbox| {
        sandbox.apply(&open());
        let dns = sandbox.neighbour_receives(53);
        let other = sandbox.neighbour_receives(5353);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();

        socket.send_to(b"?", (GATEWAY, 53)).unwrap();
        assert!(dns.receives());
        assert!(socket.send_to(b"!", (GATEWAY, 5353)).is_err());
        assert!(!other.receives());
    });
}

#[test]
fn rules_are_replaced_as_a_whole() {
    in_sandbox("rules_are_replaced_as_a_whole", |sandbox: Sandbox| {
        sandbox.apply(&open());
        sandbox.apply(&rules::uninjected());
        let direct = sandbox.neighbour_listens(8080);

        for address in neighbour(8080) {
            let _client = connect(address).unwrap();
            assert!(direct.accepts());
        }
        sandbox.apply(&rules::closed());
        assert!(connect(neighbour(8080)[0]).is_err());
    });
}

#[test]
fn the_fakes_would_notice_a_connection_that_nobody_accepts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();

    assert!(!sandbox::Listening::new(vec![listener]).accepts());
}
