//! `routes`: what becomes of which requests.
//!
//! ```text
//!   match       see `matches`; without it every request
//!   pool        the name of a pool; with `rewrite: {prefix | regex, to}` its servers get another path
//!   redirect    a location with variables, or {location, status}: 302 unless stated
//!   respond     {status, body, headers}: 200 unless stated
//!   deny        true: 403; or a status
//!   limit       names of `limits`: one, or a list
//! ```

use super::document::OneOrMany;
use super::matches::{conditions, in_words, regex, rooted};
use super::names::{nearest, shortened};
use super::request_headers::{NOT_SETTABLE, header_name};
use super::route_document::{
    DenyDocument, RedirectDocument, RespondDocument, RewriteDocument, RouteDocument,
};
use super::{ConfigError, MATCH_VALUES_MAX, PoolConfig, REGEXES_MAX, ROUTES_MAX, RouteSummary};
use crate::exchange::{Action, Respond, Rewrite, RouteRule, Template};
use crate::limits::ROUTE_LIMITS_MAX;
use crate::routing::{Case, Conditions, Route, Router};

/// Longest body of `respond`, bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Most headers of `respond`.
const RESPOND_HEADERS_MAX: usize = 64;

/// All routes of a configuration.
pub(super) struct Routes {
    pub(super) router: Router,
    pub(super) rules: Vec<RouteRule>,
    pub(super) summaries: Vec<RouteSummary>,
}

/// Reads the routes. `limits` are the names of limits, by index.
pub(super) fn routes(
    documents: &[RouteDocument],
    pools: &[PoolConfig],
    limits: &[&str],
) -> Result<Routes, ConfigError> {
    if documents.len() > ROUTES_MAX {
        return Err(ConfigError::new(
            "routes",
            format!(
                "expected at most {ROUTES_MAX} routes, found {}",
                documents.len()
            ),
        ));
    }
    let mut routes = Vec::with_capacity(documents.len());
    let mut rules = Vec::with_capacity(documents.len());
    let mut summaries = Vec::with_capacity(documents.len());
    for (index, document) in documents.iter().enumerate() {
        let path = format!("routes[{index}]");
        let conditions = match &document.condition {
            None => Conditions::default(),
            Some(condition) => conditions(&format!("{path}.match"), condition)?,
        };
        let action = action(&path, document, pools, conditions.case)?;
        let limits = route_limits(&format!("{path}.limit"), document, &action, limits)?;
        summaries.push(RouteSummary {
            condition: document.condition.as_ref().map_or(String::new(), in_words),
            action: action_in_words(document),
            pool: document.pool.clone().unwrap_or_default(),
        });
        rules.push(RouteRule { action, limits });
        routes.push(Route { conditions });
    }
    check_bounds(&routes)?;
    let router =
        Router::new(&routes).map_err(|error| ConfigError::new("routes", error.to_string()))?;
    Ok(Routes {
        router,
        rules,
        summaries,
    })
}

fn check_bounds(routes: &[Route]) -> Result<(), ConfigError> {
    let count = |of: fn(&Conditions) -> usize| {
        routes
            .iter()
            .map(|route| of(&route.conditions))
            .sum::<usize>()
    };
    let bounds = [
        (
            "values in all matches",
            count(Conditions::values),
            MATCH_VALUES_MAX,
        ),
        (
            "regular expressions",
            count(Conditions::regexes),
            REGEXES_MAX,
        ),
    ];
    for (what, found, most) in bounds {
        if found > most {
            return Err(ConfigError::new(
                "routes",
                format!("expected at most {most} {what}, found {found}"),
            ));
        }
    }
    Ok(())
}

