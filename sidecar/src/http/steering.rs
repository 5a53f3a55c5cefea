//! Where a request goes: the filter's two headers against the pools of the configuration.
//!
//! The rules are those of Envoy's `override_host` policy, in its strict form: the first value of the header counts; entries are
//! tried in their order; entries that are no member of the pool are passed over; when nothing usable is left, nobody else
//! is chosen. A server that is `down` counts as no member. One that an operator drains does: the filter no longer names it once it
//! has been told.

use evenkeel_policy::contract::{
    ENDPOINTS_MAX, MAX_RETRIES_HEADER, POOL_HEADER, RETRIABLE_STATUSES, RETRIABLE_STATUSES_HEADER,
    RETRY_ON_HEADER, STEERING_HEADER,
};

use std::rc::Rc;

use http::{HeaderValue, StatusCode};

use crate::http::head::{RequestHead, is_steering};
use crate::http::local_reply::Why;
use crate::members::Standing;
use crate::worker::{Active, Reach};

/// What to try, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) pool: usize,
    servers: [usize; ENDPOINTS_MAX],
    length: usize,
    pub(crate) conditions: Conditions,
    /// How many further servers may be tried.
    pub(crate) retries_max: u32,
}

/// After which failures the next server is tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// The connection was refused or timed out.
    pub(crate) connect_failure: bool,
    /// The server closed before its response head.
    pub(crate) reset: bool,
    /// The same, only if nothing of the request had been sent.
    pub(crate) reset_before_request: bool,
    /// It answered with one of these statuses; 0 is none.
    statuses: [u16; STATUSES_MAX],
}

impl Conditions {
    /// Whether an answer with this status is a failure.
    pub(crate) fn names_status(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status.as_u16())
    }
}

/// Most statuses of a request that count as failures; further ones do not.
const STATUSES_MAX: usize = 8;

impl Plan {
    pub(crate) fn server(&self, attempt: usize) -> Option<usize> {
        self.servers.get(..self.length)?.get(attempt).copied()
    }
}

/// Reads the headers that the filters left.
pub(crate) fn plan(head: &RequestHead, active: &Active) -> Result<(Plan, Rc<Reach>), Why> {
    let said = Said::read(head);
    let pool_name = said.pool.ok_or(Why::NoRoute)?;
    let number = active
        .generation
        .pool_named(pool_name.as_bytes())
        .ok_or(Why::UnknownPool)?;
    let reach = active.reach(number).ok_or(Why::UnknownPool)?;
    let mut plan = Plan {
        pool: number,
        servers: [0; ENDPOINTS_MAX],
        length: 0,
        conditions: Conditions::default(),
        retries_max: 0,
    };
    if let Some(list) = said.servers {
        plan.read_servers(list.as_bytes(), &reach);
    }
    if plan.length == 0 {
        return Err(Why::NoHealthyUpstream);
    }
    if plan.length > 1
        && let Some(value) = said.retry_on
    {
        plan.conditions = read_conditions(value.as_bytes(), said.statuses);
        let max = said
            .retries_max
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        plan.retries_max = max.unwrap_or(1);
    }
    Ok((plan, reach))
}

/// The first value of each header that steers, found in one pass: five look-ups would hash five names.
#[derive(Default)]
struct Said<'a> {
    pool: Option<&'a HeaderValue>,
    servers: Option<&'a HeaderValue>,
    retry_on: Option<&'a HeaderValue>,
    retries_max: Option<&'a HeaderValue>,
    statuses: Option<&'a HeaderValue>,
}

impl<'a> Said<'a> {
    fn read(head: &'a RequestHead) -> Self {
        let mut said = Self::default();
        for (name, value) in head.headers.iter().filter(|(name, _)| is_steering(name)) {
            let place = match name.as_str() {
                POOL_HEADER => &mut said.pool,
                STEERING_HEADER => &mut said.servers,
                RETRY_ON_HEADER => &mut said.retry_on,
                MAX_RETRIES_HEADER => &mut said.retries_max,
                RETRIABLE_STATUSES_HEADER => &mut said.statuses,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        said
    }
}

impl Plan {
    fn read_servers(&mut self, list: &[u8], reach: &Reach) {
        for entry in list.split(|&byte| byte == b',').take(ENDPOINTS_MAX) {
            let named = reach.roster.server_at(entry.trim_ascii());
            let usable = named.filter(|&number| {
                reach
                    .server(number)
                    .is_some_and(|server| server.standing != Standing::Down)
            });
            if let Some(number) = usable
                && let Some(slot) = self.servers.get_mut(self.length)
            {
                *slot = number;
                self.length += 1;
            }
        }
    }
}

fn read_conditions(value: &[u8], statuses: Option<&HeaderValue>) -> Conditions {
    let mut conditions = Conditions::default();
    for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        match token {
            b"connect-failure" => conditions.connect_failure = true,
            // A reset is also how Envoy sees a failed connect.
            b"reset" => {
                conditions.connect_failure = true;
                conditions.reset = true;
            }
            b"reset-before-request" => {
                conditions.connect_failure = true;
                conditions.reset_before_request = true;
            }
            token if token == RETRIABLE_STATUSES.as_bytes() => {
                conditions.statuses = statuses.map_or([0; STATUSES_MAX], read_statuses);
            }
            _ => {}
        }
    }
    conditions
}

/// What is no status is passed over, as Envoy does.
fn read_statuses(list: &HeaderValue) -> [u16; STATUSES_MAX] {
    let mut statuses = [0; STATUSES_MAX];
    let said = list.to_str().unwrap_or_default().split(',');
    let known = said.filter_map(|status| status.trim().parse().ok());
    for (place, status) in statuses.iter_mut().zip(known) {
        *place = status;
    }
    statuses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(retry_on: &str, statuses: &str, expected: &[u16]) {
        let statuses = HeaderValue::from_str(statuses).unwrap();
        let conditions = read_conditions(retry_on.as_bytes(), Some(&statuses));
        let named = (100..1_000)
            .filter(|status| conditions.names_status(StatusCode::from_u16(*status).unwrap()));
        assert_eq!(named.collect::<Vec<u16>>(), expected, "{retry_on}");
    }

    #[test]
    fn statuses_count_only_where_they_are_asked_for() {
        check("reset, retriable-status-codes", "503, 502", &[502, 503]);
        check("reset", "503", &[]);
        check("retriable-status-codes", "", &[]);
        check("retriable-status-codes", "x,70000,-1,504,", &[504]);
        check(
            "retriable-status-codes",
            "500,501,502,503,504,505,506,507,508",
            &[500, 501, 502, 503, 504, 505, 506, 507],
        );
    }
}
