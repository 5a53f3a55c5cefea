//! The two hosts of the filter, and how a scenario runs on both.

use crate::peers;

/// What runs the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// `evenkeel run`.
    Sidecar,
    /// Stock Envoy, with what `evenkeel envoy` wrote.
    Envoy,
}

impl Host {
    /// False (after a loud word) when this machine cannot run it.
    pub fn available(self) -> bool {
        match self {
            Host::Sidecar => true,
            Host::Envoy => peers::find("envoy").is_some(),
        }
    }
}

/// Makes of each `fn scenario(host: Host)` two tests, `scenario::sidecar` and `scenario::envoy`.
#[macro_export]
macro_rules! both_hosts {
    ($($(#[$attribute:meta])* $scenario:ident),+ $(,)?) => {$(
        $(#[$attribute])*
        mod $scenario {
            #[test]
            fn sidecar() {
                super::$scenario($crate::Host::Sidecar);
            }
            #[test]
            fn envoy() {
                if $crate::Host::Envoy.available() {
                    super::$scenario($crate::Host::Envoy);
                }
            }
        }
    )+};
}
