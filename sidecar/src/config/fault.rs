//! What is wrong with a configuration file: `FILE:LINE:COLUMN: key.path: what is wrong, what was expected`.

use std::fmt;
use std::path::PathBuf;

use super::locate::{Position, Tree};
use evenkeel_policy::config::{ConfigError, nearest};

/// Most that are told at once.
const FAULTS_MAX: usize = 20;

/// Everything found wrong, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    file: PathBuf,
    faults: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    at: Position,
    path: String,
    message: String,
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    /// One line each, without a line end after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().take(FAULTS_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if fault.at.line > 0 {
                write!(f, ":{}:{}", fault.at.line, fault.at.column)?;
            }
            if !fault.path.is_empty() {
                write!(f, ": {}", fault.path)?;
            }
            write!(f, ": {}", fault.message)?;
        }
        match self.faults.len().checked_sub(FAULTS_MAX) {
            Some(more @ 1..) => write!(f, "\n{}: and {more} more", self.file.display()),
            _ => Ok(()),
        }
    }
}

impl Faults {
    /// One fault of the file as a whole, or at a place without a key.
    pub fn one(file: PathBuf, at: Position, message: String) -> Self {
        Self {
            file,
            faults: vec![Fault {
                at,
                path: String::new(),
                message,
            }],
        }
    }
}

/// Collects what is wrong, and knows where it stands.
pub struct Collector<'t> {
    file: PathBuf,
    tree: &'t Tree,
    faults: Vec<Fault>,
}

impl<'t> Collector<'t> {
    pub fn new(file: PathBuf, tree: &'t Tree) -> Self {
        Self {
            file,
            tree,
            faults: Vec::new(),
        }
    }

    /// The value at `path` is wrong.
    pub fn value(&mut self, path: &str, message: impl Into<String>) {
        let place = self.tree.locate(path);
        // A block begins below its key, and the key is what one looks for.
        let at = if place.value.line > place.key.line {
            place.key
        } else {
            place.value
        };
        self.faults.push(Fault {
            at,
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// The key at `path` is wrong, whatever its value.
    pub fn key(&mut self, path: &str, message: impl Into<String>) {
        let at = self.tree.locate(path).key;
        self.faults.push(Fault {
            at,
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// What `evenkeel-policy` says, by paths from the file's root.
    pub fn policy(&mut self, error: ConfigError) {
        if error.message.starts_with("unknown key") {
            self.key(&error.path, error.message);
        } else {
            self.value(&error.path, error.message);
        }
    }

    /// What serde says of the value at `path`, in this file's words.
    pub fn serde(&mut self, path: &str, message: &str) {
        let names = backticked(message);
        if message.starts_with("unknown field ") {
            let (found, known) = names
                .split_first()
                .map_or(("", &[][..]), |(found, known)| (*found, known));
            let path = if path.ends_with(found) {
                path.to_owned()
            } else {
                format!("{path}.{found}")
            };
            let hint = nearest(found, known.iter().copied()).map_or_else(
                || format!("known here: {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return self.key(&path, format!("unknown key `{found}`; {hint}"));
        }
        let message = match (message.split_once(", expected "), names.split_first()) {
            (Some((_, expected)), Some((found, known)))
                if message.starts_with("unknown variant ") =>
            {
                let hint = nearest(found, known.iter().copied())
                    .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                format!("expected {expected}, found `{found}`{hint}")
            }
            (Some((found, expected)), _) => {
                let found = found
                    .strip_prefix("invalid type: ")
                    .or(found.strip_prefix("invalid value: "))
                    .unwrap_or(found);
                format!("expected {}, found {}", plain(expected), plain(found))
            }
            _ => message.to_owned(),
        };
        self.value(path, message);
    }

    /// Everything, if there is anything.
    pub fn finish(mut self) -> Option<Faults> {
        self.faults.sort();
        self.faults.dedup();
        (!self.faults.is_empty()).then_some(Faults {
            file: self.file,
            faults: self.faults,
        })
    }
}

/// Serde's names of types in words for people.
fn plain(phrase: &str) -> String {
    match phrase {
        "u64" => "a whole number".to_owned(),
        "a string" => "text".to_owned(),
        "sequence" | "a sequence" => "a list".to_owned(),
        "map" => "a mapping".to_owned(),
        "unit" | "null" => "nothing".to_owned(),
        _ => match phrase.split_once(' ') {
            Some(("string", text)) => format!("text {text}"),
            Some(("integer" | "floating", number)) => format!("the number {number}"),
            _ => phrase.to_owned(),
        },
    }
}

/// The names between backticks, in order.
fn backticked(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}
