//! How long a request may take, and how long it may be silent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::alarm::Alarm;
use super::failure::Failure;
use crate::clock;
use crate::config::http::HttpConfig;
use crate::config::route::Forward;
use crate::upstream::body::meter::BodyMeter;

/// The limits of one request, or of one try.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// From the end of the request to the end of the response, over all tries; to its head where it is that of a try.
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

    /// Those of a try.
    pub(super) fn of_try(limit: Option<Duration>, idle: Option<Duration>) -> Self {
        Limits {
            route: limit,
            idle,
            ..Limits::default()
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

    /// What comes of `work`, unless a limit is over before. `started` is when the request began, and `body` what has come of its
    /// body. Pinned by the caller: what is moved into a future is in it twice.
    pub(super) async fn watch<T>(
        self,
        mut work: Pin<&mut impl Future<Output = T>>,
        (started, body): (Instant, Option<&Arc<BodyMeter>>),
        alarm: &mut Alarm,
    ) -> Result<T, Exceeded> {
        if let (None, None, None, None) = (self.route, self.idle, self.request, self.stream) {
            return Ok(work.await);
        }
        let begun = clock::now();
        let mut course = Course {
            started,
            begun,
            body,
            received: received(body),
            heard: begun,
        };
        poll_fn(|context| {
            if let Poll::Ready(ended) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(ended));
            }
            alarm.poll(context, || course.first_due(&self)).map(Err)
        })
        .await
    }

    /// What is said of a request of which a limit is over.
    pub(super) fn failure(self, exceeded: Exceeded, body: Option<&Arc<BodyMeter>>) -> Failure {
        let has_request = body.is_none_or(|body| body.ended_at().is_some());
        match exceeded {
            Exceeded::Route(limit) => Failure::Timeout { limit },
            Exceeded::Idle(limit) => Failure::Idle { limit, has_request },
            Exceeded::Request(limit) => Failure::RequestTimeout { limit },
            Exceeded::Stream(limit) => Failure::Duration { limit, has_request },
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
}

/// A limit that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// From the end of the request on.
    Route(Duration),
    /// Without a byte of the client.
    Idle(Duration),
    /// From the beginning of the request to its end.
    Request(Duration),
    /// From the beginning of the request on.
    Stream(Duration),
}

/// How what is limited goes on.
struct Course<'a> {
    /// When the request began.
    started: Instant,
    /// When began what is watched.
    begun: Instant,
    body: Option<&'a Arc<BodyMeter>>,
    /// Bytes of the body when it was last looked.
    received: u64,
    /// When there were more of them than before.
    heard: Instant,
}

impl Course<'_> {
    /// The limit that is over first, and when.
    fn first_due(&mut self, limits: &Limits) -> Option<(Instant, Exceeded)> {
        let received = received(self.body);
        if received != self.received {
            (self.received, self.heard) = (received, clock::now());
        }
        let ended = match self.body {
            // A body that is kept may have ended long before.
            Some(body) => body.ended_at().map(|ended| ended.max(self.begun)),
            None => Some(self.begun),
        };
        let unended = ended.is_none().then_some(self.begun);
        let due = |since: Option<Instant>, limit: Option<Duration>, of: fn(_) -> _| {
            let limit = limit?;
            Some((since?.checked_add(limit)?, of(limit)))
        };
        [
            due(ended, limits.route, Exceeded::Route),
            due(Some(self.heard), limits.idle, Exceeded::Idle),
            due(unended, limits.request, Exceeded::Request),
            due(Some(self.started), limits.stream, Exceeded::Stream),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}

fn received(body: Option<&Arc<BodyMeter>>) -> u64 {
    body.map_or(0, |body| body.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn course(body: Option<&Arc<BodyMeter>>) -> Course<'_> {
        let begun = Instant::now();
        Course {
            started: begun.checked_sub(Duration::from_secs(1)).unwrap_or(begun),
            begun,
            body,
            received: 0,
            heard: begun,
        }
    }

    #[test]
    fn the_limit_that_is_over_first_is_told() {
        let mut course = course(None);
        let limits = Limits {
            route: Some(2 * LIMIT),
            idle: Some(3 * LIMIT),
            request: Some(LIMIT),
            stream: Some(3 * LIMIT),
        };

        let route = course.first_due(&limits);
        let without = course.first_due(&Limits {
            route: None,
            ..limits
        });

        // What has no body has ended, and the stream began before.
        assert_eq!(
            route,
            Some((course.begun + 2 * LIMIT, Exceeded::Route(2 * LIMIT)))
        );
        assert_eq!(
            without,
            Some((course.started + 3 * LIMIT, Exceeded::Stream(3 * LIMIT)))
        );
        assert_eq!(course.first_due(&Limits::default()), None);
    }

    #[test]
    fn a_route_and_a_request_are_limited_by_the_end_of_the_body() {
        let body = Arc::new(BodyMeter::default());
        let mut course = course(Some(&body));
        let limits = Limits {
            route: Some(LIMIT),
            request: Some(2 * LIMIT),
            ..Limits::default()
        };

        let before = course.first_due(&limits);
        body.end();
        let after = course.first_due(&limits);

        let request = (course.begun + 2 * LIMIT, Exceeded::Request(2 * LIMIT));
        assert_eq!(before, Some(request));
        let ended = body.ended_at().expect("it has ended");
        assert_eq!(after, Some((ended + LIMIT, Exceeded::Route(LIMIT))));
    }

    #[test]
    fn who_says_something_is_not_silent() {
        let body = Arc::new(BodyMeter::default());
        let mut course = course(Some(&body));
        course.heard -= Duration::from_millis(1);
        let limits = Limits::of_try(None, Some(LIMIT));
        let silent = course.first_due(&limits);

        body.count(&http_body::Frame::data(bytes::Bytes::from_static(b"x")));
        let heard = course.first_due(&limits);

        assert_eq!(
            silent.map(|(_, exceeded)| exceeded),
            Some(Exceeded::Idle(LIMIT))
        );
        assert!(heard.map(|(at, _)| at) > silent.map(|(at, _)| at));
        assert_eq!(course.first_due(&limits), heard);
    }
}
