//! What one client is and may do: its user, database, name and protocol, its transaction, its locks.
//!
//! A command is taken here and becomes one of four things ([`Step`]): an answer, a question to the store, something that must wait until
//! everything before it was answered, or the end of the connection. No bytes are read or written here.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use super::Shared;
use super::locks::Attempt;
use super::login::{Account, Denied};
use crate::backend::Backend;
use crate::command::{Command, Effect, RULES, Replay, Request, Unfit, scripts};
use crate::resp::{Protocol, Reply};

/// Commands of one transaction.
const TRANSACTION_MAX: usize = 1024;
/// Keys that one client watches at a time.
const WATCHED_MAX: usize = 1024;
/// Bytes of a client's name.
const NAME_MAX: usize = 256;
/// Bytes of a command's name that an error repeats.
const TOLD_MAX: usize = 32;
/// What client libraries look for in a version: the commands that are known here are those of 6.2 and earlier.
const REDIS_VERSION: &str = "7.0.0";

/// What a command becomes.
pub(super) enum Step<B: Backend> {
    Answer(Reply),
    Ask(B::Answer, Asked),
    Lock(Attempt),
    Watch(Vec<Bytes>),
    Quit,
}

/// What must be known when the store answers.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Which row, for counting.
    pub(super) rule: Option<usize>,
    /// The key that is read by it.
    pub(super) reads: Option<Bytes>,
    /// Keys that are gone after it: locks among them may be waited for.
    pub(super) removes: Vec<Bytes>,
    pub(super) database: u8,
}

/// A client.
pub(super) struct Session<B: Backend> {
    pub(super) protocol: Protocol,
    pub(super) database: u8,
    number: u64,
    peer: Option<IpAddr>,
    account: Option<Account>,
    name: Bytes,
    transaction: Option<Transaction>,
    pub(super) watch: Option<B::Watch>,
    pub(super) watched: usize,
    /// The key that was read last, and was there.
    pub(super) seen: Option<(u8, Bytes)>,
}

#[derive(Default)]
struct Transaction {
    requests: Vec<Request>,
    is_spoilt: bool,
}

impl<B: Backend> Session<B> {
    pub(super) fn new(shared: &Shared<B>, peer: Option<IpAddr>, number: u64) -> Self {
        Self {
            protocol: Protocol::default(),
            database: 0,
            number,
            peer,
            account: shared.logins.open(),
            name: Bytes::new(),
            transaction: None,
            watch: None,
            watched: 0,
            seen: None,
        }
    }

    /// Takes a command. `arguments` is not empty.
    pub(super) fn take(&mut self, shared: &Shared<B>, arguments: Vec<Bytes>) -> Step<B> {
        let name = arguments
            .first()
            .map(|name| name.to_ascii_uppercase())
            .unwrap_or_default();
        let rest = arguments.get(1..).unwrap_or_default();
        match (name.as_slice(), rest) {
            (b"AUTH", _) => return Step::Answer(self.auth(shared, rest)),
            (b"HELLO", _) => return Step::Answer(self.hello(shared, rest)),
            (b"QUIT", _) => return Step::Quit,
            _ => {}
        }
        let Some(account) = &self.account else {
            shared.counters.refused_logins.add();
            return Step::Answer(Reply::refused("log in first (AUTH)"));
        };
        match (name.as_slice(), rest) {
            (b"EXEC", []) => self.exec(shared),
            (b"DISCARD", []) => {
                self.forget_watch();
                Step::Answer(match self.transaction.take() {
                    Some(_) => Reply::OK,
                    None => Reply::refused("DISCARD without MULTI"),
                })
            }
            (b"MULTI", []) if self.transaction.is_none() => {
                self.transaction = Some(Transaction::default());
                Step::Answer(Reply::OK)
            }
            _ if self.transaction.is_none() && is_own(&name) => self.own(&name, rest),
            _ => match Request::new(arguments, &account.prefix) {
                Ok(request) => self.request(shared, request),
                Err(unfit) => {
                    shared.counters.refused_commands.add();
                    self.spoil();
                    Step::Answer(refusal(&name, &unfit))
                }
            },
        }
    }

