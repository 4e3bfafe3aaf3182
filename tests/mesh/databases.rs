//! Databases in the mesh, with nothing configured: PostgreSQL, whose client speaks first and asks for TLS of its own in
//! the middle of its protocol, and MariaDB, whose server speaks first.

use crate::harness::bookstore::Bookstore;
use crate::harness::undo::Undo;
use crate::harness::wait::{eventually, holds};

const COMPOSE: &str = "tests/mesh/databases.yaml";

crate::harness::tests![postgresql_and_mariadb_are_used_through_the_mesh_with_no_configuration];

fn postgresql_and_mariadb_are_used_through_the_mesh_with_no_configuration(bookstore: &Bookstore) {
    let archive = bookstore.archives.join("databases.tar");
    bookstore
        .weft(&["image", "import", &archive.to_string_lossy()])
        .ok();
    let _down = Undo::new(bookstore, &["down", "-v", "-f", COMPOSE], "");
    bookstore.weft(&["up", "-d", "--wait", "-f", COMPOSE]).ok();

    a_benchmark_runs_against_postgresql(bookstore);
    a_query_is_answered_by_mariadb(bookstore);
    for (service, at_least) in [("postgres", 5.0), ("mariadb", 1.0)] {
        the_connections_were_authenticated(bookstore, service, at_least);
    }
}

fn a_benchmark_runs_against_postgresql(bookstore: &Bookstore) {
    let target = "--host=postgres --username=postgres";
    let line = format!(
        "pgbench --initialize --quiet --scale=1 {target} postgres && \
         pgbench --client=4 --transactions=50 --no-vacuum {target} postgres"
    );

    let report = bookstore.shell("sql", &line).ok();

    assert!(report.contains("200/200"), "{report}");
    let count = "psql --host=postgres --username=postgres --no-align --tuples-only \
                 --command='select count(*) from pgbench_history'";
    assert_eq!(bookstore.shell("sql", count).ok().trim(), "200");
}

fn a_query_is_answered_by_mariadb(bookstore: &Bookstore) {
    let client =
        "mariadb --host=mariadb --user=weft --password=weft --batch --skip-column-names test";
    let statements = "create table t (n int); insert into t values (40), (2); select sum(n) from t";

    let answer = bookstore.shell("sql", &format!("{client} --execute='{statements}'"));

    assert_eq!(answer.ok().trim(), "42");
}

fn the_connections_were_authenticated(bookstore: &Bookstore, service: &str, at_least: f64) {
    let labels = [
        ("reporter", "destination"),
        (
            "source_principal",
            "spiffe://cluster.local/ns/default/sa/sql",
        ),
    ];
    eventually("the connections to be counted with their caller", || {
        let opened = bookstore
            .metrics(service)
            .sum("weft_tcp_connections_opened_total", &labels);
        holds(opened >= at_least, || format!("{service}: {opened}"))
    });
}
