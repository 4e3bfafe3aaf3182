//! Databases, whose protocols the proxy knows nothing of: as opaque bytes, through two proxies, and where nobody said
//! what is spoken.

use std::net::SocketAddr;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use crate::harness::chain::Chain;
use crate::harness::config::Door;
use crate::harness::peer::{Peer, program};
use crate::harness::place::own_address;
use crate::harness::process::{Server, run, until};
use crate::harness::proxy::Proxy;

const POSTGRESQL: &[Peer] = &[
    Peer::Program("postgres"),
    Peer::Program("initdb"),
    Peer::Program("pgbench"),
    Peer::Program("setpriv"),
];
const MARIADB: &[Peer] = &[Peer::Program("mariadbd"), Peer::Program("mariadb")];
const REDIS: &[Peer] = &[
    Peer::Program("redis-server"),
    Peer::Program("redis-benchmark"),
];

/// The tests of this module.
pub(crate) const TESTS: &[crate::harness::Test] = &[
    test(
        POSTGRESQL,
        "postgresql_is_benchmarked_through_every_kind_of_door",
        postgresql,
    ),
    test(
        MARIADB,
        "mariadb_greets_first_through_every_kind_of_door",
        mariadb,
    ),
    test(REDIS, "redis_is_used_through_every_kind_of_door", redis),
];

const fn test(peers: &'static [Peer], name: &'static str, run: fn()) -> crate::harness::Test {
    crate::harness::Test { name, peers, run }
}

/// Opaque, detected, and through two proxies with nothing configured.
fn doors(proxy: &Proxy, chain: &Chain) -> [SocketAddr; 3] {
    [
        proxy.at(Door::Opaque),
        proxy.at(Door::Detecting),
        chain.at(Door::Detecting),
    ]
}

fn postgresql() {
    let server = postgresql_server();
    let (proxy, chain) = (Proxy::to(server.address), Chain::pair(server.address));

    for at in doors(&proxy, &chain) {
        let place = [
            format!("--host={}", at.ip()),
            format!("--port={}", at.port()),
        ];
        let who = "--username=postgres";
        let tables = ["--initialize", "--quiet", "--scale=1", who];
        run(program("pgbench").args(&place).args(tables).arg("postgres")).ok();
        let load = ["--client=4", "--transactions=50", "--no-vacuum", who];
        let report = run(program("pgbench").args(&place).args(load).arg("postgres")).ok();
        assert!(report.contains("200/200"), "{at}: {report}");

        // Rows of a mebibyte, and a session that is told of an error and goes on.
        let query = "select length(repeat('x', 1048576)); select 1/0; select 40 + 2";
        let psql = [
            "--no-align",
            "--tuples-only",
            "--no-psqlrc",
            who,
            "postgres",
        ];
        let said = run(program("psql")
            .args(&place)
            .args(psql)
            .args(query.split("; ").flat_map(|each| ["--command", each])));
        assert_eq!(said.output, "1048576\n42\n", "{at}: {}", said.errors);
        assert!(said.errors.contains("division by zero"), "{}", said.errors);
    }
    assert_eq!(proxy.detected("tcp"), proxy.detections());
}

fn mariadb() {
    let server = mariadb_server();
    let (proxy, chain) = (Proxy::to(server.address), Chain::pair(server.address));

    for at in doors(&proxy, &chain) {
        let greeting = crate::messages::greeting(at, 5);
        assert_eq!(
            greeting[4], 10,
            "{at}: the version of the protocol comes first"
        );

        let query = "create or replace table t (n int, filling longtext); \
                     insert into t values (40, repeat('x', 1048576)), (2, ''); \
                     select sum(n), sum(length(filling)) from t";
        let answer = run(program("mariadb")
            .args(["--no-defaults", "--protocol=tcp", "--user=root", "--batch"])
            .args(["--skip-column-names", "--max-allowed-packet=16M"])
            .arg(format!("--host={}", at.ip()))
            .arg(format!("--port={}", at.port()))
            .arg(format!("--execute={query}"))
            .arg("test"));
        assert_eq!(answer.ok().trim(), "42\t1048576", "{at}");
    }
    assert_eq!(proxy.detected("tcp-server-first"), proxy.detections());
}

