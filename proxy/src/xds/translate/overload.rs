//! The bootstrap's `overload_manager`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::Any;
use weft_proto::envoy::config::overload::v3::resource_monitor::ConfigType;
use weft_proto::envoy::config::overload::v3::scale_timers_overload_action_config::scale_timer::OverloadAdjust;
use weft_proto::envoy::config::overload::v3::scale_timers_overload_action_config::{
    ScaleTimer, TimerType,
};
use weft_proto::envoy::config::overload::v3::trigger::TriggerOneof;
use weft_proto::envoy::config::overload::v3::{
    LoadShedPoint, OverloadAction, OverloadManager, ResourceMonitor,
    ScaleTimersOverloadActionConfig, ScaledTrigger, ShrinkHeapConfig, ThresholdTrigger,
    Trigger as WireTrigger,
};
use weft_proto::envoy::extensions::resource_monitors::cgroup_memory::v3::CgroupMemoryConfig;
use weft_proto::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use weft_proto::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;
use weft_proto::envoy::extensions::resource_monitors::injected_resource::v3::InjectedResourceConfig;

use super::at::{
    At, Invalid, Notes, duration, enumeration, harmless, holds, nonempty, opened, required,
};
use super::share::percent;
use crate::config::overload::{
    Action, ConnectionLimit, Monitor, OverloadConfig, Resource, Shortest, Trigger,
};

/// Envoy's.
const DEFAULT_REFRESH: Duration = Duration::from_secs(1);
/// Envoy's.
const DEFAULT_SHRINK_INTERVAL: Duration = Duration::from_secs(10);
/// Envoy's: nobody can ask for more often.
const MIN_SHRINK_INTERVAL: Duration = Duration::from_secs(1);

/// The overload manager of a bootstrap, and its fields without effect.
///
/// # Errors
/// A field has a value that is not possible, or asks for what is not supported; its path is relative to the
/// overload manager.
pub fn overload_manager(
    wire: &OverloadManager,
) -> Result<(OverloadConfig, BTreeSet<String>), Invalid> {
    let notes = Notes::default();
    let config = overload(&At::root(&notes), wire)?;
    Ok((config, notes.into_paths()))
}

fn overload(at: &At<'_>, wire: &OverloadManager) -> Result<OverloadConfig, Invalid> {
    let OverloadManager {
        refresh_interval,
        resource_monitors,
        actions,
        buffer_factory_config,
        loadshed_points,
    } = wire;
    // Streams need not be accounted for: none holds more than its buffers may.
    harmless!(at; buffer_factory_config);
    let at_refresh = at.field("refresh_interval");
    let refresh_interval =
        duration(&at_refresh, refresh_interval.as_ref())?.unwrap_or(DEFAULT_REFRESH);
    if refresh_interval.is_zero() {
        return Err(at_refresh.refuse("must be more than nothing"));
    }
    let mut config = OverloadConfig {
        refresh_interval,
        monitors: vec![],
        max_connections: None,
        actions: vec![],
        connection_idle: None,
        shrink_interval: DEFAULT_SHRINK_INTERVAL,
    };
    let at_monitors = at.field("resource_monitors");
    for (index, wire) in resource_monitors.iter().enumerate() {
        monitor(&at_monitors.index(index), wire, &mut config)?;
    }
    let at_actions = at.field("actions");
    for (index, wire) in actions.iter().enumerate() {
        action(&at_actions.index(index), wire, &mut config)?;
    }
    let at_points = at.field("loadshed_points");
    for (index, wire) in loadshed_points.iter().enumerate() {
        point(&at_points.index(index), wire, &mut config)?;
    }
    Ok(config)
}

fn monitor(
    at: &At<'_>,
    wire: &ResourceMonitor,
    config: &mut OverloadConfig,
) -> Result<(), Invalid> {
    let ResourceMonitor { name, config_type } = wire;
    let at_name = at.field("name");
    let name: Arc<str> = nonempty(&at_name, name)?.into();
    if config.monitors.iter().any(|each| each.name == name) {
        return Err(at_name.refuse(format_args!("another one is called {name:?}, too")));
    }
    let at = at.field("typed_config");
    let any = config_type.as_ref().map(|ConfigType::TypedConfig(any)| any);
    let any = required(&at, any)?;
    if holds::<DownstreamConnectionsConfig>(any) {
        config.max_connections = Some(ConnectionLimit {
            name,
            max: connections(&at, any)?,
        });
        return Ok(());
    }
    let resource = resource(&at, any)?;
    config.monitors.push(Monitor { name, resource });
    Ok(())
}

fn connections(at: &At<'_>, any: &Any) -> Result<u64, Invalid> {
    let DownstreamConnectionsConfig {
        max_active_downstream_connections: max,
    } = opened(at, any)?;
    let at = at.field("max_active_downstream_connections");
    match u64::try_from(max) {
        Ok(max) if max > 0 => Ok(max),
        _ => Err(at.refuse(format_args!("{max} is less than 1"))),
    }
}

