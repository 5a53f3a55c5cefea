//! How long a server takes to the first byte of its answers, averaged by the rule of the method that asks.

/// What is known of a server's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// The average, microseconds; 0: nothing is known yet.
    pub average_us: u32,
    /// When the last answer was seen, microseconds on the caller's clock.
    pub sampled_us: u64,
}

/// How answers become an average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencyRule {
    /// Each new answer counts for a twentieth.
    Average,
    /// A slower answer counts at once, faster ones slowly.
    Peak,
}
