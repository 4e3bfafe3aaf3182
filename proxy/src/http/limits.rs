//! How long a request may take, and how long it may be silent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::Failure;
use crate::config::http::HttpConfig;
use crate::config::route::Forward;
use crate::pace;
use crate::upstream::body::meter::BodyMeter;

/// The limits of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the end of the request to the end of the response, over all tries.
    route: Option<Duration>,
    /// Without a byte either way.
    pub(super) idle: Option<Duration>,
    /// From the beginning of the request to its end.
    request: Option<Duration>,
    /// From the beginning of the request to the end of the response.
    stream: Option<Duration>,
}

impl Limits {
    /// Those of a route, where it has its own, else those of the chain.
    pub(super) fn of(
        config: &HttpConfig,
        forward: &Forward,
        route: Option<Duration>,
        stream: Option<Duration>,
    ) -> Self {
        Limits {
            route,
            idle: forward.idle_timeout.or(config.stream_idle_timeout),
            request: config.request_timeout,
            stream,
        }
    }

    /// With the limit of a try on how long it may be silent.
    pub(super) fn within_try(self, idle: Option<Duration>) -> Self {
        let both = self.idle.into_iter().chain(idle);
        Limits {
            idle: both.min(),
            ..self
        }
    }

    /// Carries out attempts as long as the limits allow. Pinned by the caller: what is moved into a future is in it twice.
    pub(super) async fn enforce<T>(
        self,
        attempts: Pin<&mut impl Future<Output = Result<T, Failure>>>,
        started: Instant,
        body: Option<&Arc<BodyMeter>>,
    ) -> Result<T, Failure> {
        if let (None, None, None, None) = (self.route, self.idle, self.request, self.stream) {
            return attempts.await;
        }
        pace::ask();
        tokio::select! {
            biased;
            ended = attempts => ended,
            failure = self.route_exceeded(body), if self.route.is_some() => Err(failure),
            failure = self.idle_exceeded(body), if self.idle.is_some() => Err(failure),
            failure = self.request_exceeded(body), if self.request.is_some() => Err(failure),
            failure = self.stream_exceeded(started, body), if self.stream.is_some() => Err(failure),
        }
    }

    /// When the response must have ended. Not known while the request has not.
    pub(super) fn deadline(
        self,
        started: Instant,
        body: Option<&Arc<BodyMeter>>,
    ) -> Option<Instant> {
        let ended = body.map_or(Some(started), |body| body.ended_at())?;
        ended.checked_add(self.route?)
    }

    /// When the stream must have ended.
    pub(super) fn stream_deadline(self, started: Instant) -> Option<Instant> {
        started.checked_add(self.stream?)
    }

    async fn stream_exceeded(self, started: Instant, body: Option<&Arc<BodyMeter>>) -> Failure {
        let (Some(limit), Some(deadline)) = (self.stream, self.stream_deadline(started)) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(deadline.into()).await;
        Failure::Duration {
            limit,
            has_request: has_ended(body),
        }
    }

    async fn route_exceeded(self, body: Option<&Arc<BodyMeter>>) -> Failure {
        let Some(limit) = self.route else {
            return std::future::pending().await;
        };
        if let Some(body) = body {
            body.ended().await;
        }
        tokio::time::sleep(limit).await;
        Failure::Timeout { limit }
    }

    async fn idle_exceeded(self, body: Option<&Arc<BodyMeter>>) -> Failure {
        let limit = silence(self.idle, body).await;
        Failure::Idle {
            limit,
            has_request: has_ended(body),
        }
    }

    async fn request_exceeded(self, body: Option<&Arc<BodyMeter>>) -> Failure {
        let (Some(limit), Some(body)) = (self.request, body) else {
            return std::future::pending().await;
        };
        tokio::time::sleep(limit).await;
        if body.ended_at().is_some() {
            return std::future::pending().await;
        }
        Failure::RequestTimeout { limit }
    }
}

fn has_ended(body: Option<&Arc<BodyMeter>>) -> bool {
    body.is_none_or(|body| body.ended_at().is_some())
}

/// Returns once nothing has come from the client for so long; never without a limit.
pub(super) async fn silence(limit: Option<Duration>, body: Option<&Arc<BodyMeter>>) -> Duration {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let received = || body.map_or(0, |body| body.bytes());
    let mut before = received();
    loop {
        tokio::time::sleep(limit).await;
        let now = received();
        if now == before {
            return limit;
        }
        before = now;
    }
}
