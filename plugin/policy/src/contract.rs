//! The names that the filter and whatever hosts it agree on.
//!
//! The filter steers by request headers, because that is what stock Envoy understands (its `override_host` load
//! balancing policy and `cluster_header` routing). The sidecar implements the same rules, so that one filter serves both.

/// Ordered list of endpoints to try, `ip:port` or `[v6]:port`, comma-separated, unique, at most [`ENDPOINTS_MAX`].
pub const STEERING_HEADER: &str = "x-gateway-destination-endpoint";
/// The pool (Envoy: the cluster) that the request goes to.
pub const POOL_HEADER: &str = "x-evenkeel-pool";
/// Envoy's per-request retry conditions.
pub const RETRY_ON_HEADER: &str = "x-envoy-retry-on";
/// Envoy's per-request retry budget; the filter sets list length − 1.
pub const MAX_RETRIES_HEADER: &str = "x-envoy-max-retries";
/// Envoy's per-request list of statuses, comma-separated, that count as failures under `retriable-status-codes`.
pub const RETRIABLE_STATUSES_HEADER: &str = "x-envoy-retriable-status-codes";
/// The condition of [`RETRY_ON_HEADER`] under which [`RETRIABLE_STATUSES_HEADER`] is looked at.
pub const RETRIABLE_STATUSES: &str = "retriable-status-codes";

/// Longest steering list, whatever `retries` says.
pub const ENDPOINTS_MAX: usize = 8;

/// `vm_id` of every VM that runs the filter: shared data and queues are keyed by it.
pub const VM_ID: &str = "evenkeel";
/// `root_id` of the HTTP filter.
pub const HTTP_ROOT_ID: &str = "evenkeel";
/// `root_id` of a TCP listener's filter is this and the listener's name.
pub const TCP_ROOT_ID_PREFIX: &str = "evenkeel-tcp/";

/// Suffix of the strict cluster that reaches one exact server of a pool.
pub const CHECK_CLUSTER_SUFFIX: &str = ".check";
/// Cluster of the session-store bridge; no pool may have this name.
pub const SESSION_STORE_CLUSTER: &str = "session-store";
/// No listener, pool or server id may begin with this.
pub const RESERVED_PREFIX: &str = "evenkeel";

/// Told by the host where a PROXY header says another peer in `source.address`: the socket's, `ip:port`. Asked for only where the
/// configuration looks at it; a host that does not know it has none but `source.address`.
pub const TCP_PEER_PROPERTY: &str = "evenkeel.tcp_peer";

/// Published by `set_property`: the client's address, without port.
pub const CLIENT_IP_PROPERTY: &str = "evenkeel.client_ip";
/// Published by `set_property`: the pool's name.
pub const POOL_PROPERTY: &str = "evenkeel.pool";
/// Published by `set_property`, when asked for: why this server.
pub const DECISION_PROPERTY: &str = "evenkeel.decision";
/// Request header by which a proxy (never a client: it is removed from what clients send) asks for the decision.
pub const EXPLAIN_HEADER: &str = "x-evenkeel-explain";

/// Custom section of a module that names the callbacks it uses, comma-separated; the others are skipped.
pub const CALLBACKS_SECTION: &str = "evenkeel.callbacks";

/// Version of the JSON text the filter is configured with.
pub const SCHEMA: u32 = 1;
