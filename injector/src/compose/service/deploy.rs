//! `deploy`: how many pods there are of a service, what they may use, and when they begin again.

use super::{Limits, Restart};
use crate::compose::document::Node;
use crate::compose::error::{ComposeError, Warning};
use crate::compose::{read, schema};

/// What stands below `deploy`, and the older keys that say the same.
pub(super) struct Deploy {
    pub(super) replicas: u32,
    pub(super) restart: Restart,
    pub(super) limits: Limits,
}

impl Deploy {
    pub(super) fn read(
        service: &Node,
        place: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ComposeError> {
        let mut deploy = Deploy {
            replicas: 1,
            restart: Restart::default(),
            limits: Limits::default(),
        };
        if let Some(node) = service.get("restart") {
            deploy.restart = restart(node, &format!("{place}.restart"))?;
        }
        let limit = |field: &str| {
            service
                .get(field)
                .map(|node| (node, format!("{place}.{field}")))
        };
        if let Some((node, what)) = limit("mem_limit") {
            deploy.limits.memory_bytes = Some(read::bytes(node, &what)?);
        }
        if let Some((node, what)) = limit("cpus") {
            deploy.limits.cpu_millis = Some(read::cpu_millis(node, &what)?);
        }
        if let Some((node, what)) = limit("pids_limit") {
            deploy.limits.pids = Some(read::number(node, &what)?);
        }
        if let Some(node) = service.get("deploy") {
            deploy.add(node, &format!("{place}.deploy"), warnings)?;
        }
        Ok(deploy)
    }

    fn add(
        &mut self,
        node: &Node,
        what: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ComposeError> {
        schema::check(node, what, schema::DEPLOY, warnings)?;
        if let Some(node) = node.get("mode")
            && read::text(node, what)? != "replicated"
        {
            return Err(read::expected(
                node,
                &format!("{what}.mode"),
                "replicated: there is one machine",
            ));
        }
        if let Some(node) = node.get("replicas") {
            self.replicas = read::number(node, &format!("{what}.replicas"))?;
            if self.replicas > MAX_REPLICAS {
                return Err(read::expected(
                    node,
                    &format!("{what}.replicas"),
                    &format!("at most {MAX_REPLICAS}"),
                ));
            }
        }
        if let Some(policy) = node.get("restart_policy") {
            schema::check(
                policy,
                &format!("{what}.restart_policy"),
                schema::RESTART_POLICY,
                warnings,
            )?;
            self.restart = policy
                .get("condition")
                .map_or(Ok(Restart::Always), |node| {
                    restart(node, &format!("{what}.restart_policy.condition"))
                })?;
        }
        if let Some(resources) = node.get("resources") {
            schema::check(
                resources,
                &format!("{what}.resources"),
                schema::RESOURCES,
                warnings,
            )?;
            if let Some(limits) = resources.get("limits") {
                self.add_limits(limits, &format!("{what}.resources.limits"), warnings)?;
            }
        }
        Ok(())
    }

    fn add_limits(
        &mut self,
        node: &Node,
        what: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ComposeError> {
        schema::check(node, what, schema::LIMITS, warnings)?;
        if let Some(node) = node.get("memory") {
            self.limits.memory_bytes = Some(read::bytes(node, &format!("{what}.memory"))?);
        }
        if let Some(node) = node.get("cpus") {
            self.limits.cpu_millis = Some(read::cpu_millis(node, &format!("{what}.cpus"))?);
        }
        if let Some(node) = node.get("pids") {
            self.limits.pids = Some(read::number(node, &format!("{what}.pids"))?);
        }
        Ok(())
    }
}

/// More pods of one service than a machine has addresses for is a mistake.
const MAX_REPLICAS: u32 = 1000;

fn restart(node: &Node, what: &str) -> Result<Restart, ComposeError> {
    let text = read::text(node, what)?;
    match text.split(':').next().unwrap_or_default() {
        "no" | "none" => Ok(Restart::Never),
        "on-failure" => Ok(Restart::OnFailure),
        "always" | "unless-stopped" | "any" => Ok(Restart::Always),
        _ => Err(read::expected(
            node,
            what,
            "no, on-failure, always or unless-stopped",
        )),
    }
}