fn resource(at: &At<'_>, any: &Any) -> Result<Resource, Invalid> {
    if holds::<FixedHeapConfig>(any) {
        let FixedHeapConfig {
            max_heap_size_bytes,
        } = opened(at, any)?;
        return match max_heap_size_bytes {
            0 => Err(at.field("max_heap_size_bytes").refuse("must not be 0")),
            bytes => Ok(Resource::Heap(bytes)),
        };
    }
    if holds::<CgroupMemoryConfig>(any) {
        let CgroupMemoryConfig { max_memory_bytes } = opened(at, any)?;
        return Ok(Resource::ControlGroup(max_memory_bytes));
    }
    if holds::<InjectedResourceConfig>(any) {
        let InjectedResourceConfig { filename } = opened(at, any)?;
        let filename = nonempty(&at.field("filename"), &filename)?;
        return Ok(Resource::File(filename.into()));
    }
    Err(at.refuse_value(&any.type_url))
}

/// Streams that hold much memory are reset: here none holds more than its buffers may.
const RESET_STREAMS: &str = "envoy.overload_actions.reset_high_memory_stream";

fn action(at: &At<'_>, wire: &OverloadAction, config: &mut OverloadConfig) -> Result<(), Invalid> {
    let OverloadAction {
        name,
        triggers,
        typed_config,
    } = wire;
    if name == RESET_STREAMS {
        at.note();
        return Ok(());
    }
    let action = named(&at.field("name"), name, |action| !action.is_point(), config)?;
    let at_config = at.field("typed_config");
    match (action, typed_config) {
        (Action::ReduceTimeouts, any) => {
            let any = required(&at_config, any.as_ref())?;
            config.connection_idle = timers(&at_config, &opened(&at_config, any)?)?;
        }
        (Action::ShrinkHeap, Some(any)) => {
            let ShrinkHeapConfig {
                timer_interval,
                max_unfreed_memory_bytes,
            } = opened(&at_config, any)?;
            let max_unfreed_memory_bytes = &max_unfreed_memory_bytes;
            harmless!(at_config; max_unfreed_memory_bytes);
            let at = at_config.field("timer_interval");
            config.shrink_interval = duration(&at, timer_interval.as_ref())?
                .unwrap_or(DEFAULT_SHRINK_INTERVAL)
                .max(MIN_SHRINK_INTERVAL);
        }
        (_, Some(any)) => return Err(at_config.refuse_value(&any.type_url)),
        (_, None) => {}
    }
    let triggers = self::triggers(&at.field("triggers"), triggers, &config.monitors)?;
    config.actions.push((action, triggers));
    Ok(())
}

fn point(at: &At<'_>, wire: &LoadShedPoint, config: &mut OverloadConfig) -> Result<(), Invalid> {
    let LoadShedPoint { name, triggers } = wire;
    let action = named(&at.field("name"), name, |action| action.is_point(), config)?;
    let triggers = self::triggers(&at.field("triggers"), triggers, &config.monitors)?;
    config.actions.push((action, triggers));
    Ok(())
}

fn named(
    at: &At<'_>,
    name: &str,
    is_allowed: impl Fn(Action) -> bool,
    config: &OverloadConfig,
) -> Result<Action, Invalid> {
    let action = Action::ALL
        .into_iter()
        .find(|action| is_allowed(*action) && action.name() == name)
        .ok_or_else(|| at.refuse_value(name))?;
    match config.actions.iter().any(|(other, _)| *other == action) {
        true => Err(at.refuse(format_args!("{name:?} is there twice"))),
        false => Ok(action),
    }
}

fn triggers(
    at: &At<'_>,
    wire: &[WireTrigger],
    monitors: &[Monitor],
) -> Result<Vec<Trigger>, Invalid> {
    if wire.is_empty() {
        return Err(at.refuse("must not be empty"));
    }
    let mut found: Vec<Trigger> = vec![];
    for (index, wire) in wire.iter().enumerate() {
        let at = at.index(index);
        let trigger = trigger(&at, wire, monitors)?;
        if found.iter().any(|each| each.monitor == trigger.monitor) {
            let name = &monitors[trigger.monitor].name;
            return Err(at
                .field("name")
                .refuse(format_args!("{name:?} has another trigger here")));
        }
        found.push(trigger);
    }
    Ok(found)
}

fn trigger(at: &At<'_>, wire: &WireTrigger, monitors: &[Monitor]) -> Result<Trigger, Invalid> {
    let WireTrigger {
        name,
        trigger_oneof,
    } = wire;
    let monitor = monitors.iter().position(|each| *each.name == **name);
    let monitor = monitor.ok_or_else(|| {
        at.field("name").refuse(format_args!(
            "no resource monitor that triggers can use is called {name:?}"
        ))
    })?;
    let (scaling, saturation) = match required(&at.field("trigger_oneof"), trigger_oneof.as_ref())?
    {
        TriggerOneof::Threshold(ThresholdTrigger { value }) => {
            let value = share(&at.field("threshold").field("value"), *value)?;
            (value, value)
        }
        TriggerOneof::Scaled(ScaledTrigger {
            scaling_threshold,
            saturation_threshold,
        }) => {
            let at = at.field("scaled");
            let scaling = share(&at.field("scaling_threshold"), *scaling_threshold)?;
            let at_saturation = at.field("saturation_threshold");
            let saturation = share(&at_saturation, *saturation_threshold)?;
            if scaling >= saturation {
                return Err(at_saturation.refuse("must be more than scaling_threshold"));
            }
            (scaling, saturation)
        }
    };
    Ok(Trigger {
        monitor,
        scaling,
        saturation,
    })
}