    /// Commands that concern the connection alone.
    fn own(&mut self, name: &[u8], rest: &[Bytes]) -> Step<B> {
        let subcommand = rest
            .first()
            .map(|word| word.to_ascii_uppercase())
            .unwrap_or_default();
        let reply = match (name, rest) {
            (b"PING", []) => Reply::Simple("PONG".into()),
            (b"PING" | b"ECHO", [text]) => Reply::Bulk(text.clone()),
            (b"SELECT", [database]) => self.select(database),
            (b"CLIENT", _) => self.client(&subcommand, rest.get(1..).unwrap_or_default()),
            (b"INFO", _) => Reply::bulk(format!(
                "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nserver_name:evenkeel\r\n# Replication\r\nrole:master\r\n"
            )),
            (b"COMMAND", _) => match subcommand.as_slice() {
                b"COUNT" => Reply::Integer(i64::try_from(RULES.len()).unwrap_or(0)),
                b"DOCS" => Reply::Map(Vec::new()),
                _ => Reply::Array(Vec::new()),
            },
            (b"SCRIPT", [_, hashes @ ..]) if subcommand == b"EXISTS" => {
                let known = hashes
                    .iter()
                    .map(|sha| Reply::Integer(i64::from(scripts::is_known_sha(sha))));
                Reply::Array(known.collect())
            }
            (b"SCRIPT", [_, text]) if subcommand == b"LOAD" && text == scripts::RELEASE => {
                Reply::bulk(scripts::RELEASE_SHA)
            }
            (b"SCRIPT", _) => Reply::refused("this script is not allowed here"),
            (b"WATCH", keys @ [_, ..]) if self.watched + keys.len() <= WATCHED_MAX => {
                let prefix = self
                    .account
                    .as_ref()
                    .map(|account| account.prefix.clone())
                    .unwrap_or_default();
                let keys = keys
                    .iter()
                    .map(|key| Bytes::from([&prefix[..], key].concat()));
                return Step::Watch(keys.collect());
            }
            (b"WATCH", [_, ..]) => Reply::refused("too many keys are watched"),
            (b"UNWATCH", []) => {
                self.forget_watch();
                Reply::OK
            }
            (b"RESET", []) => {
                self.forget_watch();
                (self.protocol, self.database, self.name) = (Protocol::Resp2, 0, Bytes::new());
                Reply::Simple("RESET".into())
            }
            _ => Reply::refused(format!("wrong number of arguments for {}", told(name))),
        };
        Step::Answer(reply)
    }

    /// A command for the store.
    fn request(&mut self, shared: &Shared<B>, mut request: Request) -> Step<B> {
        let command = request.rule.command;
        if matches!(command, Command::Release | Command::ReleaseBySha)
            && !scripts::is_known(request.argument(1), request.argument(2))
        {
            shared.counters.refused_commands.add();
            self.spoil();
            return Step::Answer(match command {
                Command::ReleaseBySha => {
                    Reply::Error("NOSCRIPT No matching script. Please use EVAL.".into())
                }
                _ => Reply::refused("this script is not allowed here"),
            });
        }
        request.seen = request.rule.replay == Replay::IfAlone && self.has_seen(request.keys());
        if let Some(transaction) = &mut self.transaction {
            if transaction.requests.len() >= TRANSACTION_MAX {
                transaction.is_spoilt = true;
                return Step::Answer(Reply::refused("too many commands in one transaction"));
            }
            transaction.requests.push(request);
            return Step::Answer(Reply::Simple("QUEUED".into()));
        }
        if let Some(attempt) = Attempt::of(self.database, &request) {
            return Step::Lock(attempt);
        }
        let asked = self.asked(&request);
        Step::Ask(shared.backend.submit(self.database, request), asked)
    }

    fn asked(&self, request: &Request) -> Asked {
        let is_read = matches!(
            request.rule.command,
            Command::Get | Command::GetEx | Command::HGetAll
        );
        let is_removal = matches!(
            request.rule.command,
            Command::Del
                | Command::Unlink
                | Command::GetDel
                | Command::Release
                | Command::ReleaseBySha
        );
        Asked {
            rule: RULES
                .iter()
                .position(|rule| std::ptr::eq(rule, request.rule)),
            reads: is_read.then(|| request.keys().first().cloned()).flatten(),
            removes: if is_removal {
                request.keys().to_vec()
            } else {
                Vec::new()
            },
            database: self.database,
        }
    }

    fn has_seen(&self, keys: &[Bytes]) -> bool {
        match (&self.seen, keys) {
            (Some((database, seen)), [key]) => *database == self.database && seen == key,
            _ => false,
        }
    }

    fn exec(&mut self, shared: &Shared<B>) -> Step<B> {
        let watch = self.watch.take();
        self.watched = 0;
        let Some(transaction) = self.transaction.take() else {
            self.watch = watch;
            return Step::Answer(Reply::refused("EXEC without MULTI"));
        };
        if transaction.is_spoilt {
            return Step::Answer(Reply::refused(
                "the transaction was discarded because of an error before (EXECABORT)",
            ));
        }
        let removes = transaction
            .requests
            .iter()
            .filter(|request| request.rule.effect == Effect::Write);
        let asked = Asked {
            rule: None,
            reads: None,
            removes: removes.flat_map(Request::keys).cloned().collect(),
            database: self.database,
        };
        Step::Ask(
            shared
                .backend
                .transact(self.database, transaction.requests, watch),
            asked,
        )
    }

