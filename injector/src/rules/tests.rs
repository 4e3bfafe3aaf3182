//! The rules as text; `tests/rules.rs` loads them and sends packets.

use super::*;

fn redirect() -> Redirect {
    Redirect {
        dns_ipv4: Ipv4Addr::new(10, 96, 0, 1),
        dns_ipv6: "fd57:6060::1".parse().unwrap(),
        exclude_outbound_ports: [5432].into(),
        exclude_inbound_ports: [9000].into(),
    }
}

#[test]
fn closed_rules_let_nothing_through_but_loopback() {
    assert_eq!(
        closed().ipv4,
        "*nat\n\
         :PREROUTING ACCEPT [0:0]\n\
         :INPUT ACCEPT [0:0]\n\
         :OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n\
         COMMIT\n\
         *filter\n\
         :INPUT DROP [0:0]\n\
         :FORWARD DROP [0:0]\n\
         :OUTPUT DROP [0:0]\n\
         -A INPUT -i lo -j ACCEPT\n\
         -A OUTPUT -o lo -j ACCEPT\n\
         COMMIT\n"
    );
}

#[test]
fn neighbour_discovery_works_from_the_start() {
    for rules in [closed(), open(&redirect())] {
        for chain in ["INPUT", "OUTPUT"] {
            for kind in ["neighbour-solicitation", "neighbour-advertisement"] {
                let rule = format!("-A {chain} -p ipv6-icmp --icmpv6-type {kind} -j ACCEPT\n");
                assert!(rules.ipv6.contains(&rule), "{rule}");
            }
        }
        assert!(!rules.ipv4.contains("icmpv6"));
    }
}

#[test]
fn open_rules_redirect_everything_that_is_not_excepted() {
    let text = open(&redirect()).ipv4;
    let nat: Vec<_> = text
        .lines()
        .skip_while(|line| !line.starts_with("-A"))
        .take_while(|line| *line != "COMMIT")
        .collect();
    assert_eq!(
        nat,
        [
            "-A PREROUTING -p tcp --dport 15001 -j RETURN",
            "-A PREROUTING -p tcp --dport 15006 -j RETURN",
            "-A PREROUTING -p tcp --dport 15020 -j RETURN",
            "-A PREROUTING -p tcp --dport 15021 -j RETURN",
            "-A PREROUTING -p tcp --dport 9000 -j RETURN",
            "-A PREROUTING -p tcp -j REDIRECT --to-ports 15006",
            "-A OUTPUT -o lo -s 127.0.0.6/32 -j RETURN",
            "-A OUTPUT -o lo -p tcp ! -d 127.0.0.0/8 -m owner --uid-owner 1337 -j REDIRECT --to-ports 15006",
            "-A OUTPUT -m owner --uid-owner 1337 -j RETURN",
            "-A OUTPUT -m owner --gid-owner 1337 -j RETURN",
            "-A OUTPUT -d 127.0.0.0/8 -j RETURN",
            "-A OUTPUT -o lo -j RETURN",
            "-A OUTPUT -d 10.96.0.1 -p tcp --dport 53 -j RETURN",
            "-A OUTPUT -p tcp --dport 5432 -j RETURN",
            "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001",
        ]
    );
}

#[test]
fn the_guards_of_the_redirect_ports_come_before_any_accept() {
    for text in [open(&redirect()).ipv4, open(&redirect()).ipv6] {
        let filter = text.split("*filter").nth(1).unwrap();
        for chain in ["INPUT", "OUTPUT"] {
            let prefix = format!("-A {chain} ");
            let first = filter
                .lines()
                .find(|line| line.starts_with(&prefix))
                .unwrap();
            assert!(first.contains("15001,15006"), "{first}");
            assert!(first.ends_with("! --ctstate DNAT -j REJECT --reject-with tcp-reset"));
        }
    }
}

#[test]
fn families_differ_only_in_their_own_words() {
    let rules = open(&redirect());

    assert!(rules.ipv6.contains("-s fd57::6/128"));
    assert!(
        rules
            .ipv6
            .contains("-d fd57:6060::1 -p udp --dport 53 -j ACCEPT")
    );
    assert!(!rules.ipv6.contains("127.0.0"));
    assert!(!rules.ipv4.contains("::"));
}

#[test]
fn pods_without_a_sidecar_are_not_limited() {
    let rules = uninjected();

    assert!(!rules.ipv4.contains("-A "));
    assert!(!rules.ipv4.contains("DROP"));
}
