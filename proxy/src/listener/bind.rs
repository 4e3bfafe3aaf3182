//! A listening socket in the sandbox's network.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::listener::socket::{Family, Moment, SocketSettings};
use crate::socket_option;

/// Connections that may wait to be accepted, where nobody says; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Listens. An IPv6 socket is for IPv6 alone unless it is to be for both: so both families can have the same port.
pub(super) fn listen(address: SocketAddr, settings: &SocketSettings) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!settings.is_dual_stack)?;
    }
    // A sidecar that starts again must not wait for what its predecessor left in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    let family = match address {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    };
    if settings.binds_freely {
        socket_option::bind_freely(&socket, family)?;
    }
    if settings.is_transparent {
        socket_option::be_transparent(&socket, family)?;
    }
    let set = |moment| socket_option::set_all(&socket, &settings.options, moment, family);
    if let Some(keepalive) = settings.keepalive {
        socket_option::keep_alive(&socket, keepalive)?;
    }
    set(Moment::BeforeBind)?;
    socket.bind(&address.into())?;
    set(Moment::Bound)?;
    let backlog = settings.backlog.map_or(BACKLOG, |backlog| {
        i32::try_from(backlog).unwrap_or(i32::MAX)
    });
    socket.listen(backlog)?;
    set(Moment::Listening)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpStream};

    use super::*;
    use crate::config::listener::socket::{OptionValue, SocketOption};

    fn any(host: &str) -> SocketAddr {
        SocketAddr::new(host.parse().expect("an address"), 0)
    }

    #[test]
    fn a_free_socket_is_bound_to_an_address_that_nobody_has() {
        let foreign = any("192.0.2.7");
        let refused = listen(foreign, &SocketSettings::default()).expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);

        let settings = SocketSettings {
            binds_freely: true,
            ..SocketSettings::default()
        };
        let bound = listen(foreign, &settings).expect("bound");

        assert_eq!(bound.local_addr().expect("an address").ip(), foreign.ip());
    }

    #[test]
    fn a_socket_of_both_families_takes_both_and_another_only_its_own() {
        let settings = |is_dual_stack| SocketSettings {
            is_dual_stack,
            ..SocketSettings::default()
        };
        let connects = |listener: &TcpListener, host: &str| {
            let port = listener.local_addr().expect("an address").port();
            let host: IpAddr = host.parse().expect("an address");
            TcpStream::connect((host, port)).is_ok()
        };

        let dual = listen(any("::"), &settings(true)).expect("bound");
        let single = listen(any("::"), &settings(false)).expect("bound");

        assert!(connects(&dual, "127.0.0.1") && connects(&dual, "::1"));
        assert!(!connects(&single, "127.0.0.1") && connects(&single, "::1"));
    }

    #[test]
    fn options_are_set_on_sockets_of_their_family() {
        let option = |level, name, number, moment, family| SocketOption {
            level,
            name,
            value: OptionValue::Number(number),
            moment,
            family,
        };
        let settings = SocketSettings {
            options: vec![
                option(
                    libc::SOL_SOCKET,
                    libc::SO_RCVBUF,
                    40_000,
                    Moment::BeforeBind,
                    None,
                ),
                option(
                    libc::IPPROTO_TCP,
                    libc::TCP_DEFER_ACCEPT,
                    3,
                    Moment::Listening,
                    Some(Family::V4),
                ),
                option(
                    libc::IPPROTO_IPV6,
                    libc::IPV6_UNICAST_HOPS,
                    9,
                    Moment::Bound,
                    Some(Family::V6),
                ),
            ],
            ..SocketSettings::default()
        };

        let bound = Socket::from(listen(any("127.0.0.1"), &settings).expect("bound"));

        // The kernel doubles it for its own needs (socket(7)).
        assert_eq!(bound.recv_buffer_size().expect("a size"), 80_000);
    }

    #[test]
    fn an_option_that_the_kernel_refuses_is_an_error_that_names_it() {
        let settings = SocketSettings {
            options: vec![SocketOption {
                level: libc::SOL_SOCKET,
                name: 99_999,
                value: OptionValue::Bytes(vec![1, 0, 0, 0]),
                moment: Moment::Bound,
                family: None,
            }],
            ..SocketSettings::default()
        };

        let error = listen(any("127.0.0.1"), &settings).expect_err("refused");

        assert!(error.to_string().contains("99999"), "{error}");
    }
}