    fn spoil(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.is_spoilt = true;
        }
    }

    fn forget_watch(&mut self) {
        (self.watch, self.watched) = (None, 0);
    }

    fn select(&mut self, text: &[u8]) -> Reply {
        let number = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse::<u8>().ok());
        let allowed = self
            .account
            .as_ref()
            .map(|account| account.databases.as_slice())
            .unwrap_or_default();
        match number.filter(|number| allowed.contains(number)) {
            Some(number) => {
                if number != self.database && self.watch.is_some() {
                    return Reply::refused("SELECT while keys are watched");
                }
                self.database = number;
                Reply::OK
            }
            None => Reply::refused("this database is not allowed here"),
        }
    }

    fn client(&mut self, subcommand: &[u8], rest: &[Bytes]) -> Reply {
        match (subcommand, rest) {
            (b"ID", []) => Reply::Integer(i64::try_from(self.number).unwrap_or(i64::MAX)),
            (b"GETNAME", []) if self.name.is_empty() => Reply::Nil,
            (b"GETNAME", []) => Reply::Bulk(self.name.clone()),
            (b"SETNAME", [name]) => self.set_name(name),
            (b"SETINFO", [_, _]) => Reply::OK,
            _ => Reply::refused(format!("CLIENT {} is not allowed here", told(subcommand))),
        }
    }

    fn set_name(&mut self, name: &[u8]) -> Reply {
        if name.len() > NAME_MAX || name.iter().any(|byte| !byte.is_ascii_graphic()) {
            return Reply::refused("a name is at most 256 printable characters without spaces");
        }
        self.name = Bytes::copy_from_slice(name);
        Reply::OK
    }

    fn auth(&mut self, shared: &Shared<B>, rest: &[Bytes]) -> Reply {
        match rest {
            [password] => self.log_in(shared, None, password),
            [name, password] => self.log_in(shared, Some(name), password),
            _ => Reply::refused("wrong number of arguments for a login"),
        }
    }

    fn log_in(&mut self, shared: &Shared<B>, name: Option<&[u8]>, password: &[u8]) -> Reply {
        match shared
            .logins
            .check(self.peer, name, password, Instant::now())
        {
            Ok(account) => {
                // What was watched and queued was somebody else's.
                self.forget_watch();
                self.transaction = None;
                self.database = account.databases.first().copied().unwrap_or(0);
                self.account = Some(account);
                Reply::OK
            }
            Err(denied) => {
                shared.counters.refused_logins.add();
                Reply::refused(match denied {
                    Denied::Wrong => "wrong user or password",
                    Denied::TooOften => "too many failed logins from this address, wait a little",
                    Denied::NoPasswords => "no passwords are set here (session_store.auth)",
                })
            }
        }
    }

    /// `HELLO [2|3 [AUTH user password] [SETNAME name]]`.
    fn hello(&mut self, shared: &Shared<B>, rest: &[Bytes]) -> Reply {
        let protocol = match rest.first().map(AsRef::as_ref) {
            None => self.protocol,
            Some(b"2") => Protocol::Resp2,
            Some(b"3") => Protocol::Resp3,
            Some(_) => return Reply::refused("unsupported protocol version (NOPROTO)"),
        };
        let mut words = rest.get(1..).unwrap_or_default();
        // Ends: each turn takes words, or returns.
        loop {
            let (option, more) = match words {
                [] => break,
                [option, more @ ..] => (option.to_ascii_uppercase(), more),
            };
            let (reply, left) = match (option.as_slice(), more) {
                (b"AUTH", [name, password, left @ ..]) => {
                    (self.log_in(shared, Some(name), password), left)
                }
                (b"SETNAME", [name, left @ ..]) => (self.set_name(name), left),
                _ => return Reply::refused("HELLO: unknown option"),
            };
            if reply != Reply::OK {
                return reply;
            }
            words = left;
        }
        if self.account.is_none() {
            return Reply::refused("log in first (HELLO 3 AUTH user password)");
        }
        self.protocol = protocol;
        let version = match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        Reply::Map(vec![
            Reply::bulk("server"),
            Reply::bulk("redis"),
            Reply::bulk("version"),
            Reply::bulk(REDIS_VERSION),
            Reply::bulk("proto"),
            Reply::Integer(version),
            Reply::bulk("id"),
            Reply::Integer(i64::try_from(self.number).unwrap_or(i64::MAX)),
            Reply::bulk("mode"),
            Reply::bulk("standalone"),
            Reply::bulk("role"),
            Reply::bulk("master"),
            Reply::bulk("modules"),
            Reply::Array(Vec::new()),
        ])
    }
}

fn is_own(name: &[u8]) -> bool {
    const OWN: [&[u8]; 10] = [
        b"PING", b"ECHO", b"SELECT", b"CLIENT", b"INFO", b"COMMAND", b"SCRIPT", b"WATCH",
        b"UNWATCH", b"RESET",
    ];
    OWN.contains(&name)
}

fn refusal(name: &[u8], unfit: &Unfit) -> Reply {
    match unfit {
        Unfit::Unknown => Reply::refused(format!("{} is not allowed here", told(name))),
        Unfit::Arity(name) => Reply::refused(format!("wrong number of arguments for {name}")),
    }
}

/// A word of a client, fit for an error.
fn told(word: &[u8]) -> String {
    let word = word.get(..word.len().min(TOLD_MAX)).unwrap_or_default();
    let is_name = word
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'.');
    if is_name && !word.is_empty() {
        String::from_utf8_lossy(word).into_owned()
    } else {
        "this command".to_owned()
    }
}
