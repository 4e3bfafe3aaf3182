//! Is the proxy itself short of something, and what is to be done about it.
//!
//! One task looks at the resources and writes down how far each action is taken; listeners and HTTP read that,
//! without a lock. Without an overload manager in the bootstrap nothing is looked at, and nothing is ever done.

mod pressure;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::listener::OverloadPolicy;
use crate::config::overload::{Action, OverloadConfig, Trigger};
use crate::random;
use crate::telemetry::counters::{Count, Counters};

/// How far each action is taken now.
#[derive(Debug)]
pub struct Overload {
    config: Option<OverloadConfig>,
    /// In millionths, by action.
    states: [AtomicU32; Action::ALL.len()],
    connections: AtomicU64,
    rejected: Arc<Count>,
    shed: Arc<Count>,
    changed: Notify,
}

/// An action that is taken always.
const SATURATED: u32 = 1_000_000;

/// A connection of a client, counted against the limit; counted out when dropped.
#[derive(Debug)]
pub struct Admitted(Option<Arc<Overload>>);

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(overload) = &self.0 {
            overload.connections.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Overload {
    /// As configured; what happens is counted among `counters`.
    pub fn new(config: Option<OverloadConfig>, counters: &Counters) -> Arc<Self> {
        let counter = |name: String| match &config {
            Some(_) => counters.counter(&name),
            None => Arc::default(),
        };
        let shed = format!("overload.{}.shed_load_count", Action::ShedRequests.name());
        Arc::new(Overload {
            rejected: counter("overload.connections_rejected".into()),
            shed: counter(shed),
            config,
            states: Default::default(),
            connections: AtomicU64::new(0),
            changed: Notify::new(),
        })
    }

    /// Whether an action is taken always.
    pub fn is_saturated(&self, action: Action) -> bool {
        self.millionths(action) >= SATURATED
    }

    /// Whether an action is taken this time.
    pub fn is_taken(&self, action: Action) -> bool {
        match self.millionths(action) {
            0 => false,
            SATURATED.. => true,
            share => {
                let drawn = random::with(|random| random::below(random, SATURATED.into()));
                drawn < share.into()
            }
        }
    }

    /// Whether a request is refused. Those of high priority are refused last: when all are.
    pub fn refuses_request(&self, is_urgent: bool) -> bool {
        if self.config.is_none() {
            return false;
        }
        let is_shed = match is_urgent {
            true => self.is_saturated(Action::ShedRequests),
            false => self.is_taken(Action::ShedRequests),
        };
        if is_shed {
            self.shed.increment();
        }
        is_shed || self.is_saturated(Action::StopAcceptingRequests)
    }

    /// Counts a connection of a client in, or refuses it.
    pub fn admit(self: &Arc<Self>, policy: OverloadPolicy) -> Option<Admitted> {
        let config = match (&self.config, policy) {
            (Some(config), OverloadPolicy::Heeded | OverloadPolicy::Uncounted) => config,
            (None, _) | (_, OverloadPolicy::Bypassed) => return Some(Admitted(None)),
        };
        let (admitted, is_full) = match policy {
            OverloadPolicy::Heeded => {
                let open = self.connections.fetch_add(1, Ordering::AcqRel);
                let limit = config.max_connections.as_ref();
                let is_full = limit.is_some_and(|limit| open >= limit.max);
                (Admitted(Some(Arc::clone(self))), is_full)
            }
            OverloadPolicy::Uncounted | OverloadPolicy::Bypassed => (Admitted(None), false),
        };
        let is_refused = is_full
            || self.is_taken(Action::RejectConnections)
            || self.is_taken(Action::ShedConnections);
        if is_refused {
            self.rejected.increment();
            return None;
        }
        Some(admitted)
    }

    /// Returns when connections may be accepted.
    pub async fn accepting(&self) {
        self.until(|| !self.is_saturated(Action::StopAcceptingConnections))
            .await;
    }

    /// How long an idle connection of a client is kept now.
    pub fn connection_idle(&self, timeout: Duration) -> Duration {
        let shortest = self.config.as_ref().and_then(|each| each.connection_idle);
        let state = f64::from(self.millionths(Action::ReduceTimeouts)) / f64::from(SATURATED);
        shortest.map_or(timeout, |shortest| shortest.left_of(timeout, state))
    }

    /// Returns at the next change of what is done; never where nothing is looked at.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before looking: a change while we look must wake us.
            changed.as_mut().enable();
            if is_so() {
                return;
            }
            changed.await;
        }
    }

    fn millionths(&self, action: Action) -> u32 {
        self.states[action as usize].load(Ordering::Relaxed)
    }

    /// Writes down what follows from the pressure on each resource; says what has changed.
    fn judge(&self, config: &OverloadConfig, pressures: &[f64]) -> Vec<(Action, u32)> {
        let mut changes = vec![];
        for (action, triggers) in &config.actions {
            let state = state(triggers, pressures);
            let before = self.states[*action as usize].swap(state, Ordering::Relaxed);
            if before != state {
                changes.push((*action, state));
            }
        }
        if !changes.is_empty() {
            self.changed.notify_waiters();
        }
        changes
    }
}

