//! Where a Redis is, as a configuration says it.
//!
//! `redis://[user:password@]host[:port]`, `rediss://…` with TLS, `redis+unix:///path/of/socket`, `redis+sentinel://host[:port],…/master`. Databases are
//! chosen by clients, so an address has none.

use std::path::PathBuf;

/// As Redis and its Sentinels listen.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Sentinels that one address can name.
const SENTINELS_MAX: usize = 16;

/// Where to find the one that takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Tcp(Host),
    Unix(PathBuf),
    /// The master of this name, as these say.
    Sentinel {
        sentinels: Vec<Host>,
        master: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub name: String,
    pub port: u16,
}

/// A parsed address. Its password is not printed: it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub place: Place,
    pub is_tls: bool,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl Address {
    /// # Errors
    /// What is wrong, without what may be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("expected redis://host:port")?;
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or(("", login)))
        {
            Some((user, password)) => (
                (!user.is_empty()).then(|| user.to_owned()),
                Some(password.to_owned()),
            ),
            None => (None, None),
        };
        let place = match scheme {
            "redis" | "rediss" => {
                let rest = rest.strip_suffix('/').unwrap_or(rest);
                if rest.contains('/') {
                    return Err(
                        "expected no database: clients choose theirs with SELECT".to_owned()
                    );
                }
                Place::Tcp(host(rest, PORT)?)
            }
            "redis+unix" if rest.starts_with('/') => Place::Unix(PathBuf::from(rest)),
            "redis+unix" => return Err("expected redis+unix:///path/of/socket".to_owned()),
            "redis+sentinel" => sentinel(rest)?,
            _ => {
                return Err(
                    "expected redis://, rediss://, redis+unix:// or redis+sentinel://".to_owned(),
                );
            }
        };
        Ok(Self {
            place,
            is_tls: scheme == "rediss",
            user,
            password,
        })
    }
}

fn sentinel(rest: &str) -> Result<Place, String> {
    let (hosts, master) = rest
        .split_once('/')
        .filter(|(_, master)| !master.is_empty() && !master.contains('/'))
        .ok_or("expected redis+sentinel://host,host,host/name-of-master")?;
    let sentinels: Vec<Host> = hosts
        .split(',')
        .map(|text| host(text, SENTINEL_PORT))
        .collect::<Result<_, _>>()?;
    if sentinels.len() > SENTINELS_MAX {
        return Err(format!("expected at most {SENTINELS_MAX} Sentinels"));
    }
    Ok(Place::Sentinel {
        sentinels,
        master: master.to_owned(),
    })
}

fn host(text: &str, port: u16) -> Result<Host, String> {
    let (name, given) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest
                .split_once(']')
                .ok_or("expected ] after an IPv6 address")?;
            (name, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let port = match given {
        None => port,
        Some(given) => given
            .parse()
            .map_err(|_| "expected a port from 1 to 65535")?,
    };
    if name.is_empty() || port == 0 {
        return Err("expected a host, and a port from 1 to 65535".to_owned());
    }
    Ok(Host {
        name: name.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(name: &str, port: u16) -> Place {
        Place::Tcp(Host {
            name: name.to_owned(),
            port,
        })
    }

    #[track_caller]
    fn check(text: &str, place: Place, is_tls: bool, login: (Option<&str>, Option<&str>)) {
        let address = Address::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(address.place, place, "{text}");
        assert_eq!(
            (
                address.is_tls,
                address.user.as_deref(),
                address.password.as_deref()
            ),
            (is_tls, login.0, login.1),
            "{text}"
        );
    }

    #[test]
    fn addresses_of_each_kind() {
        check(
            "redis://10.0.0.1",
            tcp("10.0.0.1", 6379),
            false,
            (None, None),
        );
        check(
            "redis://u:p:@w@h:7/",
            tcp("h", 7),
            false,
            (Some("u"), Some("p:@w")),
        );
        check("redis://:p@h", tcp("h", 6379), false, (None, Some("p")));
        check("redis://p@h", tcp("h", 6379), false, (None, Some("p")));
        check("rediss://[::1]:1", tcp("::1", 1), true, (None, None));
        check(
            "redis+unix:///run/r.sock",
            Place::Unix("/run/r.sock".into()),
            false,
            (None, None),
        );
        let sentinels = ["a", "b"].map(|name| Host {
            name: name.to_owned(),
            port: 26379,
        });
        check(
            "redis+sentinel://a,b:26379/mymaster",
            Place::Sentinel {
                sentinels: sentinels.to_vec(),
                master: "mymaster".to_owned(),
            },
            false,
            (None, None),
        );
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for text in [
            "h:1",
            "http://h",
            "redis://",
            "redis://:secret@h:x",
            "redis://:secret@h:0",
            "redis://h/3",
            "redis+unix://run",
            "redis+sentinel://a,b",
            "redis+sentinel://:secret@a/",
        ] {
            match Address::parse(text) {
                Ok(_) => panic!("accepted: {text}"),
                Err(why) => assert!(!why.contains("secret"), "{why}"),
            }
        }
    }
}