/// The one action of a route.
fn action(
    path: &str,
    document: &RouteDocument,
    pools: &[PoolConfig],
    case: Case,
) -> Result<Action, ConfigError> {
    let stated = [
        ("pool", document.pool.is_some()),
        ("redirect", document.redirect.is_some()),
        ("respond", document.respond.is_some()),
        ("deny", document.deny.is_some()),
    ];
    let stated: Vec<String> = stated
        .iter()
        .filter(|(_, stated)| *stated)
        .map(|(key, _)| format!("`{key}`"))
        .collect();
    match stated.len() {
        0 => {
            let message =
                "expected what becomes of the request: `pool`, `redirect`, `respond` or `deny`";
            return Err(ConfigError::new(path, message));
        }
        1 => {}
        _ => {
            let message = format!(
                "one thing can become of a request, found {}: leave all but one out",
                stated.join(" and ")
            );
            return Err(ConfigError::new(path, message));
        }
    }
    if document.rewrite.is_some() && document.pool.is_none() {
        let message = format!(
            "a path is rewritten for the servers of a `pool`, and this route has {} instead",
            stated.concat()
        );
        return Err(ConfigError::new(format!("{path}.rewrite"), message));
    }
    if let Some(name) = &document.pool {
        let rewrite = match &document.rewrite {
            Some(document) => Some(rewrite(&format!("{path}.rewrite"), document, case)?),
            None => None,
        };
        let pool = pool_index(&format!("{path}.pool"), name, pools)?;
        return Ok(Action::Pool { pool, rewrite });
    }
    if let Some(document) = &document.redirect {
        return redirect(&format!("{path}.redirect"), document);
    }
    if let Some(document) = &document.respond {
        return respond(&format!("{path}.respond"), document);
    }
    let path = format!("{path}.deny");
    match document.deny {
        Some(DenyDocument::Status(status)) => {
            let status = self::status(&path, status, 400..=599)?;
            Ok(Action::Deny { status })
        }
        Some(DenyDocument::Flag(false)) => Err(ConfigError::new(
            path,
            "expected `true` or a status; to let requests pass, name their pool",
        )),
        Some(DenyDocument::Flag(true)) | None => Ok(Action::Deny { status: 403 }),
    }
}

fn pool_index(path: &str, name: &str, pools: &[PoolConfig]) -> Result<usize, ConfigError> {
    let found = pools.iter().position(|pool| pool.name == name);
    found.ok_or_else(|| {
        let hint = nearest(name, pools.iter().map(|pool| pool.name.as_str()));
        let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        ConfigError::new(
            path,
            format!("no pool is named `{}`{hint}", shortened(name)),
        )
    })
}

fn status(
    path: &str,
    status: u64,
    known: std::ops::RangeInclusive<u16>,
) -> Result<u16, ConfigError> {
    let read = u16::try_from(status).ok();
    read.filter(|status| known.contains(status)).ok_or_else(|| {
        let message = format!(
            "expected a status from {} to {}, found {status}",
            known.start(),
            known.end()
        );
        ConfigError::new(path, message)
    })
}