/// The furthest that any of the triggers asks for, in millionths.
fn state(triggers: &[Trigger], pressures: &[f64]) -> u32 {
    let states = triggers.iter().map(|trigger| {
        let pressure = pressures.get(trigger.monitor).copied().unwrap_or(0.0);
        trigger.state(pressure)
    });
    let furthest = states.fold(0.0, f64::max);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1, of a million"
    )]
    let millionths = (furthest.clamp(0.0, 1.0) * f64::from(SATURATED)) as u32;
    millionths
}

/// Looks at the resources until it is cancelled; `release_memory` gives free memory back to the system.
pub async fn watch(
    overload: Arc<Overload>,
    counters: Arc<Counted>,
    release_memory: fn(),
    cancel: CancellationToken,
) {
    let Some(config) = &overload.config else {
        return;
    };
    let mut shrunk: Option<Instant> = None;
    loop {
        let pressures = pressure::all(config, &counters);
        for (action, state) in overload.judge(config, &pressures) {
            tracing::info!(action = action.name(), state, "overload action changes");
        }
        counters.tell(&overload, config);
        let is_due = shrunk.is_none_or(|last| last.elapsed() >= config.shrink_interval);
        if is_due && overload.is_saturated(Action::ShrinkHeap) {
            shrunk = Some(Instant::now());
            release_memory();
            counters.shrunk();
        }
        tokio::select! {
            () = tokio::time::sleep(config.refresh_interval) => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// Statistics of the overload manager, in Envoy's words.
#[derive(Debug)]
pub struct Counted {
    /// By monitor: its pressure in percent, and how often it could not be read.
    monitors: Vec<(Arc<Count>, Arc<Count>)>,
    connections: Option<Arc<Count>>,
    /// By action: how far it is taken in percent, and for other than load shed points whether always.
    actions: Vec<(Action, Arc<Count>, Option<Arc<Count>>)>,
    shrinks: Option<Arc<Count>>,
}

impl Counted {
    /// Those of a configuration.
    pub fn new(config: &OverloadConfig, counters: &Counters) -> Self {
        let counter = |name: &str, what: &str| counters.counter(&format!("overload.{name}.{what}"));
        let actions = config.actions.iter().map(|(action, _)| {
            let name = action.name();
            let active = (!action.is_point()).then(|| counter(name, "active"));
            (*action, counter(name, "scale_percent"), active)
        });
        let shrinks = config
            .actions
            .iter()
            .any(|(action, _)| *action == Action::ShrinkHeap);
        Counted {
            monitors: config
                .monitors
                .iter()
                .map(|each| {
                    let name = &each.name;
                    (counter(name, "pressure"), counter(name, "failed_updates"))
                })
                .collect(),
            connections: config
                .max_connections
                .as_ref()
                .map(|limit| counter(&limit.name, "pressure")),
            actions: actions.collect(),
            shrinks: shrinks.then(|| counter(Action::ShrinkHeap.name(), "shrink_count")),
        }
    }

    fn shrunk(&self) {
        if let Some(shrinks) = &self.shrinks {
            shrinks.increment();
        }
    }

    fn tell(&self, overload: &Overload, config: &OverloadConfig) {
        for (action, percent, active) in &self.actions {
            let state = overload.millionths(*action);
            percent.set(u64::from(state / (SATURATED / 100)));
            if let Some(active) = active {
                active.set(u64::from(state >= SATURATED));
            }
        }
        if let (Some(pressure), Some(limit)) = (&self.connections, &config.max_connections) {
            let open = overload.connections.load(Ordering::Relaxed);
            pressure.set(open.saturating_mul(100) / limit.max.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::overload::ConnectionLimit;

    fn config(actions: Vec<(Action, Vec<Trigger>)>) -> OverloadConfig {
        OverloadConfig {
            refresh_interval: Duration::from_secs(1),
            monitors: vec![],
            max_connections: None,
            actions,
            connection_idle: None,
            shrink_interval: Duration::from_secs(10),
        }
    }

    fn scaled(monitor: usize) -> Trigger {
        Trigger {
            monitor,
            scaling: 0.5,
            saturation: 0.9,
        }
    }

    #[test]
    fn requests_of_high_priority_are_refused_when_all_are_and_not_before() {
        let config = config(vec![(Action::ShedRequests, vec![scaled(0)])]);
        let overload = Overload::new(Some(config.clone()), &Counters::default());
        let refused = |is_urgent| {
            let requests = (0..1000).filter(|_| overload.refuses_request(is_urgent));
            requests.count()
        };

        overload.judge(&config, &[0.7]);
        // Half of them: that none or all are has a chance of one in 2^1000.
        assert!((1..1000).contains(&refused(false)));
        assert_eq!(refused(true), 0);

        overload.judge(&config, &[0.9]);
        assert_eq!((refused(false), refused(true)), (1000, 1000));
    }

    #[test]
    fn the_trigger_that_asks_for_most_decides() {
        let action = Action::DisableKeepalive;
        let config = config(vec![(action, vec![scaled(0), scaled(1)])]);
        let overload = Overload::new(Some(config.clone()), &Counters::default());

        overload.judge(&config, &[0.1, 0.95]);
        assert!(overload.is_saturated(action));
        overload.judge(&config, &[0.1, 0.6]);
        assert!(!overload.is_saturated(action));
    }

    #[test]
    fn no_more_connections_are_admitted_than_may_be_open() {
        let limited = OverloadConfig {
            max_connections: Some(ConnectionLimit {
                name: "connections".into(),
                max: 1,
            }),
            ..config(vec![])
        };
        let overload = Overload::new(Some(limited), &Counters::default());
        let first = overload.admit(OverloadPolicy::Heeded);

        assert!(first.is_some());
        assert!(overload.admit(OverloadPolicy::Heeded).is_none());
        assert!(overload.admit(OverloadPolicy::Uncounted).is_some());
        drop(first);
        assert!(overload.admit(OverloadPolicy::Heeded).is_some());
    }

    #[test]
    fn connections_are_refused_in_a_shortage_unless_their_listener_heeds_none() {
        let config = config(vec![(Action::RejectConnections, vec![scaled(0)])]);
        let overload = Overload::new(Some(config.clone()), &Counters::default());
        overload.judge(&config, &[1.0]);

        assert!(overload.admit(OverloadPolicy::Heeded).is_none());
        assert!(overload.admit(OverloadPolicy::Uncounted).is_none());
        assert!(overload.admit(OverloadPolicy::Bypassed).is_some());
    }

    #[tokio::test]
    async fn accepting_goes_on_when_the_shortage_is_over() {
        let config = config(vec![(Action::StopAcceptingConnections, vec![scaled(0)])]);
        let overload = Overload::new(Some(config.clone()), &Counters::default());
        overload.judge(&config, &[1.0]);
        let mut waiting = Box::pin(overload.accepting());

        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        overload.judge(&config, &[0.2]);
        tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .expect("accepting goes on");
    }
}
