//! The first server of the configuration that can be chosen, as HAProxy's `first` (`lb_fas.c`).
//!
//! The others stay idle (and may be switched off) until those before them are full, which `max_conns` says; who is full cannot
//! be chosen, so the order is all there is to it. Weights say nothing here, and a configuration with weights is refused.

use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but how many there are.
#[derive(Debug, Default)]
pub(super) struct First {
    servers: usize,
}

impl Balancer for First {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.servers = servers.len();
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        for server in question
            .eligible
            .iter()
            .take_while(|server| *server < self.servers)
        {
            if choices.is_full() {
                return;
            }
            choices.push(server);
        }
    }

    fn charge(&mut self, _charge: &Charge<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[test]
    fn the_order_of_the_configuration_is_all_there_is() {
        let mut group = Group::new(Algorithm::First, &[1, 1, 1]);
        group.in_flight = vec![9, 0, 0];
        assert_eq!(letters(&group.choose(3)), "ABC");
        assert_eq!(letters(&group.picks(3)), "AAA");
        group.eligible.remove(0);
        assert_eq!(letters(&group.picks(3)), "BBB");
    }
}