fn share(at: &At<'_>, value: f64) -> Result<f64, Invalid> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(at.refuse(format_args!("{value} is not within 0 and 1"))),
    }
}

fn timers(
    at: &At<'_>,
    wire: &ScaleTimersOverloadActionConfig,
) -> Result<Option<Shortest>, Invalid> {
    let ScaleTimersOverloadActionConfig {
        timer_scale_factors,
    } = wire;
    let at = at.field("timer_scale_factors");
    let mut found = None;
    for (index, wire) in timer_scale_factors.iter().enumerate() {
        let at = at.index(index);
        let ScaleTimer {
            timer,
            overload_adjust,
        } = wire;
        match enumeration(&at.field("timer"), *timer)? {
            TimerType::HttpDownstreamConnectionIdle => {}
            other => return Err(at.field("timer").refuse_value(other.as_str_name())),
        }
        let shortest = match required(&at.field("overload_adjust"), overload_adjust.as_ref())? {
            OverloadAdjust::MinTimeout(time) => {
                let time = duration(&at.field("min_timeout"), Some(time))?;
                Shortest::Time(time.unwrap_or_default())
            }
            OverloadAdjust::MinScale(wire) => {
                let share = percent(&at.field("min_scale"), wire)?;
                Shortest::Share(f64::from(share.millionths()) / 1_000_000.0)
            }
        };
        found.get_or_insert(shortest);
    }
    match found {
        Some(_) => Ok(found),
        None => Err(at.refuse("must not be empty")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HEAP: &str =
        "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig";
    const CONNECTIONS: &str = "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";
    const TIMERS: &str =
        "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig";

    fn manager() -> Value {
        json!({
            "resource_monitors": [
                {"name": "heap", "typed_config": {"@type": HEAP, "max_heap_size_bytes": "1000"}},
                {"name": "connections", "typed_config":
                    {"@type": CONNECTIONS, "max_active_downstream_connections": "7"}},
            ],
            "actions": [
                {"name": "envoy.overload_actions.stop_accepting_requests",
                    "triggers": [{"name": "heap", "threshold": {"value": 0.9}}]},
                {"name": "envoy.overload_actions.reduce_timeouts",
                    "triggers": [{"name": "heap", "scaled":
                        {"scaling_threshold": 0.5, "saturation_threshold": 0.75}}],
                    "typed_config": {"@type": TIMERS, "timer_scale_factors": [
                        {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_scale": {"value": 25.0}}]}},
            ],
        })
    }

    fn translated(manager: Value) -> Result<OverloadConfig, Invalid> {
        let wire = weft_proto::json::from_json(manager).expect("an overload manager");
        overload_manager(&wire).map(|(config, _)| config)
    }

    #[test]
    fn monitors_actions_and_triggers_are_put_together() {
        let config = translated(manager()).expect("valid");

        assert_eq!(config.monitors.len(), 1);
        assert_eq!(config.max_connections.map(|limit| limit.max), Some(7));
        assert_eq!(config.connection_idle, Some(Shortest::Share(0.25)));
        let (action, triggers) = &config.actions[1];
        assert_eq!(*action, Action::ReduceTimeouts);
        assert_eq!((triggers[0].scaling, triggers[0].saturation), (0.5, 0.75));
        assert_eq!(config.refresh_interval, Duration::from_secs(1));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_path() {
        let cases: [(&str, Value, &str); 6] = [
            (
                "/actions/0/name",
                json!("envoy.overload_actions.reduce_nothing"),
                "actions[0].name",
            ),
            (
                "/actions/0/triggers/0/name",
                json!("connections"),
                "actions[0].triggers[0].name",
            ),
            (
                "/actions/0/triggers/0/threshold/value",
                json!(1.5),
                "actions[0].triggers[0].threshold.value",
            ),
            (
                "/actions/1/triggers/0/scaled/saturation_threshold",
                json!(0.5),
                "actions[1].triggers[0].scaled.saturation_threshold",
            ),
            (
                "/actions/1/typed_config/timer_scale_factors/0/timer",
                json!("TRANSPORT_SOCKET_CONNECT"),
                "actions[1].typed_config.timer_scale_factors[0].timer",
            ),
            (
                "/resource_monitors/1/name",
                json!("heap"),
                "resource_monitors[1].name",
            ),
        ];
        for (pointer, value, path) in cases {
            let mut manager = manager();
            *manager.pointer_mut(pointer).expect("it is there") = value;

            let refused = translated(manager).expect_err(pointer);

            assert_eq!(refused.path(), path);
        }
    }
}
