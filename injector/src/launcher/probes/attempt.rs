//! One probe of a container: a command in it, or a connection to it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerPort, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Prober;

impl Prober<'_> {
    /// One probe: done, or why not.
    pub(super) async fn attempt(&self, probe: &Probe, timeout: Duration) -> Result<(), String> {
        if let Some(exec) = &probe.exec {
            return self
                .exec(exec.command.clone().unwrap_or_default(), timeout)
                .await;
        }
        let sandbox = self.name.sandbox();
        if let Some(get) = &probe.http_get {
            let address = self.target(get.host.as_deref(), &get.port)?;
            if get.scheme.as_deref() == Some("HTTPS") {
                // The kubelet verifies no certificate either: that somebody answers is what it comes to.
                let dialled = self.context.handoff.dial(&sandbox, address, timeout).await;
                return dialled.map(drop).map_err(|error| error.to_string());
            }
            let headers = get.http_headers.iter().flatten();
            let headers: Vec<_> = headers
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect();
            let path = get.path.as_deref().unwrap_or("/");
            let answer = self
                .context
                .handoff
                .get(&sandbox, address, path, &headers, timeout)
                .await;
            let status = answer.map_err(|error| error.to_string())?;
            // 200 to 399, as Kubernetes has it.
            let is_good = status.is_success() || status.is_redirection();
            return is_good
                .then_some(())
                .ok_or_else(|| format!("{path} answered {status}"));
        }
        if let Some(socket) = &probe.tcp_socket {
            let address = self.target(socket.host.as_deref(), &socket.port)?;
            let dialled = self.context.handoff.dial(&sandbox, address, timeout).await;
            return dialled.map(drop).map_err(|error| error.to_string());
        }
        Ok(())
    }

    async fn exec(&self, command: Vec<String>, timeout: Duration) -> Result<(), String> {
        const MAX_CHARS: usize = 200;
        let id = self.name.container(&self.container.name);
        let run = self.context.node.exec(id, command, timeout).await;
        let ended = run.map_err(|failure| failure.to_string())?;
        if ended.timed_out {
            return Err(format!("no end within {} s", timeout.as_secs()));
        }
        if ended.exit_code == 0 {
            return Ok(());
        }
        let output = String::from_utf8_lossy(&ended.output);
        let output: String = output.trim().chars().take(MAX_CHARS).collect();
        Err(format!("ended with {}: {output}", ended.exit_code))
    }

    fn target(&self, host: Option<&str>, port: &IntOrString) -> Result<SocketAddr, String> {
        let address = match host.filter(|host| !host.is_empty()) {
            Some("localhost") => IpAddr::from([127, 0, 0, 1]),
            Some(host) => host.parse().map_err(|_| format!("{host} is no address"))?,
            None => self.address,
        };
        let ports = self.container.ports.as_deref().unwrap_or_default();
        let port =
            port_number(port, ports).ok_or_else(|| "the container has no such port".to_owned())?;
        Ok(SocketAddr::new(address, port))
    }
}

fn port_number(port: &IntOrString, ports: &[ContainerPort]) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
            match named {
                Some(port) => u16::try_from(port.container_port).ok(),
                None => name.parse().ok(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_goes_by_number_or_by_the_name_its_container_gives_it() {
        let ports = [ContainerPort {
            name: Some("http".to_owned()),
            container_port: 8080,
            ..ContainerPort::default()
        }];
        let number = |port: IntOrString| port_number(&port, &ports);

        assert_eq!(number(IntOrString::Int(9000)), Some(9000));
        assert_eq!(number(IntOrString::String("http".to_owned())), Some(8080));
        assert_eq!(number(IntOrString::String("9001".to_owned())), Some(9001));
        assert_eq!(number(IntOrString::String("grpc".to_owned())), None);
        assert_eq!(number(IntOrString::Int(-1)), None);
    }
}
