//! What a proxy that embeds this host provides: the world of a VM ([`Environment`]) and each stream's data ([`HttpStream`]).
//!
//! Every method is called on the VM's own thread, during a callback of the guest. Implementations use interior mutability;
//! they must not call back into the VM.

use std::time::{Duration, SystemTime};

/// Which of a stream's header maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMap {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
}

/// A fact about a stream or its connection that the embedder knows; the host owns the property names and encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    SourceAddress,
    SourcePort,
    DestinationAddress,
    DestinationPort,
    ConnectionId,
    ConnectionMtls,
    TlsVersion,
    RequestedServerName,
    TerminationDetails,
    UpstreamAddress,
    UpstreamPort,
    UpstreamLocalAddress,
    UpstreamNumEndpoints,
    UpstreamRequestAttemptCount,
    UpstreamTransportFailureReason,
    UpstreamPoolReadyDuration,
    RequestId,
    RequestProtocol,
    RequestTime,
    RequestDuration,
    RequestSize,
    RequestTotalSize,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseSize,
    ResponseTotalSize,
    /// From the request's first byte to the server until the response's last byte from it.
    ResponseBackendLatency,
    ClusterName,
    RouteName,
    ListenerDirection,
}

/// A property's value; the host encodes it as Envoy does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Bytes(&'a [u8]),
    Int(i64),
    Uint(u64),
    Bool(bool),
    Double(f64),
    /// Nanoseconds, signed.
    Duration(Duration),
    /// Nanoseconds since the epoch.
    TimestampNanos(i64),
}

/// One HTTP stream as its owner sees it.
pub trait HttpStream {
    /// Visits every pair in order, pseudo-headers (`:authority :path :method :scheme`, `:status`) first; names lower-case.
    /// `false` if there is no such map (yet).
    fn pairs(&self, map: HeaderMap, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool;
    /// Visits the first value of `name`, compared without case; `host` is an alias of `:authority`. `false`: no such map.
    fn value(&self, map: HeaderMap, name: &[u8], visit: &mut dyn FnMut(&[u8])) -> bool;
    /// Adds a pair after those that are there. `false`: no such map, or not a legal name or value.
    fn add(&self, map: HeaderMap, name: &[u8], value: &[u8]) -> bool;
    /// Sets one pair in the place of all of this name.
    fn replace(&self, map: HeaderMap, name: &[u8], value: &[u8]) -> bool;
    /// Removes all of this name; `true` also when there was none.
    fn remove(&self, map: HeaderMap, name: &[u8]) -> bool;
    /// Replaces the whole map.
    fn replace_all(&self, map: HeaderMap, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> bool;
    /// Answers with a value now, if it is known now; `false`: not found.
    fn attribute(&self, attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool;
    /// `clear_route_cache`, or a change of request headers that implies it. Nothing to do where routes are not cached.
    fn clear_route_cache(&self) {}
    /// `set_envoy_filter_state`: what the embedder understands of it.
    fn set_filter_state(&self, path: &[u8], value: &[u8]) -> FilterStateOutcome;
    /// Number of pairs of a map; worth overriding where it is known without counting.
    fn count(&self, map: HeaderMap) -> usize {
        let mut count = 0;
        self.pairs(map, &mut |_, _| count += 1);
        count
    }
    /// Told when something happened outside a callback of this stream (a resume, a local reply, a close, a failed VM):
    /// the owner's task should call [`crate::http_filters::HttpFilters::poll_event`].
    fn wake(&self);
}

/// One TCP connection as its owner sees it.
pub trait TcpStream {
    /// As [`HttpStream::attribute`].
    fn attribute(&self, attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool;
    /// As [`HttpStream::set_filter_state`]; `envoy.network.transport_socket.original_dst_address` steers the connection.
    fn set_filter_state(&self, path: &[u8], value: &[u8]) -> FilterStateOutcome;
    /// A foreign function that concerns this connection; `None`: [`Environment::foreign_function`] is asked next.
    fn foreign_function(&self, _name: &[u8], _arguments: &[u8]) -> Option<Vec<u8>> {
        None
    }
    /// Told when something happened outside a callback of this connection: the owner's task should call
    /// [`crate::tcp_filters::TcpFilters::poll_event`].
    fn wake(&self);
}

/// What became of a `set_envoy_filter_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterStateOutcome {
    Set,
    /// Nobody knows this path.
    UnknownPath,
    /// The path is known, the value is not one of it.
    BadValue,
}

/// Severity of a guest's log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

/// Owned header pairs, of calls and local replies.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A `proxy_http_call` that the embedder should make; the outcome goes to [`crate::Vm::http_call_done`].
#[derive(Debug, Clone)]
pub struct HttpCall {
    pub token: u32,
    pub upstream: Vec<u8>,
    pub headers: Pairs,
    pub body: Vec<u8>,
    pub trailers: Pairs,
    pub timeout: Duration,
}

/// Why a call could not be started; the guest gets the status at once and no callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallRefused {
    /// No such upstream (BadArgument).
    UnknownUpstream,
    /// It has no endpoints, or a bound of the embedder is reached (InternalFailure).
    NoEndpoints,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum HttpCallOutcome {
    /// A response, also the 503 and 504 that the embedder makes of a refused connection and of a timeout before headers.
    Response {
        headers: Pairs,
        body: Vec<u8>,
        trailers: Pairs,
    },
    /// Reset or timeout in the middle of the body: the callback has no headers, no body.
    Reset,
}

/// The world of one VM.
pub trait Environment {
    fn log(&self, level: LogLevel, message: &[u8]);
    /// Lines below this are not made by a well-behaved guest.
    fn log_level(&self) -> LogLevel;
    /// Starts a call without waiting for it.
    fn http_call(&self, call: HttpCall) -> Result<(), CallRefused>;
    /// From now on, [`crate::Plugin::tick`] wants to be called so often; zero stops.
    fn set_tick_period(&self, root_context: u32, period: Duration);
    /// A foreign function that the host itself does not know. `None`: not found.
    fn foreign_function(
        &self,
        stream: Option<&dyn HttpStream>,
        name: &[u8],
        arguments: &[u8],
    ) -> Option<Vec<u8>>;
    /// The time that guests are told; the system's, unless somebody has reason to tell another.
    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }
    /// The VM trapped or overran its deadline; it is dead. Called once, after every stream on it has been woken.
    fn failed(&self, failure: &crate::Failure);
}

/// Told, on any thread, that a queue of a VM has something to read: have that VM's thread call [`crate::Vm::queue_ready`].
pub trait QueueWaker: Send + Sync {
    fn wake(&self, root_context: u32, queue: u32);
}
