//! Prometheus reads what the proxy counts.

use std::net::SocketAddr;

use crate::harness::config::Door;
use crate::harness::peer::{Peer, program};
use crate::harness::place::own_address;
use crate::harness::process::run;
use crate::harness::proxy::Proxy;

crate::harness::tests![&[Peer::Program("promtool"), Peer::Program("curl")];
    promtool_finds_nothing_wrong_with_the_metrics_of_a_proxy_by_itself,
];

fn promtool_finds_nothing_wrong_with_the_metrics_of_a_proxy_by_itself() {
    let nobody = SocketAddr::from((own_address(), 8_080));
    let proxy = Proxy::to(nobody);
    let url = format!("http://{}/", proxy.at(Door::Http));
    run(program("curl").args(["--silent", "--noproxy", "*", &url])).ok();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics");
    let metrics = proxy.admin("/stats/prometheus");
    assert!(metrics.contains("# TYPE "), "{metrics}");
    std::fs::write(&file, metrics).unwrap();
    let line = format!("promtool check metrics < {}", file.display());
    let said = run(program("sh").args(["-c", &line]));

    assert!(said.status.success(), "{said:?}");
}