fn redirect(path: &str, document: &RedirectDocument) -> Result<Action, ConfigError> {
    let status = match document.status {
        None => 302,
        Some(status) => {
            let known = [301, 302, 303, 307, 308];
            let read = u16::try_from(status).ok();
            read.filter(|status| known.contains(status))
                .ok_or_else(|| {
                    let message = format!("expected 301, 302, 303, 307 or 308, found {status}");
                    ConfigError::new(format!("{path}.status"), message)
                })?
        }
    };
    let text = &document.location;
    let has_scheme = ["http://", "https://", "$scheme://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    let is_path = (text.starts_with('/') && !text.starts_with("//"))
        || ["$uri", "$path"].iter().any(|path| text.starts_with(path));
    let location = if has_scheme || is_path {
        Template::parse(text)
    } else {
        Err(format!(
            "expected a location such as https://$host$uri or /path, found `{}`",
            shortened(text)
        ))
    };
    let location = location.map_err(|message| ConfigError::new(path, message))?;
    Ok(Action::Redirect { status, location })
}

fn respond(path: &str, document: &RespondDocument) -> Result<Action, ConfigError> {
    let status_path = format!("{path}.status");
    let status = self::status(&status_path, document.status.unwrap_or(200), 200..=599)?;
    let body = document.body.clone().unwrap_or_default();
    if body.len() > BODY_BYTES_MAX {
        let message = format!(
            "expected at most {BODY_BYTES_MAX} bytes, found {}",
            body.len()
        );
        return Err(ConfigError::new(format!("{path}.body"), message));
    }
    if matches!(status, 204 | 304) && !body.is_empty() {
        let message = format!("an answer with status {status} has no body");
        return Err(ConfigError::new(format!("{path}.body"), message));
    }
    let named = &document.headers.0;
    if named.len() > RESPOND_HEADERS_MAX {
        let message = format!(
            "expected at most {RESPOND_HEADERS_MAX} headers, found {}",
            named.len()
        );
        return Err(ConfigError::new(format!("{path}.headers"), message));
    }
    let mut headers: Vec<(Box<[u8]>, Template)> = Vec::with_capacity(named.len());
    for (name, text) in named {
        let path = format!("{path}.headers.{name}");
        let lower = header_name(&path, name, &NOT_SETTABLE)?;
        if headers.iter().any(|(known, _)| *known == lower) {
            return Err(ConfigError::new(path, "this header is there twice"));
        }
        let template = Template::parse(text).map_err(|message| ConfigError::new(path, message))?;
        headers.push((lower, template));
    }
    Ok(Action::Respond(Box::new(Respond {
        status,
        headers,
        body: body.into_bytes().into(),
    })))
}

fn rewrite(path: &str, document: &RewriteDocument, case: Case) -> Result<Rewrite, ConfigError> {
    let wrong = |key: &str, message: String| ConfigError::new(format!("{path}.{key}"), message);
    match (&document.prefix, &document.regex) {
        (Some(prefix), None) => {
            let prefix = rooted(prefix).map_err(|message| wrong("prefix", message))?;
            let to = rooted(&document.to).map_err(|message| wrong("to", message))?;
            Ok(Rewrite::prefix(prefix, to, case))
        }
        (None, Some(text)) => {
            let regex = regex(text, case).map_err(|message| wrong("regex", message))?;
            Rewrite::regex(regex, &document.to).map_err(|message| wrong("to", message))
        }
        _ => Err(ConfigError::new(
            path,
            "expected either `prefix` or `regex`: what `to` takes the place of",
        )),
    }
}

fn route_limits(
    path: &str,
    document: &RouteDocument,
    action: &Action,
    limits: &[&str],
) -> Result<Vec<usize>, ConfigError> {
    let Some(OneOrMany(names)) = &document.limit else {
        return Ok(Vec::new());
    };
    if matches!(action, Action::Deny { .. }) {
        let message = "a route that denies every request has nothing to limit";
        return Err(ConfigError::new(path, message));
    }
    if names.is_empty() || names.len() > ROUTE_LIMITS_MAX {
        let message = format!(
            "expected 1 to {ROUTE_LIMITS_MAX} names, found {}",
            names.len()
        );
        return Err(ConfigError::new(path, message));
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let index = limits.iter().position(|known| known == name);
        let Some(index) = index else {
            let hint = nearest(name, limits.iter().copied());
            let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            let message = format!("no limit is named `{}`{hint}", shortened(name));
            return Err(ConfigError::new(path, message));
        };
        if found.contains(&index) {
            let message = format!("`{name}` is there twice");
            return Err(ConfigError::new(path, message));
        }
        found.push(index);
    }
    Ok(found)
}

/// What becomes of a request, as people say it.
fn action_in_words(document: &RouteDocument) -> String {
    let mut said = match document {
        RouteDocument {
            pool: Some(pool), ..
        } => format!("pool {pool}"),
        RouteDocument {
            redirect: Some(redirect),
            ..
        } => format!(
            "redirect {} {}",
            redirect.status.unwrap_or(302),
            shortened(&redirect.location)
        ),
        RouteDocument {
            respond: Some(respond),
            ..
        } => format!("respond {}", respond.status.unwrap_or(200)),
        RouteDocument {
            deny: Some(DenyDocument::Status(status)),
            ..
        } => format!("deny {status}"),
        _ => "deny 403".to_owned(),
    };
    if let Some(rewrite) = &document.rewrite {
        let from = rewrite.prefix.as_ref().or(rewrite.regex.as_ref());
        let from = from.map_or(String::new(), |from| shortened(from));
        said.push_str(&format!(", {from} rewritten to {}", shortened(&rewrite.to)));
    }
    if let Some(OneOrMany(limits)) = &document.limit {
        said.push_str(&format!(", limit {}", limits.join(" and ")));
    }
    said
}
