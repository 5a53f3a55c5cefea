//! Why a request goes where it goes, in words.

use super::decision::{Answered, Decided, Decision, Policy};

impl Policy {
    /// Why: for people, only when asked for. At most a few hundred bytes.
    pub fn explain(&self, decided: &Decided, out: &mut Vec<u8>) {
        out.clear();
        let mut say = |text: &str| out.extend_from_slice(text.as_bytes());
        let (pool, choices) = match decided.decision {
            Decision::NoRoute => return say("no route matches"),
            Decision::Answered(answered) => {
                return say(match answered {
                    Answered::BadPath(_) => "the path is refused",
                    Answered::BadHost => "the host is refused",
                    Answered::Redirected => "redirected by its route",
                    Answered::Responded => "answered by its route",
                    Answered::Denied => "denied by its route",
                    Answered::Limited(_) => "beyond a limit of its route",
                });
            }
            Decision::Delayed { .. } => return say("waits for its turn under a limit"),
            Decision::NoServer { pool }
            | Decision::AllFull { pool }
            | Decision::Routed { pool } => (pool, None),
            Decision::Steered { pool, choices } => (pool, Some(choices)),
        };
        let Some(pool) = self.pools().get(pool) else {
            return;
        };
        say("pool ");
        say(pool.name());
        let Some(choices) = choices else {
            return say(match decided.decision {
                Decision::AllFull { .. } => ": all servers have as many requests as they take",
                Decision::Routed { .. } => ": the host chooses",
                _ => ": no server is eligible",
            });
        };
        say(": ");
        say(pool.algorithm().name());
        for (place, server) in choices.iter().enumerate() {
            say(match place {
                0 => " chose ",
                1 => "; next ",
                _ => ", ",
            });
            say(pool.id(server));
            if place == 0 {
                say(" of ");
                say(&pool.len().to_string());
            }
        }
    }
}