fn redis() {
    let address = SocketAddr::from((own_address(), 6379));
    let server = Server::start(address, |folder| {
        let mut server = program("redis-server");
        server
            .args([
                "--port",
                "6379",
                "--save",
                "",
                "--protected-mode",
                "no",
                "--bind",
            ])
            .arg(address.ip().to_string())
            .arg("--dir")
            .arg(folder);
        server
    });
    let (proxy, chain) = (Proxy::to(server.address), Chain::pair(server.address));

    for at in doors(&proxy, &chain) {
        let place = ["-h", &at.ip().to_string(), "-p", &at.port().to_string()];
        let benchmark = [
            "-n",
            "2000",
            "-c",
            "10",
            "-P",
            "16",
            "-t",
            "set,get,lpush",
            "-d",
            "2000",
            "-q",
        ];
        let report = run(program("redis-benchmark").args(place).args(benchmark)).ok();
        assert!(report.contains("LPUSH"), "{at}: {report}");
        let cli = |command: &[&str]| run(program("redis-cli").args(place).args(command)).ok();
        assert_eq!(cli(&["set", "key", "value"]).trim(), "OK");
        assert_eq!(cli(&["get", "key"]).trim(), "value");
        let large = cli(&["eval", "return string.rep('x', 1048576)", "0"]);
        assert_eq!(large.trim().len(), 1 << 20, "{at}");
    }
    assert_eq!(proxy.detected("tcp"), proxy.detections());
}

/// Refuses to run as root: as root it is started as the user whom its package made.
fn postgresql_server() -> Server {
    let address = SocketAddr::from((own_address(), 5432));
    Server::start(address, |folder| {
        let data = folder.join("data");
        std::fs::create_dir(&data).unwrap();
        if let Some(user) = postgres() {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(folder, open).unwrap();
            std::os::unix::fs::chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .unwrap();
        }
        let cluster = [
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--pgdata",
        ];
        run(as_ordinary_user("initdb").args(cluster).arg(&data)).ok();
        let mut server = as_ordinary_user("postgres");
        server
            .args(["-F", "-c", "unix_socket_directories=", "-c"])
            .arg(format!("listen_addresses={}", address.ip()))
            .arg("-D")
            .arg(&data);
        server
    })
    // SIGTERM would wait for its clients.
    .ending_by(Signal::SIGINT)
}

fn as_ordinary_user(name: &str) -> Command {
    let wanted = program(name);
    if postgres().is_none() {
        return wanted;
    }
    let mut command = program("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(wanted.get_program())
        .current_dir("/");
    command
}

fn postgres() -> Option<User> {
    Uid::effective().is_root().then(|| {
        User::from_name("postgres")
            .unwrap()
            .expect("a user postgres")
    })
}

fn mariadb_server() -> Server {
    let address = SocketAddr::from((own_address(), 3306));
    let server = Server::start(address, |folder| {
        let own = |name: &str| folder.join(name).display().to_string();
        let data = own("data");
        std::fs::create_dir_all(folder.join("data/mysql")).unwrap();
        std::fs::create_dir(folder.join("data/test")).unwrap();
        let mut server = program("mariadbd");
        server
            .args([
                "--no-defaults",
                "--skip-grant-tables",
                "--skip-networking=0",
                "--skip-name-resolve",
            ])
            .args([
                "--user=root",
                "--innodb-buffer-pool-size=16M",
                "--innodb-log-file-size=8M",
            ])
            .args([
                "--innodb-flush-log-at-trx-commit=0",
                "--max-allowed-packet=16M",
            ])
            .arg(format!("--datadir={data}"))
            .arg(format!("--socket={}", own("mariadb.sock")))
            .arg(format!("--pid-file={}", own("mariadb.pid")))
            .arg(format!("--bind-address={}", address.ip()));
        server
    });
    until("MariaDB to be ready", || {
        server.output().contains("ready for connections")
    });
    server
}
